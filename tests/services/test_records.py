"""Records of others: what is news, what is refused, and whose is a twin's."""

from __future__ import annotations

import random

import pytest

from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from lockbox_node.services.records import Records
from protocol.errors import RemoteProtocolError
from protocol.messages import Signed
from tests.fakes.nodes import Town, announcer_of
from tests.fakes.swarm import own_signed


class World:
    """Node 1, which judges, and others' records."""

    def __init__(self) -> None:
        self.town = Town()
        self.own = announcer_of(self.town.papers(1), "node1:7420", self.town.clock)
        self.machine = Membership(self.own.id, MembershipParams(), random.Random(1))
        self.machine.handle(own_signed(self.own.id), 0.0)
        self.records = Records(self.machine, self.own, self.town.clock.now_unix_s)


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_genuine_record_is_news_once_and_a_forged_one_is_counted(world: World) -> None:
    signed = world.town.record(2)
    record = world.records.news(signed)
    assert record is not None
    with pytest.raises(RemoteProtocolError):
        world.records.news(Signed(signed.body, bytes(64)))
    with pytest.raises(RemoteProtocolError):
        world.records.news(Signed(b"nonsense", bytes(64)))
    assert world.records.refused == 2


async def test_what_has_expired_or_cannot_be_dialled_counts_for_nothing(world: World) -> None:
    assert world.records.news(world.town.record(2, address="nowhere")) is None
    signed = world.town.record(2)
    world.town.clock.ahead_s = 2 * 86_400
    assert world.records.news(signed) is None
    assert world.records.refused == 0


async def test_our_own_record_is_no_news_and_that_of_another_life_is(world: World) -> None:
    assert world.records.news(world.own.signed) is None
    twin = announcer_of(world.town.papers(1), "elsewhere:7420", world.town.clock, epoch=2)
    assert world.records.news(twin.signed) == twin.record


async def test_a_twin_is_who_shows_its_own_record_of_our_node(world: World) -> None:
    papers = world.town.papers(1)
    twin = announcer_of(papers, "elsewhere:7420", world.town.clock, epoch=2)
    assert world.records.of_twin(twin.signed, papers.leaf()) == twin.record
    assert world.records.of_twin(twin.signed, world.town.papers(2).leaf()) is None
    other = world.town.papers(2)
    stranger = announcer_of(other, "node2:7420", world.town.clock)
    assert world.records.of_twin(stranger.signed, other.leaf()) is None
    assert world.records.of_twin(world.own.signed, world.own.record.chain[0]) is None
    assert world.records.of_twin(Signed(b"nonsense", bytes(64)), b"") is None
