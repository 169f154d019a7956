"""The walk of the auditor: evenly round all keys, from anywhere, without catching up on whole rounds; budgets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.audit_pace import END, KEY_BYTES, AuditParams, Walk
from lockbox_node.errors import ConfigError
from tests.fakes.stripes import bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PERIOD_S = 1000.0
KEYS = sorted(bytes_of("part", number, length=KEY_BYTES) for number in range(200))


def walked(walk: Walk, keys: Sequence[bytes], now: float) -> list[bytes]:
    """What a service does: everything that is due, in order."""
    reached: list[bytes] = []
    for _ in range(3):
        bound = walk.bound(now)
        page = [key for key in keys if key > walk.cursor]
        for key in page:
            if key > bound:
                return reached
            walk.cursor = key
            reached.append(key)
        if bound != END:
            return reached
        walk.turn(now)
    return reached


@given(st.floats(0, 0.999), st.floats(0.5, 40))
def test_every_part_is_reached_once_in_a_period_at_the_same_time_of_each(start: float, step_s: float) -> None:
    walk = Walk(start, 5.0, PERIOD_S)
    times: dict[bytes, list[float]] = {key: [] for key in KEYS}
    now = 5.0
    while now < 5.0 + 4 * PERIOD_S:
        for key in walked(walk, KEYS, now):
            times[key].append(now)
        now += step_s
    for seen in times.values():
        assert 3 <= len(seen) <= 4
        assert all(PERIOD_S - step_s <= later - earlier <= PERIOD_S + step_s for earlier, later in pairwise(seen))


def test_the_load_is_even() -> None:
    walk = Walk(0.3, 0.0, PERIOD_S)
    counts = [len(walked(walk, KEYS, now)) for now in range(100, 1001, 100)]
    assert sum(counts) in range(len(KEYS) - 2, len(KEYS) + 1)
    assert all(8 <= count <= 34 for count in counts), counts


def test_whole_rounds_of_delay_are_forgotten() -> None:
    walk = Walk(0.0, 0.0, PERIOD_S)
    late = walked(walk, KEYS, 7.5 * PERIOD_S)
    assert late[: len(KEYS)] == KEYS
    assert len(late) < 2 * len(KEYS)
    assert walked(walk, KEYS, 7.5 * PERIOD_S) == []
    assert len(walked(walk, KEYS, 7.6 * PERIOD_S)) < 60


def test_another_period_goes_on_from_where_the_walk_stands() -> None:
    walk = Walk(0.0, 0.0, PERIOD_S)
    before = walked(walk, KEYS, 500.0)
    walk.retime(10.0, 500.0)
    after = walked(walk, KEYS, 504.9)
    assert before + after == KEYS[: len(before + after)]
    assert len(before + after) > 0.9 * len(KEYS)


def test_the_time_until_a_part_is_due_follows_from_its_key() -> None:
    walk = Walk(0.25, 0.0, PERIOD_S)
    key = b"\x80".ljust(KEY_BYTES, b"\0")
    assert walk.due_in_s(key, 100.0) == pytest.approx(150.0)
    assert walk.bound(249.0) < key < walk.bound(251.0)
    assert walk.due_in_s(None, 100.0) == pytest.approx(650.0)
    assert walk.due_in_s(key, 5000.0) == 0.0


def test_a_question_costs_what_the_narrower_budget_says() -> None:
    params = AuditParams(audits_per_s=5, bytes_per_s=1000)
    assert params.rest_s(0) == 0.2
    assert params.rest_s(200) == 0.2
    assert params.rest_s(4000) == 4.0


def test_who_fails_is_asked_again_later_and_later_up_to_a_limit() -> None:
    params = AuditParams(retry_s=10, again_s=60)
    assert [params.retry_after_s(times) for times in (1, 2, 3, 4, 1000)] == [10, 20, 40, 60, 60]


@pytest.mark.parametrize(
    "changes",
    [
        {"period_s": 0.5},
        {"period_s": float("nan")},
        {"audits_per_s": 0},
        {"bytes_per_s": -1},
        {"in_flight_max": 0},
        {"silent_max": 0},
        {"findings_max": 0},
        {"retry_s": 400.0},
        {"retry_s": 0.0},
        {"first_s": -1},
        {"half_life_s": 0},
        {"faults_max": float("inf")},
    ],
)
def test_budgets_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"audit.{next(iter(changes)) if 'retry_s' not in changes else ''}"):
        replace(AuditParams(), **changes)  # type: ignore[arg-type]
