"""A test network is quick where a test waits, and measures quickly only where places are measured."""

from __future__ import annotations

from lockbox_node.cli.short_times import shortened
from lockbox_node.config import Config


def test_everything_that_a_test_waits_for_is_quick_and_the_day_of_audits_stays() -> None:
    real, short = Config(), shortened(Config(), measured=False)
    assert short.repair.hold_off_s == 3.0
    assert short.guard.quiet_s < real.guard.quiet_s
    assert short.reconcile.every_s < real.reconcile.every_s
    assert (short.audit.first_s, short.audit.retry_s, short.audit.again_s) == (5.0, 1.0, 10.0)
    assert short.audit.period_s == real.audit.period_s
    assert short.measuring == real.measuring


def test_places_are_measured_quickly_where_they_count() -> None:
    real, short = Config(), shortened(Config(), measured=True)
    assert short.measuring.pings_per_s > real.measuring.pings_per_s
