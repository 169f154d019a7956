"""Progress, rest and memory of a scrub."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from lockbox_node.core.scrub_pace import Finished, ScrubParams, ScrubState, decoded
from lockbox_node.errors import ConfigError

PARAMS = ScrubParams()
CYCLE_S = 30 * 86400.0


def at(share: float) -> bytes:
    """A cursor at this share of all addresses."""
    return int(share * 2**64).to_bytes(8, "big") + bytes(56)


def state(progress: float = 0.0, **others: object) -> ScrubState:
    return ScrubState(3, 100.0, CYCLE_S, cursor=at(progress), **others)  # type: ignore[arg-type]


def test_cycles_are_drawn_between_25_and_35_days() -> None:
    rng = Random(1)
    drawn = [PARAMS.cycle_s(rng) / 86400 for _ in range(200)]
    assert 25 <= min(drawn) < 26
    assert 34 < max(drawn) <= 35


def test_the_cursor_tells_the_progress() -> None:
    assert ScrubState(1, 0.0, CYCLE_S).progress == 0.0
    assert state(0.25).progress == 0.25
    assert state(0.25).finished(0.0).progress == 1.0


def test_a_scheduled_pass_is_spread_over_its_cycle() -> None:
    half = state(0.5)
    assert half.rest_s(1.0, 100.0, PARAMS) == CYCLE_S / 2
    assert half.rest_s(1.0, 100.0 + CYCLE_S / 4, PARAMS) == CYCLE_S / 4


def test_one_that_is_late_takes_a_tenth_of_the_disks_time() -> None:
    assert state(0.5).rest_s(1.0, 100.0 + CYCLE_S, PARAMS) == pytest.approx(9.0)


def test_one_that_an_operator_waits_for_takes_a_fifth_of_it_and_no_more() -> None:
    assert state(0.5, at_once=True).rest_s(0.2, 100.0, PARAMS) == pytest.approx(0.8)


def test_steps_add_up_and_the_end_is_remembered() -> None:
    ended = state(at_once=True).stepped(at(0.4), 5, 500, 1).stepped(at(0.9), 6, 600, 0).finished(7.0)
    assert ended.last == Finished(3, 7.0, 11, 1100, 1)
    assert (ended.running, ended.at_once, ended.cursor) == (False, False, b"")
    assert ended.due_in_s(100.0 + CYCLE_S - 5) == 5.0
    assert ended.due_in_s(100.0 + CYCLE_S + 5) == 0.0


def test_the_next_pass_starts_from_nothing_and_knows_the_last() -> None:
    ended = replace(state().stepped(at(0.4), 5, 500, 1).finished(7.0), paused=True)
    scheduled = ended.begun(200.0, 9.0)
    assert scheduled == ScrubState(4, 200.0, 9.0, paused=True, last=ended.last)
    assert ended.begun(200.0, 9.0, at_once=True) == ScrubState(4, 200.0, 9.0, at_once=True, last=ended.last)


def test_what_is_kept_is_read_again() -> None:
    kept = state(0.7, paused=True, parts=9, last=Finished(2, 1.5, 3, 4, 5))
    assert decoded(kept.encoded(), 1e9) == kept
    assert len(kept.encoded()) < 1024


def test_a_beginning_in_the_future_is_now() -> None:
    again = decoded(state(0.7).encoded(), 60.0)
    assert again is not None
    assert again.began_s == 60.0


@pytest.mark.parametrize("kept", [b"", b"{}", b"\xff", b'{"number": "x"}'])
def test_what_is_no_state_is_none(kept: bytes) -> None:
    assert decoded(kept, 0.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"cycle_min_s": 0.0},
        {"cycle_max_s": 1.0},
        {"share": 0.0},
        {"share_now": 1.5},
        {"step_parts": 0},
        {"note_every_parts": 0},
        {"note_every_s": 0.0},
        {"busy_wait_s": float("nan")},
    ],
)
def test_params_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"scrub\."):
        replace(PARAMS, **wrong)  # type: ignore[arg-type]
