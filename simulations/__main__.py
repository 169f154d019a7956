"""python -m simulations SCENARIO --nodes N --seed S --hours H: one run, whose last line is `trace HASH`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simulations import plot
from simulations.determinism import fixed_hashes
from simulations.running import Plan, Report, named, names, run


def main(arguments: list[str]) -> int:
    """0 when the run went well, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m simulations", description="Whole nodes in a seeded world.")
    parser.add_argument("scenario", choices=names())
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=0.1, help="of virtual time")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the run as SVG")
    chosen = parser.parse_args(arguments)
    fixed_hashes("simulations", arguments)
    history, play = plot.History(), named(chosen.scenario)
    if chosen.plot:
        play = plot.watched(play, history)
    report = run(Plan(chosen.scenario, chosen.nodes, chosen.seed, chosen.hours), play)
    if chosen.plot:
        chosen.plot.write_text(plot.svg(history, lines(report)[0]))
    print("\n".join(lines(report)))
    return 1 if report.failure else 0


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
