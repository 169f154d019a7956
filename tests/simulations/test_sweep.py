"""A sweep notices every way in which a run can fail, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from simulations import sweep
from simulations.running import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.sweep import Outcome

PLAN = Plan("steady", 10, 3, 0.001)
FOR_EVER = Plan("steady", 10, 3, 1000.0)
REPORT = {"failure": "", "trace": "ab" * 32, "virtual_s": 9.0, "real_s": 1.0, "last_events": ["1.0 x"]}


def ended(said: object, code: int = 0, stderr: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.CompletedProcess([], code, json.dumps(said).encode() if said else b"", stderr)


def test_a_command_is_the_plan() -> None:
    told = sweep.command(Plan("churn", 20, 7, 0.25))
    assert told == ".venv/bin/python -m simulations churn --nodes 20 --seed 7 --hours 0.25"


def test_a_run_that_held_is_heard() -> None:
    outcome = sweep.heard(PLAN, ended(REPORT))
    assert (outcome.failure, outcome.hash, outcome.virtual_s) == ("", "ab" * 32, 9.0)


def test_a_failure_comes_with_the_events_before_it() -> None:
    group = "  + Exception Group Traceback\n    | AssertionError: lost\n    +-----------\n"
    outcome = sweep.heard(PLAN, ended({**REPORT, "failure": group}, 1))
    assert outcome.reason == "AssertionError: lost"
    assert outcome.before == ("1.0 x",)


@pytest.mark.parametrize("said", [None, {}, {**REPORT, "last_events": None}])
def test_a_process_without_a_report_has_failed(said: object) -> None:
    outcome = sweep.heard(PLAN, ended(said, -9, b"Killed"))
    assert outcome.reason == "the process ended with -9 and without a report"
    assert "Killed" in outcome.failure


def test_stored_seeds_are_plans(tmp_path: Path) -> None:
    kept = tmp_path / "seeds.txt"
    kept.write_text("churn 20 2 0.5 # why\n\n# a remark\nsteady 10 3 0.001 # another\n")
    assert sweep.stored(kept) == [Plan("churn", 20, 2, 0.5), PLAN]


@pytest.mark.parametrize("line", ["churn 20 2 # why", "churn twenty 2 0.5 # why", "churn 20 2 0.5"])
def test_a_stored_seed_that_says_too_little_is_named(tmp_path: Path, line: str) -> None:
    kept = tmp_path / "seeds.txt"
    kept.write_text(f"# first\n{line}\n")
    with pytest.raises(ValueError, match=r"seeds\.txt, line 2"):
        sweep.stored(kept)


@pytest.mark.slow
@pytest.mark.real
def test_outcomes_are_in_the_order_of_the_plans_and_a_bad_one_fails() -> None:
    plans = [PLAN, Plan("no such scenario", 10, 1, 0.001), Plan("steady", 10, 4, 0.001)]
    heard: list[Outcome] = []
    outcomes = sweep.sweep(plans, heard.append, processes=2)
    assert outcomes is not None
    assert [outcome.plan for outcome in outcomes] == plans
    assert [bool(outcome.failure) for outcome in outcomes] == [False, True, False]
    assert len(heard) == 3
    assert outcomes[0].hash != outcomes[2].hash


@pytest.mark.slow
@pytest.mark.real
def test_a_run_that_hangs_is_ended_and_has_failed() -> None:
    outcome = trio.run(sweep.one, FOR_EVER, 2)
    assert outcome.reason.startswith("hangs: not over")


@pytest.mark.slow
@pytest.mark.real
def test_a_run_that_waits_for_ever_is_ended_and_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "CROWD_MAX", 0.001)
    outcome = trio.run(sweep.one, FOR_EVER, 500)
    assert outcome.reason == "hangs: waits for ever"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_its_runs(number: signal.Signals) -> None:
    arguments = ["steady", "--nodes", "10", "--hours", "1000", "--sweep", "3"]
    program = [sys.executable, "-m", "simulations", *arguments]
    with subprocess.Popen(program, cwd=sweep.ROOT, stderr=subprocess.PIPE, text=True) as process:
        children = started(process.pid, len(os.sched_getaffinity(0)))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said == "simulations: FAILED: interrupted; run it again\n"
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def started(parent: int, count: int) -> Sequence[int]:
    """The children of a process, as soon as there are so many."""
    path = Path(f"/proc/{parent}/task/{parent}/children")
    while len(children := path.read_text().split()) < count:
        time.sleep(0.05)
    return [int(child) for child in children]
