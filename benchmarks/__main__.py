"""`make bench`: this machine's limits and what we make of them, measured in the same run.

A network of real daemons on two cores with fsync on; 1 KiB Standard assets by 1 and by 32 clients; one 100 MiB file.
Small rows are repeated; median and range are printed. Compare ratios inside one run: absolute figures follow the
machine and whatever else it does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks import disk, lookups, placement, round_trips, rpc, tls_stream
from benchmarks.local_network import LocalNetwork, local_network
from benchmarks.workload import Measured, Small, large, measured, vault_of
from lockbox_node.core.tiers import tier_named

if TYPE_CHECKING:
    from collections.abc import Sequence

NODES = 10
REPEATS = 5
SECONDS = 3.0
SMALL_BYTES = 1024
LARGE_BYTES = 100 * 2**20
LOOKUPS, LOOKUP_SEED = 50, 7


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (min-max)`."""
    ordered = [f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{ordered[0]} ({ordered[1]}-{ordered[2]})"


def limits(directory: Path) -> list[str]:
    """What the machine does with nothing of ours in the way but the transport."""
    syncs = [disk.fdatasyncs_per_second(directory, 0.5) for _ in range(REPEATS)]
    streams = [tls_stream.measure(0.5) for _ in range(REPEATS)]
    calls = rpc.measure(0.5, REPEATS)
    return [
        "| limit of this machine, same run | median (min-max) |",
        "|---|---|",
        f"| fdatasync of 4 KiB appends, /s | {spread(syncs)} |",
        f"| one TLS 1.3 stream, MB/s | {spread(streams)} |",
        *(f"| RPC over one connection, {name}, /s | {spread(rates)} |" for name, rates in calls.items()),
    ]


def row(name: str, rows: Sequence[Measured]) -> str:
    """One line of the table."""
    columns = (
        spread([one.per_second for one in rows]),
        spread([one.p50_ms for one in rows], 1),
        spread([one.p95_ms for one in rows], 1),
        f"{statistics.median(one.client_cpu_ms for one in rows):.2f} + "
        f"{statistics.median(one.nodes_cpu_ms for one in rows):.2f}",
    )
    return f"| {name} | {' | '.join(columns)} |"


async def small_rows(network: LocalNetwork, home: Path, repeats: int, seconds: float) -> list[str]:
    """Lock and unlock of 1 KiB Standard by 1 and 32 clients."""
    lines = [
        "| 1 KiB Standard | /s | p50 ms | p95 ms | CPU ms per operation: client + all nodes |",
        "|---|---|---|---|---|",
    ]
    pids = [node["pid"] for node in network.nodes]
    async with vault_of(network, home) as vault:
        small = Small(vault, tier_named("standard"), SMALL_BYTES, [])
        await measured(8, 1.0, pids, small.lock_one)  # connections open, imports done
        for name, operation in (("lock", small.lock_one), ("unlock", small.unlock_one)):
            for clients in (1, 32):
                rows = [await measured(clients, seconds, pids, operation) for _ in range(repeats)]
                lines.append(row(f"{name}, {clients} client{'s' if clients > 1 else ''}", rows))
    return lines


async def large_rows(network: LocalNetwork, home: Path, repeats: int) -> list[str]:
    """One 100 MiB file, Standard with its decoys."""
    path = home / "large"
    path.write_bytes(os.urandom(LARGE_BYTES))
    async with vault_of(network, home / "large-wallet") as vault:
        times = [await large(vault, tier_named("standard"), path, home / "out") for _ in range(repeats)]
    speeds = [[LARGE_BYTES / 1e6 / seconds for seconds in column] for column in zip(*times, strict=True)]
    return [
        "| 100 MiB Standard, one client | MB/s of the file |",
        "|---|---|",
        f"| lock | {spread(speeds[0])} |",
        f"| unlock | {spread(speeds[1])} |",
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The benchmarks of LockBox node.")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockbox-bench-") as directory:
        home = Path(directory)
        print(f"{os.cpu_count()} cores; {options.nodes} nodes, each its own process; loopback; every write synced.\n")
        print("\n".join(limits(home)), flush=True)
        with local_network(options.nodes, "--policy", "healing=off") as network:
            (home / "large-wallet").mkdir()
            print("\n" + "\n".join(trio.run(small_rows, network, home, options.repeats, options.seconds)), flush=True)
            print("\n" + "\n".join(trio.run(large_rows, network, home, min(3, options.repeats))), flush=True)
    print(f"\nA network of {round_trips.NODES} nodes all over the world, {round_trips.OPERATIONS} operations a row:\n")
    standard = tier_named("standard")
    lines = round_trips.table(round_trips.NODES, round_trips.PLACES, round_trips.OPERATIONS, standard)
    print("\n".join(lines), flush=True)
    print(
        f"\nLookups in a simulated network of seed {LOOKUP_SEED}, {LOOKUPS} a row, beside the kademlia package's own:\n"
    )
    for line in lookups.table(LOOKUPS, 10_000, LOOKUP_SEED):
        print(line, flush=True)
    print("\nPlacement: what choosing holders costs, and how many have to move:\n")
    for line in placement.tables():
        print(line, flush=True)


if __name__ == "__main__":
    main()
