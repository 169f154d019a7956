"""Who waits for company, and who does not."""

from __future__ import annotations

from lockbox_node.core.gathering import MEMORY, Gathering


def fed(*counts: int) -> Gathering:
    gathering = Gathering(window_s=0.01, enough=8)
    for count in counts:
        gathering.took(count)
    return gathering


def test_a_request_that_comes_alone_never_waits() -> None:
    assert fed(*[1] * 100).wait_s(1) == 0.0


def test_after_groups_of_several_the_next_ones_wait() -> None:
    assert fed(3).wait_s(1) == 0.01


def test_enough_wait_for_no_more() -> None:
    assert fed(9, 9, 9).wait_s(8) == 0.0


def test_one_chance_meeting_makes_nobody_wait() -> None:
    assert fed(2).wait_s(1) == 0.0


def test_the_crowd_is_forgotten_when_requests_come_alone_again() -> None:
    assert fed(8, *[1] * (4 * MEMORY)).wait_s(1) == 0.0
