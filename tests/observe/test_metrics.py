"""The metrics page: names, units, values read at scrape time, and labels from closed sets only."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lockbox_node.core.repair import Cause
from lockbox_node.core.repair_figures import Durations, RepairFigures
from lockbox_node.observe.audits import AuditWork
from lockbox_node.observe.metrics import Metrics, Observed, StoreWork, UpkeepWork
from lockbox_node.observe.repairs import RepairWork
from lockbox_node.observe.whereabouts import LocationWork
from lockbox_node.ports import StoreFigures
from lockbox_node.services.draining import DrainFigures
from protocol.errors import ErrorCode

BASE_UNITS = ("_seconds", "_bytes", "_total", "_seconds_bucket", "_seconds_count", "_seconds_sum")
LABELS = {"state", "certificate", "kind", "request", "outcome", "reason", "cause", "margin", "le", "verdict"}


def repair_work() -> RepairWork:
    figures = RepairFigures()
    for cause, short_s, count in ((Cause.LOSS, 40.0, 7), (Cause.OUT_OF_PLACEMENT, 2.0, 5)):
        for _ in range(count):
            figures.repaired(cause, 0 if cause is Cause.LOSS else 4, short_s, 1.0, 100)
    figures.sweep_begins()
    for margin in (5, 5, 0, -2, 1, 3):
        figures.saw(margin)
    figures.sweep_ends()
    detection = Durations()
    detection.add(12.0)
    return RepairWork(failed=13, pending=14, left_s=3.5, let_go=42, figures=figures, detection=detection)


def observed() -> Observed:
    """A node with a different number everywhere."""
    return Observed(
        uptime_s=lambda: 12.5,
        members=lambda: {"alive": 21, "suspect": 1, "dead": 2},
        connections=lambda: 17,
        dial_backs=lambda: {"reached": 3, "unreachable": 1},
        store=lambda: StoreFigures(3, 6, 6000, 8192, 1, 5, 4, 15, 1600, 17000, 24, 25),
        store_work=lambda: StoreWork(puts=7, gets=8, corrupt_found=9),
        requests=lambda: {("put_stripe", "served"): 10, ("put_stripe", "refused"): 11},
        grants=lambda: {"granted": 26, "rate_limited": 27},
        grant_uses=lambda: {"served": 28, "grant_replayed": 29},
        statements=lambda: {"stated": 35, "silent": 36},
        drain=lambda: DrainFigures(51, 52, 53, 54, 0.0, None, {"INSUFFICIENT_NODES": 55}, 0, "", None),
        copies=lambda: (43, 44),
        repairs=lambda: repair_work(),
        upkeep=lambda: UpkeepWork(True, 18, 19, 0.25, 22, 23, 1.8e9),
        certificates_left_s=lambda: {"identity": 86400.0, "operational": -1.0},
        location=lambda: LocationWork(True, False, 26, 27, 28, 29, 30, 31, {"forged": 32, "future": 33}),
        audits=lambda: AuditWork({"held": 51, "silent": 52}, 53, 54, 55, 56, 57, 58),
    )


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """(name, label value, ...) -> value, labels in falling order of their names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, reverse=True))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_every_number_of_the_services_is_on_the_page() -> None:
    shown = samples(Metrics(observed()).render())
    expected = {
        ("lockbox_uptime_seconds",): 12.5,
        ("lockbox_members", "alive"): 21,
        ("lockbox_members", "suspect"): 1,
        ("lockbox_members", "dead"): 2,
        ("lockbox_connections",): 17,
        ("lockbox_parts_trimmed_total",): 43,
        ("lockbox_parts_spare",): 44,
        ("lockbox_draining",): 1,
        ("lockbox_drain_parts_total",): 51,
        ("lockbox_drain_bytes_total",): 52,
        ("lockbox_drain_left_parts",): 53,
        ("lockbox_drain_left_bytes",): 54,
        ("lockbox_drain_stuck_parts",): 55,
        ("lockbox_certificate_expiry_seconds", "identity"): 86400,
        ("lockbox_certificate_expiry_seconds", "operational"): -1,
        ("lockbox_audits_total", "held"): 51,
        ("lockbox_audits_total", "silent"): 52,
        ("lockbox_audits_skipped_total",): 53,
        ("lockbox_audits_forgotten_total",): 54,
        ("lockbox_audit_proof_bytes_total",): 55,
        ("lockbox_audit_findings",): 56,
        ("lockbox_audit_standing_blamed_nodes",): 57,
        ("lockbox_audit_standing_excluded_nodes",): 58,
        ("lockbox_location_reports",): 26,
        ("lockbox_location_contradictions",): 27,
        ("lockbox_location_refuted",): 28,
        ("lockbox_location_measured",): 29,
        ("lockbox_location_enforced",): 1,
        ("lockbox_location_doubted",): 0,
        ("lockbox_location_pings_total",): 30,
        ("lockbox_location_pings_discarded_total",): 31,
        ("lockbox_location_reports_refused_total", "forged"): 32,
        ("lockbox_location_reports_refused_total", "future"): 33,
        ("lockbox_stripes",): 3,
        ("lockbox_shards",): 6,
        ("lockbox_stored_bytes", "logical"): 6000,
        ("lockbox_stored_bytes", "disk"): 8192,
        ("lockbox_stored_bytes", "trash"): 1600,
        ("lockbox_stored_bytes", "reserved"): 17000,
        ("lockbox_trash_stripes",): 15,
        ("lockbox_salvages",): 24,
        ("lockbox_salvage_losses",): 25,
        ("lockbox_clock_trusted",): 1,
        ("lockbox_leases_expired_total",): 18,
        ("lockbox_trash_emptied_total",): 19,
        ("lockbox_scrub_progress_ratio",): 0.25,
        ("lockbox_scrub_parts_total",): 22,
        ("lockbox_scrub_corrupt_total",): 23,
        ("lockbox_scrub_last_finished_timestamp_seconds",): 1.8e9,
        ("lockbox_shards_corrupt",): 1,
        ("lockbox_pointers",): 5,
        ("lockbox_tombstones",): 4,
        ("lockbox_puts_total",): 7,
        ("lockbox_gets_total",): 8,
        ("lockbox_corrupt_found_total",): 9,
        ("lockbox_requests_total", "put_stripe", "served"): 10,
        ("lockbox_requests_total", "put_stripe", "refused"): 11,
        ("lockbox_grants_total", "granted"): 26,
        ("lockbox_grants_total", "rate_limited"): 27,
        ("lockbox_audit_requests_total", "stated"): 35,
        ("lockbox_audit_requests_total", "silent"): 36,
        ("lockbox_grant_uses_total", "served"): 28,
        ("lockbox_grant_uses_total", "grant_replayed"): 29,
    }
    assert {name: shown.get(name) for name in expected} == expected


