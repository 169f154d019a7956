"""Ids in order, beside a plain set of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.id_order import IdOrder
from protocol.ids import ID_BYTES, NodeId, distance


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(ID_BYTES, "big"))


NUMBERS = st.one_of(st.integers(0, 40), st.integers(0, 2**256 - 1))


@given(st.lists(st.tuples(st.booleans(), NUMBERS)), NUMBERS)
def test_it_is_a_set_in_rising_order(steps: list[tuple[bool, int]], low: int) -> None:
    order, plain = IdOrder(), set[NodeId]()
    for adding, number in steps:
        if adding:
            order.add(node_id(number))
            plain.add(node_id(number))
        else:
            order.discard(node_id(number))
            plain.discard(node_id(number))
    assert list(order) == sorted(plain)
    assert len(order) == len(plain)
    assert list(order.after(node_id(low))) == sorted(node for node in plain if node > node_id(low))
    assert list(order.after(b"")) == sorted(plain)


@given(st.sets(NUMBERS), NUMBERS, st.integers(1, 30))
def test_the_nearest_are_those_of_a_sort_by_distance(numbers: set[int], target: int, count: int) -> None:
    nodes = [node_id(number) for number in numbers]
    wanted = sorted(nodes, key=lambda node: distance(node, node_id(target)))[:count]
    assert IdOrder(nodes).nearest(node_id(target), count) == wanted


@pytest.mark.parametrize("count", [1, 20, 999, 1000, 1001])
def test_the_nearest_of_many_evenly_spread_are_exact(count: int) -> None:
    rng = random.Random(7)
    nodes = [NodeId(rng.randbytes(ID_BYTES)) for _ in range(1000)]
    for _ in range(20):
        target = rng.randbytes(ID_BYTES)
        assert IdOrder(nodes).nearest(target, count) == sorted(nodes, key=lambda node: distance(node, target))[:count]
