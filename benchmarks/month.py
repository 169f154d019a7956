"""A simulated month of repairs: `python -m benchmarks.month --nodes 84 --stripes 1000 --days 30 --seed 1`.

What is stepped and what is not stands in `simulations.month`. One seed gives the same table each time.
"""

from __future__ import annotations

import argparse

from simulations.month import MonthParams, table


def main() -> None:
    """Print the table."""
    usual = MonthParams()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=usual.nodes)
    parser.add_argument("--stripes", type=int, default=usual.stripes)
    parser.add_argument("--days", type=float, default=usual.days)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in table(MonthParams(options.nodes, options.stripes, options.days), options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