def test_every_number_of_healing_is_on_the_page() -> None:
    shown = samples(Metrics(observed()).render())
    expected = {
        ("lockbox_repairs_total", "done"): 12,
        ("lockbox_repairs_total", "failed"): 13,
        ("lockbox_repairs_pending",): 14,
        ("lockbox_repairs_moved_total",): 5,
        ("lockbox_repairs_by_cause_total", "loss"): 7,
        ("lockbox_repairs_by_cause_total", "drain"): 0,
        ("lockbox_repaired_bytes_total", "loss"): 700,
        ("lockbox_repairs_urgent_total",): 7,
        ("lockbox_repairs_left_seconds",): 3.5,
        ("lockbox_stripes_by_margin", "lost"): 1,
        ("lockbox_stripes_by_margin", "none"): 1,
        ("lockbox_stripes_by_margin", "one"): 1,
        ("lockbox_stripes_by_margin", "few"): 1,
        ("lockbox_stripes_by_margin", "more"): 2,
        ("lockbox_margin_worst",): -2,
        ("lockbox_stripe_short_duration_seconds_bucket", "3.0"): 5,
        ("lockbox_stripe_short_duration_seconds_bucket", "60.0"): 12,
        ("lockbox_stripe_short_duration_seconds_count",): 12,
        ("lockbox_stripe_short_duration_seconds_sum",): 290,
        ("lockbox_member_detection_duration_seconds_bucket", "10.0"): 0,
        ("lockbox_member_detection_duration_seconds_count",): 1,
        ("lockbox_parts_let_go_total",): 42,
    }
    assert {name: shown.get(name) for name in expected} == expected


def test_names_are_ours_and_carry_base_units() -> None:
    families = list(text_string_to_metric_families(Metrics(observed()).render().decode()))
    assert all(re.fullmatch(r"lockbox_[a-z_]+", family.name) for family in families)
    assert all(family.documentation for family in families)
    for family in families:
        if "bytes" in family.name or "seconds" in family.name:
            assert all(sample.name.endswith(BASE_UNITS) for sample in family.samples)


def test_every_code_of_a_refusal_can_be_a_label() -> None:
    every = {code.value.lower(): 1 for code in ErrorCode}
    page = Metrics(dataclasses.replace(observed(), grants=lambda: every)).render()
    assert samples(page)["lockbox_grants_total", "grant_unknown_signer"] == 1


def test_only_labels_of_closed_sets_exist() -> None:
    families = text_string_to_metric_families(Metrics(observed()).render().decode())
    assert {label for family in families for sample in family.samples for label in sample.labels} <= LABELS


def test_a_scrape_reads_the_present_values() -> None:
    count = iter((1, 2))
    metrics = Metrics(dataclasses.replace(observed(), connections=lambda: next(count)))
    assert [samples(metrics.render())["lockbox_connections",] for _ in range(2)] == [1, 2]


def test_two_nodes_in_one_process_do_not_share_a_registry() -> None:
    nodes = (Metrics(dataclasses.replace(observed(), connections=count)) for count in (lambda: 1, lambda: 2))
    pages = [node.render() for node in nodes]
    assert [samples(page)["lockbox_connections",] for page in pages] == [1, 2]


def test_the_process_itself_is_measured() -> None:
    assert samples(Metrics(observed()).render())["lockbox_process_resident_memory_bytes",] > 0


@pytest.mark.parametrize("value", ["ab" * 32, "10.0.0.1", "Put", "", "a" * 33])
def test_a_label_value_that_is_no_plain_word_is_refused(value: str) -> None:
    with pytest.raises(AssertionError):
        Metrics(dataclasses.replace(observed(), members=lambda: {value: 1})).render()


def test_a_label_with_too_many_values_is_refused() -> None:
    many = {"a" * (n % 8 + 1) + "_" * (n // 8): 1 for n in range(65)}
    with pytest.raises(AssertionError):
        Metrics(dataclasses.replace(observed(), members=lambda: many)).render()


def test_a_node_that_nobody_scrapes_does_not_load_the_library() -> None:
    code = "import sys, lockbox_node.observe.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
