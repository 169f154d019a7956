"""Acquaintances: few, others after each exchange, never somebody twice, and enough to hold a network together."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lockbox_node.core.acquaintances import Acquaintances
from lockbox_node.core.id_order import IdOrder
from tests.fakes.swarm import node_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.ids import NodeId

NODES = [node_id(number) for number in range(1, 40)]


def made(count: int = 4) -> Acquaintances:
    return Acquaintances(count, random.Random(1))


def test_too_few_are_filled_up_from_the_living_and_stay() -> None:
    acquaintances = made()
    first = acquaintances.with_neighbours(NODES[:2], NODES)
    assert first[:2] == NODES[:2]
    assert len(first) == len(set(first)) <= 6
    assert acquaintances.with_neighbours(NODES[:2], NODES) == first


def test_of_a_small_network_everybody_is_one() -> None:
    acquaintances = made()
    assert set(acquaintances.with_neighbours([], NODES[:3])) == set(NODES[:3])
    assert set(acquaintances.with_neighbours(NODES[:3], NODES[:3])) == set(NODES[:3])


def test_whom_we_met_takes_the_place_of_the_oldest() -> None:
    acquaintances = made(2)
    for node in NODES[:3]:
        acquaintances.meet(node)
    assert acquaintances.with_neighbours([], NODES) == NODES[1:3]
    acquaintances.meet(NODES[1])
    acquaintances.meet(NODES[5])
    assert acquaintances.with_neighbours([], NODES) == [NODES[1], NODES[5]]


def test_the_dead_are_replaced_by_others() -> None:
    acquaintances = made(3)
    before = acquaintances.with_neighbours([], NODES)
    acquaintances.drop(before[0])
    alive = [node for node in NODES if node != before[0]]
    after = acquaintances.with_neighbours([], alive)
    assert set(before[1:]) < set(after)
    assert len(after) == 3


@pytest.mark.parametrize("seed", range(5))
def test_with_them_a_network_is_one_whose_neighbourhoods_alone_are_islands(seed: int) -> None:
    rng = random.Random(seed)
    ids = [node_id(rng.getrandbits(256)) for _ in range(1000)]
    order = IdOrder()
    for node in ids:
        order.add(node)
    near = {node: [other for other in order.nearest(node, 17) if other != node] for node in ids}
    linked = {node: Acquaintances(8, rng).with_neighbours(near[node], [o for o in ids if o != node]) for node in ids}
    assert reached(near, ids[0]) < len(ids)
    assert reached(linked, ids[0]) == len(ids)


def reached(links: Mapping[NodeId, Iterable[NodeId]], start: NodeId) -> int:
    """How many a rumour reaches that each passes on to all that it is linked to."""
    found, new = {start}, [start]
    while new:
        new = list({other for node in new for other in links[node]} - found)
        found.update(new)
    return len(found)
