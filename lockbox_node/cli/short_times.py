"""The times of a test network: short, so that a test sees in seconds what a real network does in minutes.

`--real-times` leaves the tiers' own. Audits stay daily, for they would find what a test has only just broken; a policy
(audit=20) has them often, and what fails is then asked again soon.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockbox_node.config import Config

HOLD_OFF_S = 3.0
SWEEP_S = 10.0
RETURN_S = 30.0
GUARD_S = 10.0
LOOK_S = 10.0  # at the clocks
PINGS_PER_S = 20.0  # that measure, where places are measured: all of 20 nodes within 2 minutes
EXCHANGE_S = 2.0  # of what was measured
COMPARE_FIRST_S = 2.0  # what is held, with the siblings
COMPARE_S = 60.0
AUDIT_FIRST_S = 5.0
AUDIT_RETRY_S, AUDIT_AGAIN_S = 1.0, 10.0


def shortened(config: Config, *, measured: bool) -> Config:
    """`config` with these times. `measured`: the network excludes those whose place is refuted."""
    config = replace(
        config,
        repair=replace(config.repair, hold_off_s=HOLD_OFF_S, sweep_s=SWEEP_S, return_hold_s=RETURN_S),
        reconcile=replace(config.reconcile, first_s=COMPARE_FIRST_S, every_s=COMPARE_S),
        guard=replace(config.guard, quiet_s=GUARD_S),
        leases=replace(config.leases, look_every_s=LOOK_S),
        audit=replace(config.audit, first_s=AUDIT_FIRST_S, retry_s=AUDIT_RETRY_S, again_s=AUDIT_AGAIN_S),
    )
    if measured:
        measuring = replace(config.measuring, pings_per_s=PINGS_PER_S, exchange_s=EXCHANGE_S)
        config = replace(config, measuring=measuring)
    return config
