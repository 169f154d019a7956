"""python -m simulations SCENARIO --nodes N --seed S --hours H: one run, whose last line is `trace HASH`.

With --sweep many runs, each in a process of its own. Exit codes: CONTRACT of the project, as for its other programs;
1 when anything broke.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import ExitCode, LockboxError, UsageError
from protocol.errors import ErrorCode
from simulations import plot, sweep, sweep_report
from simulations.determinism import fixed_hashes
from simulations.running import Plan, Report, named, names, run

ALL = "all"
NODES_MIN = STANDARD.n  # people lock at that tier
NODES_MAX = 1000
EXAMPLES = """examples:
  python -m simulations churn --nodes 20 --seed 7 --hours 0.5      one run; the same seed gives the same trace
  python -m simulations churn --sweep 50 --hours 0.2               seeds 1 to 50, on every core
  python -m simulations all --sweep 10 --report sweep.md           every scenario, with a written report

A failed run says what broke, and before it the last events. docs/simulations.md: how to shrink it.
exit codes: 0 all held, 1 something broke or was interrupted, 2 wrong usage, 5 too few nodes"""


class _Parser(argparse.ArgumentParser):
    """argparse that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "see: python -m simulations --help")


def main(arguments: list[str]) -> int:
    """0 when all went well."""
    try:
        chosen = _parser().parse_args(arguments)
        _check(chosen)
        if chosen.sweep:
            return _sweep(chosen, arguments)
        fixed_hashes("simulations", arguments)
        report = _run(chosen)
    except LockboxError as error:
        return _refused(error)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    print(as_json(report) if chosen.json else "\n".join(lines(report)))
    return ExitCode.FAILED if report.failure else ExitCode.DONE


def _run(chosen: argparse.Namespace) -> Report:
    """One run, drawn if that was asked for; a run that is drawn keeps its trace."""
    history, play = plot.History(), named(chosen.scenario)
    if chosen.plot:
        _write(chosen.plot, "", "a")
        play = plot.watched(play, history)
    report = run(Plan(chosen.scenario, chosen.nodes, chosen.seed, chosen.hours), play)
    if chosen.plot:
        _write(chosen.plot, plot.svg(history, lines(report)[0]))
    return report


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m simulations",
        description="Whole nodes and clients in a seeded world: what one seed does, it does again.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", metavar="SCENARIO", help=f"{', '.join(names())}; or {ALL}, with --sweep")
    parser.add_argument("--nodes", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all chance (default 1)")
    parser.add_argument("--hours", type=float, default=0.1, metavar="H", help="of virtual time (default 0.1)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of words; not with --sweep")
    parser.add_argument("--sweep", type=int, metavar="N", help="run the seeds S to S+N-1, as many at once as cores")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the run as SVG; not with --sweep")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what a sweep found as Markdown")
    return parser


def _check(chosen: argparse.Namespace) -> None:
    """UsageError, or what else is wrong with what was asked for, before anything runs."""
    known = names()
    if chosen.scenario != ALL and chosen.scenario not in known:
        raise UsageError(f"no scenario is named {chosen.scenario!r}", f"there are {', '.join(known)}")
    if not (0 < chosen.hours < math.inf):
        raise UsageError(f"--hours {chosen.hours:g} is not a time", "give more than 0, 0.05 is three minutes")
    if chosen.seed < 0:
        raise UsageError(f"--seed {chosen.seed} is negative", "give 0 or more")
    if chosen.nodes < NODES_MIN:
        what = f"--nodes {chosen.nodes} cannot hold what people lock at Standard"
        raise LockboxError(what, f"give {NODES_MIN} or more", ErrorCode.INSUFFICIENT_NODES)
    if chosen.nodes > NODES_MAX:
        raise UsageError(f"--nodes {chosen.nodes} are too many", f"give {NODES_MAX} or fewer")
    if chosen.sweep is not None and chosen.sweep < 1:
        raise UsageError(f"--sweep {chosen.sweep} runs nothing", "give 1 or more")
    if chosen.sweep is None and (chosen.scenario == ALL or chosen.report):
        raise UsageError(f"{ALL if chosen.scenario == ALL else '--report'} needs --sweep", "say how many seeds")
    for name, given in (("--json", chosen.json), ("--plot", chosen.plot)):
        if chosen.sweep is not None and given:
            raise UsageError(f"{name} is for one run", "leave it out, or --sweep")


def _sweep(chosen: argparse.Namespace, arguments: list[str]) -> int:
    """Run the seeds and tell what came of them."""
    if chosen.report:
        _write(chosen.report, "", "a")  # rather now than after an hour
    seeds = range(chosen.seed, chosen.seed + chosen.sweep)
    scenarios = names() if chosen.scenario == ALL else [chosen.scenario]
    plans = [Plan(scenario, chosen.nodes, seed, chosen.hours) for seed in seeds for scenario in scenarios]
    began = time.perf_counter()  # noqa: TID251  # of the sweep, which no run sees
    with sweep_report.progress(len(plans), sys.stderr) as told:
        outcomes = sweep.sweep(plans, told)
    real_s = time.perf_counter() - began  # noqa: TID251
    if outcomes is None:
        return _interrupted()
    print("\n".join(sweep_report.table(outcomes)))
    if chosen.report:
        _write(chosen.report, sweep_report.page(outcomes, f"python -m simulations {' '.join(arguments)}", real_s))
    return ExitCode.FAILED if any(outcome.failure for outcome in outcomes) else ExitCode.DONE


def _write(path: Path, text: str, mode: str = "w") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(text)
    except OSError as error:
        raise LockboxError(f"cannot write {path}: {error.strerror}", "name a file that can be written") from None


def _refused(error: LockboxError) -> int:
    code = {ExitCode.USAGE: "USAGE", ExitCode.FAILED: "FAILED"}.get(error.exit_code, error.code.value)
    print(f"simulations: {code}: {error.message}; {error.hint}", file=sys.stderr)
    return error.exit_code


def _interrupted() -> int:
    return _refused(LockboxError("interrupted", "run it again"))


def as_json(report: Report) -> str:
    """The report as one JSON object."""
    said = asdict(report)
    plan = said.pop("plan")
    return json.dumps({**plan, "trace": said.pop("hash"), **said})


def lines(report: Report) -> list[str]:
    """The report in words."""
    plan = report.plan
    said = [f"seed {plan.seed}: {plan.scenario}, {plan.nodes} nodes, {plan.hours:g} h"]
    if report.failure:
        said += [*report.last_events, report.failure]
    speed = report.virtual_s / max(report.real_s, 1e-9)
    said += [
        f"{report.virtual_s:.1f} virtual seconds in {report.real_s:.1f} s ({speed:.1f} times), {report.events} events",
        f"trace {report.hash}",
    ]
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
