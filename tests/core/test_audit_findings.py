"""What makes a finding, what ends it, when it is asked again, and what bounds them."""

from __future__ import annotations

import pytest

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_findings import BUSY_S, Findings, Turn
from lockbox_node.core.audit_pace import AuditParams
from protocol.ids import NodeId
from tests.fakes.stripes import bytes_of, node_of

PARAMS = AuditParams(retry_s=10, again_s=60, silent_max=3, findings_max=8)
SLOT = (bytes_of("address"), bytes_of("descriptor"))
WARD, OTHER = NodeId(node_of(1)), NodeId(node_of(2))
KEY = (*SLOT, WARD)


def test_a_loss_that_is_shown_counts_at_once_and_until_the_part_is_shown() -> None:
    for verdict in (Verdict.MISSING, Verdict.CORRUPT):
        findings = Findings(PARAMS)
        assert findings.take(KEY, verdict, 0.0) is Turn.FOUND
        assert findings.at(*SLOT) == {WARD}
        assert findings.take(KEY, verdict, 10.0) is Turn.NONE
        assert findings.take(KEY, Verdict.HELD, 20.0) is Turn.ENDED
        assert findings.at(*SLOT) == frozenset()
        assert (len(findings), findings.waiting) == (0, 0)


def test_silence_counts_the_third_time_in_a_row() -> None:
    findings = Findings(PARAMS)
    assert [findings.take(KEY, Verdict.SILENT, now) for now in (0.0, 10.0)] == [Turn.NONE] * 2
    assert (len(findings), findings.waiting) == (0, 1)
    assert findings.take(KEY, Verdict.SILENT, 30.0) is Turn.FOUND
    assert findings.at(*SLOT) == {WARD}


def test_a_word_in_between_ends_a_row_of_silence() -> None:
    findings = Findings(PARAMS)
    for now in (0.0, 10.0):
        findings.take(KEY, Verdict.SILENT, now)
    assert findings.take(KEY, Verdict.HELD, 20.0) is Turn.NONE
    assert findings.take(KEY, Verdict.SILENT, 30.0) is Turn.NONE
    assert findings.at(*SLOT) == frozenset()


def test_what_is_held_from_the_start_leaves_no_trace() -> None:
    findings = Findings(PARAMS)
    assert findings.take(KEY, Verdict.HELD, 0.0) is Turn.NONE
    assert findings.waiting == 0
    assert findings.forget(KEY) is Turn.NONE


def test_who_failed_is_asked_again_later_and_later_and_once_each_time() -> None:
    findings = Findings(PARAMS)
    findings.take(KEY, Verdict.MISSING, 0.0)
    assert findings.next_at() == 10.0
    assert findings.due(9.9, 10) == []
    assert findings.due(10.0, 10) == [KEY]
    assert findings.due(10.0, 10) == []
    findings.take(KEY, Verdict.MISSING, 11.0)
    assert findings.next_at() == 31.0
    findings.forget(KEY)
    assert findings.next_at() == float("inf")


def test_of_one_node_one_part_is_asked_about_at_a_time_so_that_silence_stops_nothing_else() -> None:
    findings = Findings(PARAMS)
    for number, ward in enumerate((WARD, WARD, OTHER)):
        findings.take((bytes_of(number), SLOT[1], ward), Verdict.SILENT, float(number))
    assert findings.due(100.0, 10) == [(bytes_of(0), SLOT[1], WARD), (bytes_of(2), SLOT[1], OTHER)]
    assert findings.due(100.0, 10) == [(bytes_of(1), SLOT[1], WARD)]
    assert len(findings.due(200.0, 1)) == 1


def test_two_holders_of_one_stripe_are_told_apart() -> None:
    findings = Findings(PARAMS)
    findings.take(KEY, Verdict.MISSING, 0.0)
    findings.take((*SLOT, OTHER), Verdict.CORRUPT, 0.0)
    assert findings.at(*SLOT) == {WARD, OTHER}
    assert len(findings) == 2
    findings.take(KEY, Verdict.HELD, 1.0)
    assert findings.at(*SLOT) == {OTHER}


def test_there_is_a_limit_and_one_node_takes_a_quarter_of_it_at_most() -> None:
    findings = Findings(PARAMS)
    turns = [findings.take((bytes_of(number), SLOT[1], WARD), Verdict.MISSING, 0.0) for number in range(5)]
    assert turns == [Turn.FOUND, Turn.FOUND, Turn.OVERFLOW, Turn.OVERFLOW, Turn.OVERFLOW]
    for number in range(20):
        findings.take((bytes_of(number), SLOT[1], NodeId(node_of(number))), Verdict.MISSING, 0.0)
    assert findings.waiting == PARAMS.findings_max
    assert findings.take((bytes_of(0), SLOT[1], WARD), Verdict.HELD, 1.0) is Turn.ENDED
    assert findings.take((bytes_of(9), SLOT[1], WARD), Verdict.MISSING, 1.0) is Turn.FOUND


