"""Probes over real connections: directly, through relays, and on behalf of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.member_events import ProbeAnswered, ProbeFailed, SendProbe, Status
from lockbox_node.errors import RequestRefused
from protocol.errors import ErrorCode
from protocol.messages import Ping, PingFor, Pong
from tests.fakes.nodes import Member, Town

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def town() -> Town:
    return Town()


async def square(town: Town, nursery: trio.Nursery) -> list[Member]:
    """Four members that know one another."""
    members = [Member(town, 1), *(Member(town, number, [1]) for number in (2, 3, 4))]
    for member in members:
        await nursery.start(member.run)
    await trio.sleep(40)
    return members


async def test_a_link_that_breaks_between_two_makes_nobody_suspect(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, third, fourth = await square(town, nursery)
    town.hub.sever("node1", "node2")
    await trio.sleep(60)
    assert first.machine.members[second.id].status is Status.ALIVE
    assert second.machine.members[first.id].status is Status.ALIVE
    assert third.service.prober.relayed + fourth.service.prober.relayed > 10
    assert first.service.prober.relayed + second.service.prober.relayed == 0


async def test_a_node_that_is_gone_is_found_out_although_relays_are_asked(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, *_ = await square(town, nursery)
    town.cut(2)
    await trio.sleep(25)
    assert first.machine.members[second.id].status is Status.DEAD


async def test_a_probe_says_how_many_relays_were_heard(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, third, fourth = await square(town, nursery)
    town.cut(2)
    town.hub.sever("node1", "node4")
    action = SendProbe(second.id, 0.5, (third.id, fourth.id), 1.0)
    assert await first.service.prober.probe(action, second.contact) == ProbeFailed(second.id, 2, 1)
    assert await first.service.prober.probe(action, None) == ProbeFailed(second.id)


async def test_an_answer_brings_the_round_trip_or_none_when_a_relay_was_needed(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, third, _ = await square(town, nursery)
    action = SendProbe(second.id, 0.5, (third.id,), 1.0)
    direct = await first.service.prober.probe(action, second.contact)
    assert isinstance(direct, ProbeAnswered)
    assert direct.round_trip_s is not None
    town.hub.sever("node1", "node2")
    relayed = await first.service.prober.probe(action, second.contact)
    assert relayed == ProbeAnswered(second.id, second.announcer.record.sequence)


async def test_nobody_is_pinged_for_others_whom_we_do_not_know(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, *_ = await square(town, nursery)
    with pytest.raises(RequestRefused) as caught:
        await first.pool.request(second.contact, PingFor(bytes(32), 1))
    assert caught.value.code is ErrorCode.NOT_FOUND
    answer = await first.pool.request(second.contact, PingFor(first.id, 7))
    assert answer == Pong(7, first.announcer.record.sequence)


async def test_only_nodes_may_have_others_pinged(town: Town, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    (first, *_) = await square(town, nursery)
    async with town.asker(town.authority.client(1)) as pool:
        assert isinstance(await pool.request(first.contact, Ping(1)), Pong)
        with pytest.raises(RequestRefused) as caught:
            await pool.request(first.contact, PingFor(first.id, 1))
        assert caught.value.code is ErrorCode.ROLE_FORBIDDEN
