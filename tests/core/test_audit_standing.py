"""What costs standing, how it comes back, and that nobody can be made to exclude the many."""

from __future__ import annotations

import pytest

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_pace import DAY_S, AuditParams
from lockbox_node.core.audit_standing import FAULTS_KEPT, NODES_MAX, Standings
from protocol.ids import NodeId
from tests.fakes.stripes import node_of

MEMBERS = [NodeId(node_of(number)) for number in range(12)]
LIAR, OTHER = MEMBERS[:2]


def lied(standings: Standings, node: NodeId, times: int, now: float = 0.0) -> None:
    """Wrong bytes, that often."""
    for _ in range(times):
        standings.denied(node, Verdict.CORRUPT, now)


def test_nobody_is_excluded_of_whom_nothing_is_known_or_who_failed_once() -> None:
    standings = Standings(AuditParams())
    assert standings.excluded(MEMBERS, 0.0) == frozenset()
    lied(standings, LIAR, 1)
    assert standings.excluded(MEMBERS, 0.0) == frozenset()
    assert standings.faults(OTHER, 0.0) == 0.0


def test_who_shows_wrong_bytes_twice_is_given_nothing_new() -> None:
    standings = Standings(AuditParams())
    lied(standings, LIAR, 2)
    assert standings.excluded(MEMBERS, 0.0) == {LIAR}
    assert standings.excluded(MEMBERS[1:], 0.0) == frozenset()  # it is no member now


def test_silence_weighs_a_quarter_and_counts_once_in_a_period() -> None:
    standings = Standings(AuditParams())
    for second in range(1000):
        standings.denied(LIAR, Verdict.SILENT, float(second))
    assert standings.faults(LIAR, 0.0) == pytest.approx(0.25, abs=0.01)
    for day in range(1, 10):
        standings.denied(LIAR, Verdict.SILENT, 1000 + day * DAY_S)
    assert standings.excluded(MEMBERS, 1000 + 9 * DAY_S) == {LIAR}


def test_faults_are_forgotten_by_half_in_a_half_life() -> None:
    standings = Standings(AuditParams())
    lied(standings, LIAR, 3)
    assert standings.faults(LIAR, 30 * DAY_S) == pytest.approx(1.5)
    assert standings.excluded(MEMBERS, 15 * DAY_S) == {LIAR}
    assert standings.excluded(MEMBERS, 30 * DAY_S) == frozenset()
    lied(standings, LIAR, 1, 30 * DAY_S)
    assert standings.faults(LIAR, 30 * DAY_S) == pytest.approx(2.5)
    assert standings.all(400 * DAY_S) == {}


def test_what_went_on_for_long_does_not_exclude_for_ever() -> None:
    standings = Standings(AuditParams())
    lied(standings, LIAR, 1000)
    assert standings.faults(LIAR, 0.0) == FAULTS_KEPT
    assert standings.excluded(MEMBERS, 90 * DAY_S) == frozenset()


def test_who_would_exclude_more_than_a_third_doubts_itself() -> None:
    standings = Standings(AuditParams())
    for node in MEMBERS[:4]:
        lied(standings, node, 2)
    assert standings.excluded(MEMBERS, 0.0) == frozenset(MEMBERS[:4])
    lied(standings, MEMBERS[4], 2)
    assert standings.excluded(MEMBERS, 0.0) == frozenset()


def test_there_is_a_limit_beyond_which_the_least_faults_are_forgotten() -> None:
    standings = Standings(AuditParams())
    lied(standings, LIAR, 2)
    for number in range(100, 100 + NODES_MAX + 50):
        standings.denied(NodeId(node_of(number)), Verdict.SILENT, 0.0)
    assert len(standings.all(0.0)) == NODES_MAX
    assert standings.faults(LIAR, 0.0) == 2.0
