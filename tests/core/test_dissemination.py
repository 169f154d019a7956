"""Rumours: how often each is told, and which ones first."""

from __future__ import annotations

from lockbox_node.core.dissemination import Rumours
from tests.fakes.swarm import node_id

A, B, C = node_id(1), node_id(2), node_id(3)


def test_each_rumour_is_told_so_many_times_and_no_more() -> None:
    rumours = Rumours()
    rumours.start(A)
    assert [rumours.take(5, 1, 3) for _ in range(4)] == [[A], [A], [A], []]
    assert len(rumours) == 0


def test_every_copy_of_a_message_counts() -> None:
    rumours = Rumours()
    rumours.start(A)
    assert [rumours.take(5, 3, 7) for _ in range(4)] == [[A], [A], [A], []]


def test_the_freshest_come_first_when_a_message_holds_few() -> None:
    rumours = Rumours()
    rumours.start(A)
    rumours.take(1, 1, 9)
    rumours.start(B)
    assert rumours.take(1, 1, 9) == [B]
    assert sorted(rumours.take(2, 1, 9)) == [A, B]


def test_news_of_the_same_node_begin_anew_and_the_forgotten_are_not_told() -> None:
    rumours = Rumours()
    for node in (A, B, C):
        rumours.start(node)
    rumours.take(3, 1, 2)
    rumours.start(A)
    rumours.drop(B)
    assert sorted(rumours.take(3, 1, 2)) == [A, C]
    assert rumours.take(3, 1, 2) == [A]
