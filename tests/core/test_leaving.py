"""What a stripe is without us, which of two copies is one too many, and how fast a drain goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lockbox_node.core.leaving import RATE_WINDOW_S, Pace, View, is_spare, seen_by, without_us
from lockbox_node.core.placement import Candidate, neighbourhood, place
from lockbox_node.core.regions import spread_regions
from lockbox_node.core.tiers import STANDARD
from lockbox_node.ports import StripeSummary, entries_of
from protocol.ids import Address, DescriptorHash, NodeId
from protocol.messages import NO_INDEX, HolderEntry
from tests.fakes.stripes import node_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS = Address(bytes(32))
REGIONS = spread_regions(7)
NODES = {
    NodeId(node_of(number)): Candidate(node_of(number), REGIONS[number % 7], f"op {number}") for number in range(24)
}
HOLDERS = place(STANDARD, ADDRESS, list(NODES.values()))
OTHERS = [
    NodeId(one.node)
    for one in neighbourhood(ADDRESS, list(NODES.values()))
    if one.node not in [holder.node for holder in HOLDERS.values()]
]


def stripe(own: NodeId, index: int, *more: HolderEntry) -> StripeSummary:
    entries = entries_of([(number, holder.node) for number, holder in HOLDERS.items()], 1)
    return StripeSummary(ADDRESS, 1, DescriptorHash(bytes(32)), STANDARD.number, index, False, (*entries, *more))


def view(own: NodeId, members: Mapping[NodeId, Candidate] = NODES, failing: frozenset[NodeId] = frozenset()) -> View:
    return View(own, members, failing)


def test_without_us_our_index_is_missing_and_we_are_a_source_of_it() -> None:
    own = NodeId(HOLDERS[3].node)
    whole, gone = seen_by(stripe(own, 3), STANDARD, view(own)), without_us(stripe(own, 3), STANDARD, view(own))
    assert whole.missing == ()
    assert (gone.missing, gone.going, gone.margin) == ((3,), {3: (own,)}, whole.margin - 1)


def test_without_us_our_index_stands_where_another_live_holder_has_it() -> None:
    own, heir = NodeId(HOLDERS[3].node), OTHERS[0]
    held = stripe(own, 3, HolderEntry(3, heir, 2))
    assert without_us(held, STANDARD, view(own)).live[3] == (heir,)
    dead = {node: record for node, record in NODES.items() if node != heir}
    assert without_us(held, STANDARD, view(own, dead)).missing == (3,)
    assert without_us(held, STANDARD, view(own, failing=frozenset({heir}))).missing == (3,)
    silent = stripe(own, 3, HolderEntry(3, heir, 2), HolderEntry(NO_INDEX, heir, 3))
    assert without_us(silent, STANDARD, view(own)).missing == (3,)


def test_of_two_holders_of_one_index_exactly_one_is_spare_whoever_looks() -> None:
    first = NodeId(HOLDERS[3].node)
    second = next(node for node in OTHERS if NODES[node].region == NODES[first].region)
    lines = HolderEntry(3, second, 2)
    seen = {node: seen_by(stripe(node, 3, lines), STANDARD, view(node)) for node in (first, second)}
    spare = [node for node in seen if is_spare(stripe(node, 3, lines), seen[node], node)]
    assert len(spare) == 1
    assert seen[first].live[3][0] != spare[0]


def test_nobody_is_spare_while_an_index_is_missing_or_alone_or_the_part_is_damaged() -> None:
    first = NodeId(HOLDERS[3].node)
    second = next(node for node in OTHERS if NODES[node].region == NODES[first].region)
    held = stripe(second, 3, HolderEntry(3, second, 2))
    assert is_spare(held, seen_by(held, STANDARD, view(second)), second)
    gone = {node: record for node, record in NODES.items() if node != HOLDERS[5].node}
    assert not is_spare(held, seen_by(held, STANDARD, view(second, gone)), second)
    damaged = replace(held, corrupt=True)
    assert not is_spare(damaged, seen_by(damaged, STANDARD, view(second)), second)
    alone = stripe(first, 3)
    assert not is_spare(alone, seen_by(alone, STANDARD, view(first)), first)


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = Pace(100.0)
    assert pace.left_s(1000, 100.0) is None
    for second in range(1, 11):
        pace.note(500, 100.0 + second)
    assert pace.bytes_per_s(110.0) == pytest.approx(500)
    assert pace.left_s(1200, 110.0) == 3
    assert pace.bytes_per_s(110.0 + RATE_WINDOW_S / 2) < 500
    assert pace.bytes_per_s(111.0 + 2 * RATE_WINDOW_S) == 0
    assert pace.left_s(1000, 111.0 + 2 * RATE_WINDOW_S) is None
