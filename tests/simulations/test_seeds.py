"""Seeds that once showed a defect hold, and so do some that nobody has seen before.

The fresh ones are drawn anew in each run and printed, so that a failure can be seen again: its command is in the
message. It belongs into simulations/seeds.txt then.
"""

from __future__ import annotations

import faulthandler
from itertools import cycle
from random import SystemRandom

import pytest

from simulations.running import Plan, names
from simulations.sweep import stored, sweep
from simulations.sweep_report import line, table

pytestmark = [pytest.mark.slow, pytest.mark.real]

FRESH = 10
FRESH_HOURS = 0.05
NODES = 16
SEED_MAX = 2**31


def fresh() -> list[Plan]:
    """FRESH plans, dealt to the scenarios in turn, that nobody chose."""
    chance = SystemRandom()
    dealt = zip(cycle(names()), range(FRESH), strict=False)
    return [Plan(scenario, NODES, chance.randrange(SEED_MAX), FRESH_HOURS) for scenario, _ in dealt]


def test_stored_seeds_name_scenarios_that_exist() -> None:
    assert {plan.scenario for plan in stored()} <= set(names())


def test_stored_and_fresh_seeds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    faulthandler.cancel_dump_traceback_later()  # this process only waits; each run has a limit of its own
    drawn = fresh()
    with capsys.disabled():
        print("\nfresh seeds: " + ", ".join(f"{plan.scenario} {plan.seed}" for plan in drawn))
    outcomes = sweep([*stored(), *drawn], lambda _: None)
    assert outcomes is not None, "interrupted"
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        print("\n".join([line(outcome), *outcome.before, outcome.failure]))
    assert not failed, "\n".join(table(failed))
