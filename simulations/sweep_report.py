"""How a sweep is told: a bar on a terminal and plain lines elsewhere, a table at its end, a page of Markdown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import lockbox_node.observe.logging  # noqa: F401  # first: it loads structlog without rich
from simulations.sweep import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from simulations.sweep import Outcome

NEAR_EVENTS = 20  # of those before a failure, on the page


@contextmanager
def progress(runs: int, out: TextIO) -> Iterator[Callable[[Outcome], None]]:
    """What hears of each run as it ends and shows it on `out`."""
    if out.isatty():
        with _bar(runs, out) as told:
            yield told
        return
    ended = 0

    def tell(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        print(f"{ended} of {runs}: {line(outcome)}", file=out, flush=True)

    yield tell


@contextmanager
def _bar(runs: int, out: TextIO) -> Iterator[Callable[[Outcome], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    failures = TextColumn("{task.fields[failed]} failed")
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), failures, TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=Console(file=out), transient=True) as bar:
        task = bar.add_task("runs", total=runs, failed=0)

        def tell(outcome: Outcome) -> None:
            nonlocal failed
            if outcome.failure:
                failed += 1
                bar.console.print(line(outcome), markup=False, highlight=False)
            bar.update(task, advance=1, failed=failed)

        yield tell


def line(outcome: Outcome) -> str:
    """One run in one line."""
    plan = outcome.plan
    how = f"FAILED: {outcome.reason}" if outcome.failure else "held"
    return f"{plan.scenario}, {plan.nodes} nodes, seed {plan.seed}, {outcome.real_s:.0f} s: {how}"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: a line for each scenario, and under it how to see each failure again."""
    said = [
        "| scenario | seeds | failed | virtual h | virtual s per real s |",
        "|---|---|---|---|---|",
    ]
    for scenario in dict.fromkeys(outcome.plan.scenario for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.plan.scenario == scenario]
        virtual_s, real_s = (sum(one.virtual_s for one in mine), sum(one.real_s for one in mine))
        seeds = _ranges(sorted({one.plan.seed for one in mine}))
        failed = sum(bool(one.failure) for one in mine)
        speed = virtual_s / max(real_s, 1e-9)
        said.append(f"| {scenario} | {seeds} | {failed} of {len(mine)} | {virtual_s / 3600:.2f} | {speed:.0f} |")
    failures = [outcome for outcome in outcomes if outcome.failure]
    if failures:
        said += ["", *(f"- `{command(one.plan)}`: {one.reason}" for one in failures)]
    return said


def page(outcomes: Sequence[Outcome], asked: str, real_s: float) -> str:
    """The written report: what was asked for, the table, and of each failure the events before it."""
    failed = sum(bool(outcome.failure) for outcome in outcomes)
    said = [
        "# A sweep of the simulation",
        "",
        f"`{asked}`: {len(outcomes)} runs in {real_s:.0f} s, {failed} failed.",
        "",
        *table(outcomes),
        "",
    ]
    for outcome in outcomes:
        if outcome.failure:
            said += [
                f"## {outcome.plan.scenario}, seed {outcome.plan.seed}",
                "",
                f"`{command(outcome.plan)}`, trace `{outcome.hash or 'none'}`",
                "",
                *(f"    {text}" for text in outcome.before[-NEAR_EVENTS:]),
                *(f"    {text}" for text in outcome.failure.splitlines()),
                "",
            ]
    return "\n".join(said)


def _ranges(seeds: Sequence[int]) -> str:
    """1, 2, 3, 9 -> "1-3, 9"."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
