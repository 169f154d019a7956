"""Who is compared, and when: every sibling once in a pass, again in a new life, ever more seldom when it fails."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.reconcile import Life, ReconcileParams, Rounds
from lockbox_node.errors import ConfigError
from protocol.ids import NodeId

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
OLD: Life = (1, b"a" * 16)
NEW: Life = (2, b"b" * 16)


def fresh() -> Rounds:
    rounds = Rounds(ReconcileParams(), random.Random(1))
    rounds.passed(0.0)
    return rounds


def test_the_first_pass_comes_soon_and_the_next_hours_later_at_a_time_of_its_own() -> None:
    rounds = Rounds(ReconcileParams(), random.Random(1))
    assert rounds.next_pass_at < 0
    drawn = set()
    for _ in range(20):
        rounds.passed(0.0)
        assert 0.9 * 21_600 <= rounds.next_pass_at <= 1.1 * 21_600
        drawn.add(rounds.next_pass_at)
    assert len(drawn) == 20


def test_whoever_lives_is_due_once() -> None:
    rounds = fresh()
    lives = {A: OLD}
    assert rounds.due(lives, 0.0) == [A]
    rounds.compared(A, OLD, 0.0)
    assert rounds.due(lives, 0.0) == []
    lives[B] = OLD
    assert rounds.due(lives, 0.0) == [B], "who comes back later has its turn then"


def test_a_new_life_is_compared_again() -> None:
    rounds = fresh()
    rounds.compared(A, OLD, 0.0)
    assert rounds.due({A: NEW}, 0.0) == [A]
    rounds.compared(A, NEW, 0.0)
    assert rounds.due({A: NEW}, 0.0) == []


def test_a_pass_makes_everybody_due_again() -> None:
    rounds = fresh()
    rounds.compared(A, OLD, 0.0)
    rounds.failed(B, 0.0)
    rounds.passed(50.0)
    assert rounds.due({A: OLD, B: OLD}, 50.0) == [A, B]


def test_failures_are_retried_ever_more_seldom_and_still_waited_for() -> None:
    rounds, lives, now = fresh(), {A: OLD}, 0.0
    waits = []
    for _ in range(12):
        rounds.failed(A, now)
        wait = next(
            wait for wait in (30.0 * 2**power for power in range(12)) if rounds.due(lives, now + min(wait, 21_600))
        )
        assert not rounds.due(lives, now + min(wait, 21_600) - 1)
        assert rounds.waiting(lives) == [A]
        waits.append(min(wait, 21_600))
        now += waits[-1]
    assert waits[:3] == [30, 60, 120]
    assert waits[-1] == 21_600
    rounds.compared(A, OLD, 0.0)
    assert rounds.waiting(lives) == []


@given(st.lists(st.tuples(st.sampled_from("pcf"), st.sampled_from([A, B, C]), st.booleans()), max_size=40))
def test_nobody_who_lives_and_is_named_is_ever_forgotten(events: list[tuple[str, NodeId, bool]]) -> None:
    rounds, lives, now = fresh(), {A: OLD, B: OLD, C: OLD}, 0.0
    seen: dict[NodeId, Life] = {}
    for kind, node, anew in events:
        now += 10
        if anew:
            lives[node] = (lives[node][0] + 1, b"x" * 16)
        if kind == "p":
            rounds.passed(now)
            seen.clear()
        elif kind == "c":
            rounds.compared(node, lives[node], 0.0)
            seen[node] = lives[node]
        else:
            rounds.failed(node, now)
        assert set(rounds.due(lives, now + 21_600)) == {one for one in (A, B, C) if seen.get(one) != lives[one]}


def test_who_differs_from_us_is_due_again_but_not_without_end() -> None:
    rounds, lives = fresh(), {A: OLD}
    rounds.compared(A, OLD, 100.0)
    rounds.differs(A, 100.0 + 899)
    assert rounds.waiting(lives) == []
    rounds.differs(A, 100.0 + 900)
    assert rounds.due(lives, 1000.0) == [A]
    rounds.differs(B, 0.0)
    assert rounds.due(lives, 1000.0) == [A], "who does not live has no turn"


def test_a_loss_without_a_name_makes_a_pass_due() -> None:
    rounds = fresh()
    rounds.pass_soon()
    assert rounds.next_pass_at < 0


def test_a_failed_pass_comes_again_soon() -> None:
    rounds = fresh()
    rounds.pass_failed(7.0)
    assert rounds.next_pass_at == 37.0


@pytest.mark.parametrize(
    "wrong", [{"first_s": -1.0}, {"every_s": 0.0}, {"retry_s": float("inf")}, {"in_flight_max": 0}, {"pace_s": -0.1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ReconcileParams(**wrong)  # type: ignore[arg-type]
