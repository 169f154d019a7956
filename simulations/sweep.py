"""Many runs side by side, each in a process of its own: the same commands that a person types to see one again.

A run that ends by a signal, says nothing that can be read, or is not over after its limit has failed like one whose
invariants broke. The limit is one of processor time, since other work may hold a run up for long; one that waits for
ever uses none, and has a wider limit of real time. The runs end when the sweep is interrupted.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from simulations.determinism import HASH_SEED
from simulations.running import Plan

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parent.parent
SEEDS = Path(__file__).parent / "seeds.txt"
START_S = 120  # of processor time that a run may take in any case
SLOWNESS_MAX = 2.0  # processor seconds for a virtual one: more, and it hangs
NODES_USUAL = 20  # of that slowness; it grows with their square
CROWD_MAX = 20  # real seconds for one of the processor: more, and it waits for ever
WORDS_MAX = 2000  # of what a process said before it failed without a report
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run. `failure` is empty when it held; `before` are the events that led to it."""

    plan: Plan
    failure: str
    hash: str = ""
    virtual_s: float = 0.0
    real_s: float = 0.0
    before: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The failure in one line: the last one of the traceback that says something."""
        lines = [line.strip(" |+-") for line in self.failure.splitlines()]
        return next((line for line in reversed(lines) if line), "")


def command(plan: Plan) -> str:
    """What shows this run again, in a checkout with `.venv`."""
    return f".venv/bin/python -m simulations {' '.join(arguments(plan))}"


def arguments(plan: Plan) -> list[str]:
    """The arguments of that command."""
    return [plan.scenario, "--nodes", str(plan.nodes), "--seed", str(plan.seed), "--hours", f"{plan.hours:g}"]


def stored(path: Path = SEEDS) -> list[Plan]:
    """The plans of a file of lines `scenario nodes seed hours # why`. ValueError names the line."""
    plans = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        plan, _, why = line.partition("#")
        if not plan.strip():
            continue
        try:
            scenario, nodes, seed, hours = plan.split()
            plans.append(Plan(scenario, int(nodes), int(seed), float(hours)))
        except ValueError:
            raise ValueError(f"{path.name}, line {number}: not `scenario nodes seed hours # why`") from None
        if not why.strip():
            raise ValueError(f"{path.name}, line {number}: does not say why it is kept")
    return plans


def limit_s(plan: Plan) -> int:
    """Seconds of processor time after which a run counts as hung."""
    return START_S + int(plan.hours * 3600 * SLOWNESS_MAX * max(1.0, plan.nodes / NODES_USUAL) ** 2)


def sweep(plans: Sequence[Plan], told: Callable[[Outcome], None], processes: int | None = None) -> list[Outcome] | None:
    """Run all, `processes` (default: as many as cores) at a time; None when it was interrupted.

    `told` hears of each as it ends. The outcomes are in the order of the plans.
    """
    return trio.run(_sweep, plans, told, processes or len(os.sched_getaffinity(0)))


async def _sweep(plans: Sequence[Plan], told: Callable[[Outcome], None], processes: int) -> list[Outcome] | None:
    outcomes: dict[int, Outcome] = {}
    waiting = iter(enumerate(plans))

    async def work() -> None:
        for number, plan in waiting:
            outcomes[number] = await one(plan, limit_s(plan))
            told(outcomes[number])

    async with trio.open_nursery() as watch:
        watch.start_soon(_cancel_on_signal, watch.cancel_scope)
        async with trio.open_nursery() as nursery:
            for _ in range(processes):
                nursery.start_soon(work)
        watch.cancel_scope.cancel()
    return [outcomes[number] for number in range(len(plans))] if len(outcomes) == len(plans) else None


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*INTERRUPTS) as signals:
        async for _ in signals:
            scope.cancel()


async def one(plan: Plan, patience_s: int) -> Outcome:
    """One run in a process of its own, which no Ctrl-C on the terminal reaches but by its cancellation.

    It hangs after `patience_s` of processor time.
    """
    began = trio.current_time()
    with trio.move_on_after(patience_s * CROWD_MAX) as waiting:
        ended = await trio.run_process(
            [sys.executable, "-m", "simulations", *arguments(plan), "--json"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": HASH_SEED},
            start_new_session=True,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_CPU, (patience_s, patience_s + 1)),
        )
        return heard(plan, ended)
    assert waiting.cancelled_caught
    return Outcome(plan, "hangs: waits for ever", real_s=trio.current_time() - began)


def heard(plan: Plan, ended: subprocess.CompletedProcess[bytes]) -> Outcome:
    """What the process of a run said, or how it ended if it said nothing."""
    if ended.returncode == -signal.SIGXCPU:
        return Outcome(plan, f"hangs: not over after {limit_s(plan)} s of processor time")
    try:
        said = json.loads(ended.stdout)
        return Outcome(
            plan, said["failure"], said["trace"], said["virtual_s"], said["real_s"], tuple(said["last_events"])
        )
    except (ValueError, KeyError, TypeError):
        words = ended.stderr[-WORDS_MAX:].decode(errors="replace").strip()
        return Outcome(plan, f"{words}\nthe process ended with {ended.returncode} and without a report")
