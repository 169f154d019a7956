"""Whom a repair asks first."""

from __future__ import annotations

from lockbox_node.core.source_order import NODES_MAX, Speeds, source_order
from protocol.ids import NodeId

A, B, C, D, E = (NodeId(bytes([number]) * 32) for number in range(5))
SOURCES = list(enumerate((A, B, C, D, E)))
REGIONS = {A: "north", B: "north", C: "north", D: "south", E: "west"}


def order(speeds: Speeds, going: tuple[NodeId, ...] = ()) -> list[NodeId]:
    found = source_order(SOURCES, going, speeds, REGIONS.__getitem__)
    assert sorted(found) == sorted(SOURCES)
    return [node for _, node in found]


def took(speeds: Speeds, node: NodeId, seconds: float) -> None:
    speeds.begins(node)
    speeds.ended(node, seconds)


def test_of_those_that_were_never_asked_each_region_has_its_turn() -> None:
    assert order(Speeds()) == [A, D, E, B, C]


def test_who_answers_slowly_comes_later_and_small_differences_do_not_count() -> None:
    speeds = Speeds()
    took(speeds, A, 2.0)
    took(speeds, D, 0.04)
    took(speeds, E, 0.001)
    assert order(speeds) == [B, D, E, C, A]


def test_who_is_busy_with_us_comes_later() -> None:
    speeds = Speeds()
    speeds.begins(D)
    assert order(speeds)[-1] == D
    speeds.ended(D, 0.01)
    assert order(speeds) == [A, D, E, B, C]


def test_who_is_going_comes_last_however_fast() -> None:
    speeds = Speeds()
    took(speeds, B, 9.0)
    assert order(speeds, going=(A,))[-2:] == [B, A]


def test_a_slow_answer_is_forgotten_after_some_fast_ones() -> None:
    speeds = Speeds()
    took(speeds, A, 5.0)
    assert speeds.rank(A) > speeds.rank(B)
    for _ in range(15):
        took(speeds, A, 0.01)
    assert speeds.rank(A) == speeds.rank(B) == (0, 0)


def test_the_memory_is_bounded() -> None:
    speeds = Speeds()
    for number in range(NODES_MAX + 10):
        took(speeds, NodeId(number.to_bytes(32, "big")), 1.0)
    assert speeds.rank(NodeId((0).to_bytes(32, "big"))) == (0, 0), "the oldest went"
    assert len(speeds._took_s) == NODES_MAX
    assert not speeds._under_way
