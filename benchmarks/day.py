"""A simulated day of 10,000 nodes: `python -m benchmarks.day --nodes 10000 --hours 24 --seed 1 [--told 30]`.

What is stepped and what is not stands in `simulations.day`. One seed gives the same table each time.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import TYPE_CHECKING

from simulations.day import Day, DayParams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulations.day import Period


def row(period: Period) -> str:
    """One line of the table."""
    cells = (
        f"{period.until_h:g}",
        f"{period.live:,}",
        f"{period.joined:,} / {period.died:,}",
        f"{len(period.recalls):,} + {period.refreshes:,}",
        f"{period.recall:.4f}",
        f"{100 * period.exact:.1f}",
        f"{period.dead}",
        f"{statistics.fmean(period.hops):.2f} ({max(period.hops)})" if period.hops else "-",
        f"{statistics.fmean(period.asked):.1f} ({max(period.asked)})" if period.asked else "-",
        f"{100 * period.silent / max(1, period.messages):.1f}",
        f"{period.contacts:.0f}",
        f"{100 * period.dead_share:.2f}",
        f"{100 * period.new_share:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def table(params: DayParams, seed: int) -> Iterator[str]:
    """The day, one period after another."""
    yield (
        "| until h | live | joined / died | lookups + refreshes | recall | exact % | dead in result | hops (max) "
        "| messages (max) | of all, unanswered % | contacts | of them dead % | new in table % |"
    )
    yield "|---" * 13 + "|"
    for period in Day(params, seed).run():
        yield row(period)


def main() -> None:
    """Print the table."""
    usual = DayParams()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=usual.nodes)
    parser.add_argument("--hours", type=float, default=usual.hours)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--online-hours", type=float, default=usual.online_h, help="mean time that a node lives")
    parser.add_argument("--told", type=float, default=math.inf, help="seconds until all know of a death; else nobody")
    options = parser.parse_args()
    params = DayParams(nodes=options.nodes, hours=options.hours, online_h=options.online_hours, told_s=options.told)
    for line in table(params, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
