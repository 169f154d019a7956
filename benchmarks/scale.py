"""What a real network costs while nobody asks it for anything: `python -m benchmarks.scale [--nodes 20 100]`.

A test network of daemons, each its own process, left alone for a while. Printed per node: processor time, which is all
probes, gossip and housekeeping; bytes that the loopback carried, headers included; connections; resident memory. And
what one step more costs: how long a newcomer takes until it is ready and all others know it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.local_network import local_network
from benchmarks.workload import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.local_network import LocalNetwork

NODES = (20, 100)
SETTLE_S = 40.0  # first exchanges of tables, first sweeps
SECONDS = 60.0
CARRIED = Path("/sys/class/net/lo/statistics/tx_bytes")
HEADER = (
    "| nodes | ready after, s | one more joins, s | CPU of a node, % of a core: median (max) | bytes/s of a node "
    "| connections of a node: median (max) | memory of a node, MB: median (max) |"
)


def resident_mb(pid: int) -> float:
    """Resident memory of a process that only it has, and what it shares divided by those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def idle(network: LocalNetwork, seconds: float) -> list[str]:
    """The columns of a network that is left alone for `seconds`."""
    pids = [node["pid"] for node in network.nodes]
    time.sleep(SETTLE_S)
    before, carried, began = [cpu_seconds([pid]) for pid in pids], int(CARRIED.read_text()), time.monotonic()
    time.sleep(seconds)
    passed_s = time.monotonic() - began
    shares = [100 * (cpu_seconds([pid]) - then) / passed_s for pid, then in zip(pids, before, strict=True)]
    rate = (int(CARRIED.read_text()) - carried) / passed_s / len(pids)
    memory = [resident_mb(pid) for pid in pids]
    rows = network.status()
    assert all(row["status"]["members"]["alive"] == len(pids) for row in rows), "some know not everybody"
    connections = [row["status"]["connections"] for row in rows]
    return [
        f"{statistics.median(shares):.2f} ({max(shares):.2f})",
        f"{rate:,.0f}",
        f"{statistics.median(connections):.0f} ({max(connections)})",
        f"{statistics.median(memory):.1f} ({max(memory):.1f})",
    ]


def rows(sizes: Sequence[int], seconds: float) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield HEADER
    yield "|---" * (HEADER.count("|") - 1) + "|"
    for nodes in sizes:
        began = time.monotonic()
        with local_network(nodes, "--real-times") as network:
            ready_s = time.monotonic() - began
            columns = idle(network, seconds)
            began = time.monotonic()
            network.verb("add", "1")
            joined_s = time.monotonic() - began
        yield f"| {nodes} | {ready_s:.1f} | {joined_s:.1f} | {' | '.join(columns)} |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES), metavar="N", help="sizes of networks")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="how long each is left alone")
    chosen = parser.parse_args()
    for line in rows(chosen.nodes, chosen.seconds):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
