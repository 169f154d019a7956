"""Puts and gets of the shard store beside the bare disk: `python -m benchmarks.store [--reps 5] [--dir D]`.

One row per shape and number in flight: median (lowest-highest) of the repetitions, and the fdatasync rate of a plain
file on the same disk, measured between them. A part is what one holder gets of a stripe: `groups` shards, one slot.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import PutOutcome, StripePart
from tests.fakes.stripes import OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from lockbox_node.errors import LockboxError

PARAMS = StoreParams(free_floor_bytes=0, free_floor_percent=0.0)
SHAPES = {  # name: (groups, shard bytes, parts, requests in flight)
    "1 KiB asset, Standard": (2, 260, 1500, (1, 32)),
    "64 KiB inside": (4, 16 * 1024, 300, (1, 32)),
    "2 MiB file": (8, 256 * 1024, 40, (1, 8)),
}


def fdatasyncs_per_s(folder: Path, count: int = 500) -> float:
    """Appends of 4 KiB, each flushed."""
    path = folder / "sync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    start = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
    elapsed = time.perf_counter() - start
    os.close(descriptor)
    path.unlink()
    return count / elapsed


async def puts_per_s(store: ShardStoreFile, parts: list[StripePart], in_flight: int) -> float:
    """All parts, so many at a time, each durable."""
    free = trio.Semaphore(in_flight)

    def stored(result: PutOutcome | LockboxError) -> None:
        assert isinstance(result, PutOutcome), result
        free.release()

    start = time.perf_counter()
    for part in parts:
        await free.acquire()
        store.put(part, (), OWNER, stored)
    for _ in range(in_flight):
        await free.acquire()
    return len(parts) / (time.perf_counter() - start)


async def gets_per_s(store: ShardStoreFile, parts: list[StripePart], in_flight: int) -> float:
    """All parts, so many at a time, each verified."""
    free = trio.Semaphore(in_flight)

    def got(result: StripePart | LockboxError) -> None:
        assert isinstance(result, StripePart), result
        free.release()

    start = time.perf_counter()
    for part in parts:
        await free.acquire()
        store.get(part.address, part.descriptor_hash, got)
    for _ in range(in_flight):
        await free.acquire()
    return len(parts) / (time.perf_counter() - start)


async def measure(folder: Path, parts: list[StripePart], in_flight: int) -> tuple[float, float]:
    """(puts/s, gets/s) of a new store."""
    with tempfile.TemporaryDirectory(dir=folder) as data_dir:
        store = ShardStoreFile.open(Path(data_dir), PARAMS, FixedClock())
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            puts = await puts_per_s(store, parts, in_flight)
            gets = await gets_per_s(store, parts, in_flight)
            nursery.cancel_scope.cancel()
    return puts, gets


def spread(values: list[float]) -> str:
    """Median (lowest-highest)."""
    return f"{statistics.median(values):9.0f} ({min(values):.0f}-{max(values):.0f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    for name, (groups, shard_bytes, count, flights) in SHAPES.items():
        parts = [make_stripe(number, groups=groups, shard_bytes=shard_bytes).parts[0] for number in range(count)]
        for in_flight in flights:
            rows = []
            for _ in range(options.reps):
                sync = fdatasyncs_per_s(options.dir)
                rows.append((*trio.run(partial(measure, options.dir, parts, in_flight)), sync))
            puts, gets, syncs = (spread([row[column] for row in rows]) for column in range(3))
            print(f"{name:22} in flight {in_flight:3}   puts/s {puts}   gets/s {gets}   fdatasync/s {syncs}")


if __name__ == "__main__":
    main()
