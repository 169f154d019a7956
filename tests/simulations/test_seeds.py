"""Seeds that once showed a defect hold. A fresh one that fails (`make sim`) belongs into simulations/seeds.txt."""

from __future__ import annotations

import faulthandler

import pytest

from simulations.running import names
from simulations.sweep import stored, sweep
from simulations.sweep_report import line, table

pytestmark = [pytest.mark.slow, pytest.mark.real]


def test_stored_seeds_name_scenarios_that_exist() -> None:
    assert {plan.scenario for plan in stored()} <= set(names())


def test_stored_seeds_hold() -> None:
    faulthandler.cancel_dump_traceback_later()  # this process only waits; each run has a limit of its own
    outcomes = sweep(stored(), lambda _: None)
    assert outcomes is not None, "interrupted"
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        print("\n".join([line(outcome), *outcome.before, outcome.failure]))
    assert not failed, "\n".join(table(failed))