def test_what_stands_elsewhere_is_asked_about_once_a_period_and_makes_room() -> None:
    findings = Findings(PARAMS)
    keys = [(bytes_of(number), SLOT[1], WARD) for number in range(4)]
    for key in keys[:2]:
        assert findings.take(key, Verdict.MISSING, 0.0) is Turn.FOUND
    assert findings.take(keys[2], Verdict.MISSING, 0.0) is Turn.OVERFLOW
    assert findings.settle(keys[0], 5.0)
    assert not findings.settle(keys[0], 6.0)
    assert findings.at(*keys[0][:2]) == {WARD}
    assert findings.due(5.0 + PARAMS.period_s - 1, 10) == [keys[1]]
    assert findings.take(keys[2], Verdict.MISSING, 10.0) is Turn.FOUND
    assert findings.take(keys[3], Verdict.MISSING, 10.0) is Turn.OVERFLOW
    findings.unsettle(keys[0])
    assert findings.take(keys[0], Verdict.HELD, 11.0) is Turn.ENDED
    assert findings.take(keys[3], Verdict.MISSING, 11.0) is Turn.OVERFLOW


def test_of_those_that_stand_elsewhere_the_oldest_goes() -> None:
    findings = Findings(PARAMS)
    for number in range(20):
        key = (bytes_of(number), SLOT[1], WARD)
        assert findings.take(key, Verdict.MISSING, 0.0) is Turn.FOUND
        assert findings.settle(key, 0.0)
    assert len(findings) == findings.waiting == PARAMS.findings_max
    assert findings.at(bytes_of(11), SLOT[1]) == frozenset()
    assert findings.at(bytes_of(12), SLOT[1]) == {WARD}


def test_a_finding_matters_again_when_the_other_holder_is_gone() -> None:
    findings = Findings(PARAMS)
    findings.take(KEY, Verdict.MISSING, 0.0)
    findings.settle(KEY, 0.0)
    assert findings.due(PARAMS.period_s, 10) == [KEY]
    findings.unsettle(KEY)
    findings.take(KEY, Verdict.MISSING, PARAMS.period_s)
    assert findings.next_at() == PARAMS.period_s + 20.0


def test_only_what_counts_can_be_settled() -> None:
    findings = Findings(PARAMS)
    findings.take(KEY, Verdict.SILENT, 0.0)
    assert not findings.settle(KEY, 0.0)
    assert not findings.settle((*SLOT, OTHER), 0.0)
    findings.unsettle((*SLOT, OTHER))
    assert findings.waiting == 1


def test_those_that_failed_are_asked_with_half_of_the_budget() -> None:
    findings = Findings(AuditParams(audits_per_s=0.01))
    for number in range(3):
        findings.take((bytes_of(number), SLOT[1], NodeId(node_of(number))), Verdict.MISSING, 0.0)
    assert len(findings.due(100.0, 10)) == 3
    assert findings.next_at() == 100.0 + 3 / 0.005


def test_who_is_not_heard_is_asked_later_and_after_several_times_all_the_same() -> None:
    findings = Findings(PARAMS)
    assert findings.postpone(KEY, 0.0, 0.0)
    assert findings.next_at() == 5.0
    assert findings.postpone(KEY, 5.0, 0.9)
    assert findings.next_at() == pytest.approx(19.0)
    assert findings.postpone(KEY, 19.0, 0.5)
    assert not findings.postpone(KEY, 30.0, 0.5)
    assert findings.take(KEY, Verdict.SILENT, 30.0) is Turn.NONE
    assert not findings.postpone(KEY, 40.0, 0.5)
    assert findings.take(KEY, Verdict.HELD, 40.0) is Turn.NONE
    assert findings.waiting == 0
    assert findings.postpone(KEY, 50.0, 0.5)


def test_postponed_wards_take_no_more_room_than_others() -> None:
    findings = Findings(PARAMS)
    assert all(findings.postpone((bytes_of(number), SLOT[1], WARD), 0.0, 0.5) for number in range(5))
    assert findings.waiting == 2


def test_silence_counts_once_until_it_is_time_to_ask_again() -> None:
    findings = Findings(PARAMS)
    assert [findings.take(KEY, Verdict.SILENT, now) for now in (0.0, 1.0, 2.0, 9.9, 10.0, 29.0)] == [Turn.NONE] * 6
    assert findings.due(10_000.0, 10) == [KEY]
    assert findings.take(KEY, Verdict.SILENT, 10_000.0) is Turn.FOUND


def test_who_says_that_it_is_busy_is_given_the_time_of_a_restore() -> None:
    findings = Findings(PARAMS)
    assert [findings.take(KEY, Verdict.SILENT, 60.0 * turn, busy=True) for turn in range(3)] == [Turn.NONE] * 3
    assert findings.take(KEY, Verdict.SILENT, BUSY_S + 1, busy=True) is Turn.FOUND


def test_while_many_wards_are_silent_their_silence_does_not_count() -> None:
    findings = Findings(AuditParams(silent_max=1, period_s=1000.0))
    wards = [NodeId(node_of(number)) for number in range(10)]
    for number, ward in enumerate(wards):
        verdict = Verdict.SILENT if number < 4 else Verdict.MISSING if number == 4 else Verdict.HELD
        findings.take((bytes_of(number), SLOT[1], ward), verdict, 0.0)
    assert findings.doubtful
    assert findings.at(bytes_of(0), SLOT[1]) == frozenset()
    assert findings.at(bytes_of(4), SLOT[1]) == {wards[4]}
    findings.take((bytes_of(0), SLOT[1], wards[0]), Verdict.HELD, 1.0)
    assert findings.at(bytes_of(1), SLOT[1]) == {wards[1]}
    findings.take((bytes_of(9), SLOT[1], wards[9]), Verdict.HELD, 2000.0)
    assert not findings.doubtful
