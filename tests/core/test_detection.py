"""How long deaths take to be noticed."""

from __future__ import annotations

from lockbox_node.core.detection import WATCHED_MAX, Detection
from protocol.ids import NodeId


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_a_death_counts_from_the_last_sign_of_life() -> None:
    detection = Detection()
    detection.heard(node(1), 10.0)
    detection.heard(node(1), 20.0)
    detection.declared_dead(node(1), 32.0, expected=False)
    assert (sum(detection.durations.counts), detection.durations.sum_s) == (1, 12.0)


def test_who_left_or_was_never_watched_does_not_count() -> None:
    detection = Detection()
    detection.heard(node(1), 10.0)
    detection.declared_dead(node(1), 32.0, expected=True)
    detection.declared_dead(node(2), 32.0, expected=False)
    detection.declared_dead(node(1), 64.0, expected=False)
    assert sum(detection.durations.counts) == 0


def test_what_is_remembered_is_bounded_and_the_longest_silent_goes() -> None:
    detection = Detection()
    for number in range(WATCHED_MAX):
        detection.heard(node(number), float(number))
    detection.heard(node(0), 100.0)
    detection.heard(node(999), 101.0)
    detection.declared_dead(node(1), 200.0, expected=False)
    detection.declared_dead(node(0), 200.0, expected=False)
    assert detection.durations.sum_s == 100.0
