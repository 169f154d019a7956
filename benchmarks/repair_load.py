"""What repairs cost those who lock meanwhile: `python -m benchmarks.repair_load [--stripes 600]`.

Standard assets are locked without pause, first while nothing is broken, then while the stripes of two nodes that were
killed are rebuilt: from when every node believes them dead until no repair waits. Goal: the 99th percentile of a lock
at most doubles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.local_network import local_network
from benchmarks.workload import vault_of
from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.core.tiers import STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.local_network import LocalNetwork
    from lockbox_node.client.vault import Vault

NODES = 24
VICTIMS = 2
CLIENTS = 2
SIZE = 20_000
CALM_S = 20.0
WAIT_S = 120.0
GOAL = 2.0


async def locked(vault: Vault, until: Callable[[], bool]) -> list[float]:
    """Seconds of each lock by CLIENTS tasks until then."""
    took: list[float] = []

    async def one() -> None:
        while not until():
            began = time.perf_counter()
            await lock(vault, BytesSource(bytearray(os.urandom(SIZE))), STANDARD)
            took.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(one)
    return took


async def compared(network: LocalNetwork, home: Path, stripes: int) -> bool:
    """Print both rows; whether the goal was kept."""
    async with vault_of(network, home) as vault:
        for _ in range(stripes):
            await lock(vault, BytesSource(bytearray(os.urandom(SIZE))), STANDARD)
        calm_ends = time.monotonic() + CALM_S
        calm = await locked(vault, lambda: time.monotonic() >= calm_ends)
        victims = [node["name"] for node in network.nodes[-VICTIMS:]]
        await trio.to_thread.run_sync(partial(network.verb, "kill", *victims))
        began = time.monotonic()
        await _until(network, lambda said: said["members"]["alive"] == NODES - VICTIMS, began)
        over = trio.Event()
        repaired: list[float] = []

        async def lock_meanwhile() -> None:
            repaired.extend(await locked(vault, over.is_set))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lock_meanwhile)
            await _until(network, lambda said: said["repairs"]["pending"] > 0, began, anybody=True)
            await _until(network, lambda said: said["repairs"]["pending"] == 0, began)
            over.set()
        rows = await trio.to_thread.run_sync(network.status)
    done = sum(row["status"]["repairs"]["done"] for row in rows if row.get("status"))
    print(f"| locks of {SIZE:,} bytes, Standard, {CLIENTS} clients | locks | p50 ms | p99 ms |\n|---|---|---|---|")
    print(_row("nothing is broken", calm))
    print(_row(f"while {done:,} stripes are rebuilt", repaired))
    ratio = _p99(repaired) / _p99(calm)
    print(f"| ratio of the p99, goal {GOAL:g} | | | {ratio:.2f} |")
    return ratio <= GOAL


async def _until(
    network: LocalNetwork, holds: Callable[[dict[str, Any]], bool], began: float, *, anybody: bool = False
) -> None:
    while time.monotonic() - began < WAIT_S:
        rows = await trio.to_thread.run_sync(network.status)
        said = [holds(row["status"]) for row in rows if row.get("status")]
        if any(said) if anybody else all(said):
            return
        await trio.sleep(0.3)
    raise TimeoutError(f"not within {WAIT_S:.0f} s")


def _row(what: str, took: list[float]) -> str:
    return f"| {what} | {len(took):,} | {1000 * statistics.median(took):.1f} | {1000 * _p99(took):.1f} |"


def _p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


def main() -> int:
    """Run it; 1 when the goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repair_load", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--stripes", type=int, default=600)
    options = parser.parse_args()
    with local_network(NODES) as network:
        home = network.directory / "home-load"
        home.mkdir()
        kept = trio.run(compared, network, home, options.stripes)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
