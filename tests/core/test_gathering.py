"""Who waits for company, and who does not."""

from __future__ import annotations

from lockbox_node.core.gathering import MEMORY, Gathering

WINDOW_S = 0.01
ENOUGH = 8


def fed(*counts: int) -> Gathering:
    gathering = Gathering(WINDOW_S, ENOUGH)
    for count in counts:
        gathering.took(count)
    return gathering


def test_a_request_that_comes_alone_never_waits() -> None:
    assert fed(*[1] * 100).wait_s(1) == 0.0


def test_one_chance_meeting_makes_nobody_wait() -> None:
    assert fed(2).wait_s(1) == 0.0


def test_the_wait_grows_with_the_crowd_up_to_the_window() -> None:
    few, many = fed(*[2] * 50).wait_s(1), fed(*[6] * 50).wait_s(1)
    assert 0 < few < many == WINDOW_S


def test_enough_wait_for_no_more() -> None:
    assert fed(*[9] * 50).wait_s(ENOUGH) == 0.0


def test_the_crowd_is_forgotten_when_requests_come_alone_again() -> None:
    assert fed(ENOUGH, *[1] * (4 * MEMORY)).wait_s(1) == 0.0
