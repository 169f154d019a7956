"""Probing: how long a node waits, through whom it asks again, and how it comes to distrust itself."""

from __future__ import annotations

import random

import pytest

from lockbox_node.core.member_events import ProbeFailed
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.probing import Probing
from tests.fakes.swarm import node_id

PARAMS = MembershipParams()
A = node_id(1)
OTHERS = [node_id(number) for number in range(1, 10)]


def probing(params: MembershipParams = PARAMS) -> Probing:
    return Probing(params, random.Random(1))


def test_a_probe_names_three_others_as_relays() -> None:
    made = probing()
    for turn in range(20):
        probe = made.begin(A, OTHERS, 10.0 * turn)
        assert probe is not None
        assert len(set(probe.relays)) == 3
        assert A not in probe.relays
        assert set(probe.relays) <= set(OTHERS)
        assert (probe.timeout_s, probe.relayed_s) == (0.5, 1.0)


def test_with_few_members_there_are_few_relays() -> None:
    probe = probing().begin(A, [A, node_id(2)], 0.0)
    assert probe is not None
    assert probe.relays == (node_id(2),)
    alone = probing().begin(A, [A], 0.0)
    assert alone is not None
    assert alone.relays == ()


def test_the_wait_follows_the_round_trip_between_its_bounds() -> None:
    made = probing()
    for _ in range(50):
        made.answered(A, 0.3)
    assert made.timeout_s(A) == pytest.approx(1.2)
    made.answered(A, 0.7)
    assert made.timeout_s(A) == pytest.approx(4 * 0.35)
    for _ in range(50):
        made.answered(A, 9.0)
    assert made.timeout_s(A) == 5.0
    made.forget(A)
    assert made.timeout_s(A) == 0.5


def test_an_answer_through_a_relay_says_nothing_of_the_round_trip() -> None:
    made = probing()
    made.answered(A, None)
    assert made.timeout_s(A) == 0.5


def test_relays_that_do_not_even_answer_make_a_node_doubt_itself_and_answers_end_it() -> None:
    made = probing()
    made.failed(ProbeFailed(A, asked=3, heard=3))
    assert (made.health, made.interval_s, made.timeout_s(A)) == (0, 1.0, 0.5)
    made.failed(ProbeFailed(A, asked=3, heard=1))
    assert (made.health, made.interval_s, made.timeout_s(A)) == (2, 3.0, 1.5)
    made.accused()
    assert made.health == 3
    for _ in range(5):
        made.failed(ProbeFailed(A, asked=3))
    assert made.health == PARAMS.health_max
    for _ in range(20):
        made.answered(A, 0.001)
    assert made.health == 0


def test_a_failure_without_relays_counts_once() -> None:
    made = probing()
    made.failed(ProbeFailed(A))
    assert made.health == 1


def test_one_probe_at_a_time_until_its_outcome_is_overdue() -> None:
    made = probing()
    assert made.begin(A, OTHERS, 0.0) is not None
    assert made.begin(A, OTHERS, 2.9) is None
    assert made.begin(A, OTHERS, 3.1) is not None
    made.failed(ProbeFailed(A, 3, 3))
    assert made.begin(A, OTHERS, 3.2) is not None
