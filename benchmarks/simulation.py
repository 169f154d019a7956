"""How fast the simulation is and what a node of it weighs: `python -m benchmarks.simulation [--nodes 20 50 100]`.

Each row is one run in a process of its own, its invariants checked as in any run. Virtual seconds per second of
processor time, since other work on the machine may hold a run up; memory is what the process had at most, less what
an interpreter has that only imported all of it, divided by the nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulations.determinism import HASH_SEED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NODES = (20, 50, 100)
HOURS = 0.05
CHURN_NODES = 20
CHURN_HOURS = 1.0
SEED = 1
IMPORTS_ALL = "import simulations.__main__, simulations.cluster"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process used: processor time, and most memory in bytes; and what it printed."""

    cpu_s: float
    peak_bytes: int
    said: str


def cost_of(arguments: Sequence[str]) -> Cost:
    """Run `python` with these arguments to its end. CalledProcessError with what it said when it failed."""
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, said)
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, said)


def rows(sizes: Sequence[int], hours: float, churn_hours: float) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    empty = cost_of(["-c", IMPORTS_ALL])
    plans = [("steady", nodes, hours) for nodes in sizes] + [("churn", CHURN_NODES, churn_hours)] * (churn_hours > 0)
    yield "| run | virtual s | real s | virtual s per real s | per s of processor time | memory of a node, MB |"
    yield "|---|---|---|---|---|---|"
    for scenario, nodes, long in plans:
        plan = [scenario, "--nodes", f"{nodes}", "--seed", f"{SEED}", "--hours", f"{long:g}"]
        cost = cost_of(["-m", "simulations", *plan, "--json"])
        report = json.loads(cost.said)
        virtual_s, real_s = report["virtual_s"], report["real_s"]
        weight = (cost.peak_bytes - empty.peak_bytes) / nodes / 1e6
        yield (
            f"| {scenario}, {nodes} nodes | {virtual_s:.0f} | {real_s:.0f} | {virtual_s / real_s:.0f} "
            f"| {virtual_s / cost.cpu_s:.0f} | {weight:.1f} |"
        )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES), metavar="N", help="sizes of steady")
    parser.add_argument("--hours", type=float, default=HOURS, metavar="H", help="of virtual time, steady (0.05)")
    parser.add_argument(
        "--churn", type=float, default=CHURN_HOURS, metavar="H", help="of churn at 20 nodes (1; 0 none)"
    )
    chosen = parser.parse_args()
    for line in rows(chosen.nodes, chosen.hours, chosen.churn):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
