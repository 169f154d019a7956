"""When a node looks up a neighbourhood, and what it makes of what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.lookup import LookupParams
from lockbox_node.services.approaching import AGAIN_S, Approaching
from lockbox_node.services.lookups import Lookups
from protocol.records import NodeRecord, parse
from tests.fakes.nodes import Member, Town

if TYPE_CHECKING:
    from trio.testing import MockClock

    from protocol.messages import Signed

ADDRESS = bytes(32)


@dataclass
class Heard:
    """Membership that knows itself incomplete, and counts what it is taught."""

    complete: bool = False
    learned: list[Signed] = field(default_factory=list)

    def learn(self, signed: Signed, /) -> None:
        self.learned.append(signed)


def approaching(
    town: Town, member: Member, heard: Heard, params: LookupParams | None = None
) -> tuple[Approaching, Lookups]:
    root = member.announcer.root
    lookups = Lookups(member.pool, root, member.id, town.clock.now_unix_s, params or LookupParams())
    return Approaching(lookups, member.discovery, lambda: heard, remembered_max=3), lookups


@pytest.fixture
async def three(nursery: trio.Nursery) -> tuple[Town, list[Member]]:
    town = Town()
    members = [Member(town, number, [1] if number > 1 else []) for number in (1, 2, 3)]
    for member in members:
        await nursery.start(member.run)
    await trio.sleep(2)
    return town, members


async def test_a_complete_table_of_a_small_network_is_enough(
    three: tuple[Town, list[Member]], autojump_clock: MockClock
) -> None:
    town, members = three
    assert members[0].service.complete
    assert members[2].service.complete
    approach, lookups = approaching(town, members[2], Heard(complete=True))
    assert not await approach.approach(ADDRESS)
    assert lookups.figures.lookups == 0


async def test_an_incomplete_table_learns_who_is_near_once_in_a_while(
    three: tuple[Town, list[Member]], autojump_clock: MockClock
) -> None:
    town, members = three
    heard = Heard()
    approach, lookups = approaching(town, members[2], heard)
    assert await approach.approach(ADDRESS)
    found = {parse(signed, NodeRecord).node for signed in heard.learned}
    assert found == {members[0].id, members[1].id}
    assert not await approach.approach(ADDRESS), "it was just looked up"
    autojump_clock.jump(AGAIN_S)
    assert await approach.approach(ADDRESS)
    assert lookups.figures.lookups == 2


async def test_a_large_table_is_not_relied_on(three: tuple[Town, list[Member]], autojump_clock: MockClock) -> None:
    town, members = three
    approach, _ = approaching(town, members[2], Heard(complete=True), LookupParams(members_max=2))
    assert await approach.approach(ADDRESS)


async def test_when_nobody_was_found_it_is_tried_again_at_once(
    three: tuple[Town, list[Member]], autojump_clock: MockClock
) -> None:
    town, members = three
    heard = Heard()
    approach, lookups = approaching(town, members[2], heard)
    town.hub.silent |= {"node1", "node2"}
    town.cut(3)
    assert await approach.approach(ADDRESS)
    assert await approach.approach(ADDRESS)
    assert (heard.learned, lookups.figures.lookups) == ([], 2)


async def test_what_is_remembered_of_addresses_is_bounded(
    three: tuple[Town, list[Member]], autojump_clock: MockClock
) -> None:
    town, members = three
    approach, lookups = approaching(town, members[2], Heard())
    await approach.approach(ADDRESS)
    for number in range(1, 3 + 1):
        await approach.approach(number.to_bytes(32, "big"))
    before = lookups.figures.lookups
    await approach.approach((3).to_bytes(32, "big"))
    assert lookups.figures.lookups == before
    await approach.approach(ADDRESS)
    assert lookups.figures.lookups == before + 1, "the oldest was forgotten"
