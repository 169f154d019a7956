"""The shard store beside the bare disk: `python -m benchmarks.store [--reps 5] [--dir D] [--parts 1000000]`.

Each row stands beside what the same disk does with a plain file, measured between its repetitions: a put of 1 KiB
beside an append of 1 KiB and fdatasync, a put of 1 MiB beside a write of 1 MiB and fdatasync. Medians (lowest-highest).
Write amplification is what the process gave to the block device over the bytes of the shards. The large store of the
last rows is opened by a fresh process after the page cache was dropped (as root).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.store_parts import plain_parts
from lockbox_node.adapters import store_schema
from lockbox_node.adapters.kept_thread import KeptThread
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.adapters.store_garbage import found_at
from lockbox_node.adapters.store_rows import INSERT_PART, PartRow, pack_entries, pack_head
from lockbox_node.core.scrub_pace import ScrubParams
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import PutOutcome, StripePart, settled
from tests.fakes.stripes import OWNER, FixedClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from lockbox_node.errors import LockboxError

KIB, MIB = 1024, 1024 * 1024
PARAMS = StoreParams(free_floor_bytes=0, free_floor_percent=0.0, capacity_bytes=1 << 40)
SCRUB = ScrubParams()
BODY_BYTES = 1700  # of a part of 1 KiB: its shard, its descriptor, a slot
SECONDS = 2.0  # of a bare measurement
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass
class Row:
    """One figure over the repetitions, with its peer of the same run."""

    name: str
    peer: str
    goal: str

    def __post_init__(self) -> None:
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def add(self, ours: float, theirs: float) -> None:
        """One repetition."""
        self.ours.append(ours)
        self.theirs.append(theirs)

    def line(self) -> str:
        """A row of the table."""
        ratios = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True) if other]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
        peer = f"{spread(self.theirs)} {self.peer}" if any(self.theirs) else "-"
        return f"| {self.name} | {spread(self.ours)} | {peer} | {ratio} | {self.goal} |"


def spread(values: Sequence[float]) -> str:
    """Median (lowest-highest)."""
    digits = 0 if statistics.median(values) >= 100 else 2
    median, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low}-{high})"


def bare_appends_per_s(folder: Path, size: int, seconds: float = SECONDS) -> float:
    """Appends of `size` bytes to one growing file, each flushed, one after the other."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    block = os.urandom(size)
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        os.write(descriptor, block)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    Path(name).unlink()
    return count / spent


async def hopped_appends_per_s(folder: Path, size: int, seconds: float = SECONDS) -> float:
    """The same by way of a thread, as whatever must not block an event loop goes: the bound of a lone writer."""
    with tempfile.TemporaryFile(dir=folder) as file:
        block, descriptor = os.urandom(size), file.fileno()

        def append() -> None:
            os.write(descriptor, block)
            os.fdatasync(descriptor)

        return await _hops_per_s(append, seconds)


async def hopped_rows_per_s(folder: Path, size: int, seconds: float = SECONDS) -> float:
    """One row for each commit into one table of a database with the store's settings, by way of a thread.

    The least that a put of its own can cost: no index, no counter, no table but the one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as data_dir:
        connection = store_schema.connect(Path(data_dir) / "rows.db", fresh=True)
        connection.execute("CREATE TABLE part(rid INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")
        block = os.urandom(size)

        def put() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO part(body) VALUES (?)", (block,))
            connection.execute("COMMIT")

        rate = await _hops_per_s(put, seconds)
        connection.close()
    return rate


async def hopped_statements_per_s(folder: Path, parts: Iterable[StripePart], seconds: float = SECONDS) -> float:
    """The SQL of a put of its own on a new store, by way of a thread: no ruling, no limit, no queue, no answer."""
    with tempfile.TemporaryDirectory(dir=folder) as data_dir:
        connection = store_schema.open_database(Path(data_dir), b"")
        execute, waiting = connection.execute, enumerate(parts, 1)

        def put() -> None:
            rid, part = next(waiting)
            execute("BEGIN IMMEDIATE")
            found_at(connection, part.address)
            row = PartRow(
                rid, part.address, part.descriptor_hash, 1, 1, part.lease_until_unix_s, part.index, 0, 0, 1, KIB,
                BODY_BYTES, pack_entries(part.entries), -1, OWNER.id, b"",
            )  # fmt: skip
            execute(f"INSERT {INSERT_PART}", row.columns)
            execute("INSERT INTO body VALUES (?, ?, ?)", (rid, pack_head(part), part.shards[0]))
            execute("UPDATE meta SET next_rid = ?, stripes = ?", (rid, rid))
            execute("INSERT INTO digest_news(changes) VALUES (?)", (part.descriptor_hash,))
            execute("COMMIT")

        rate = await _hops_per_s(put, seconds)
        connection.close()
    return rate


async def _hops_per_s(work: Callable[[], None], seconds: float) -> float:
    """One after the other, in the kind of thread that the store has."""
    with KeptThread("benchmark") as thread:
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            await thread.run(work)
            count += 1
    return count / spent


async def at_once(requests: Iterable[Callable[..., None]], tasks: int) -> list[float]:
    """All of them, by so many tasks that each ask, await the answer and ask again; the latency of each in seconds."""
    waiting = iter(requests)
    latencies: list[float] = []

    async def work() -> None:
        for request in waiting:
            start = time.perf_counter()
            await settled(request)
            latencies.append(time.perf_counter() - start)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work)
    return latencies


def putting(store: ShardStoreFile, parts: Iterable[StripePart]) -> Iterator[Callable[..., None]]:
    """One put for each part."""
    return (partial(store.put, part, (), OWNER) for part in parts)


def getting(store: ShardStoreFile, parts: Iterable[StripePart]) -> Iterator[Callable[..., None]]:
    """One verified get for each part."""
    return (partial(store.get, part.address, part.descriptor_hash) for part in parts)


def p99_ms(latencies: Sequence[float]) -> float:
    """The 99th percentile in ms."""
    return 1000 * sorted(latencies)[int(0.99 * (len(latencies) - 1))]


def written_bytes() -> int:
    """What this process gave to block devices so far (proc(5), io)."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def in_store(data_dir: Path, work: Callable[[ShardStoreFile], Awaitable[None]]) -> None:
    """Run `work` on an open store."""

    async def run() -> None:
        store = ShardStoreFile.open(data_dir, PARAMS, FixedClock())
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await work(store)
            nursery.cancel_scope.cancel()

    trio.run(run)


def small(folder: Path, reps: int) -> list[Row]:
    """Puts and gets of 1 KiB."""
    hop = Row("append + fdatasync by way of a thread, /s", "append + fdatasync", "")
    row = Row("one row a commit in a bare table, by way of a thread, /s", "append + fdatasync", "")
    sql = Row("the SQL of one put a commit alone, by way of a thread, /s", "append + fdatasync", "")
    one = Row("put 1 KiB, 1 writer, /s", "append + fdatasync", ">= 0.6")
    many = Row("put 1 KiB, 32 writers, /s", "append + fdatasync", ">= 2.5")
    tail = Row("p99 of a put, 32 writers, ms", "", "")
    gets = Row("get 1 KiB, verified, 64 in flight, /s", "", ">= 20,000 /s")
    amplification = Row("bytes to the disk per byte put, 32 writers", "", "")
    for _ in range(reps):
        with tempfile.TemporaryDirectory(dir=folder) as data_dir:

            async def work(store: ShardStoreFile) -> None:
                parts, more = list(plain_parts(0, 6000, 1, KIB)), list(plain_parts(6000, 20_000, 1, KIB))
                hop.add(await hopped_appends_per_s(folder, KIB), bare_appends_per_s(folder, KIB))
                row.add(await hopped_rows_per_s(folder, BODY_BYTES), bare_appends_per_s(folder, KIB))
                sql.add(await hopped_statements_per_s(folder, more), bare_appends_per_s(folder, KIB))
                start = time.perf_counter()
                await at_once(putting(store, parts[:800]), 1)
                one.add(800 / (time.perf_counter() - start), bare_appends_per_s(folder, KIB))
                before, start = written_bytes(), time.perf_counter()
                latencies = await at_once(putting(store, parts[800:]), 32)
                many.add(5200 / (time.perf_counter() - start), bare_appends_per_s(folder, KIB))
                amplification.add((written_bytes() - before) / (5200 * KIB), 0)
                tail.add(p99_ms(latencies), 0)
                start = time.perf_counter()
                await at_once(getting(store, parts), 64)
                gets.add(6000 / (time.perf_counter() - start), 0)

            in_store(Path(data_dir), work)
    return [hop, row, sql, one, many, tail, gets, amplification]


def large(folder: Path, reps: int) -> list[Row]:
    """Puts of 1 MiB as files."""
    one = Row("put 1 MiB, 1 writer, MB/s", "write + fdatasync, MB/s", "")
    many = Row("put 1 MiB, 8 writers, MB/s", "write + fdatasync, MB/s", "")
    for _ in range(reps):
        with tempfile.TemporaryDirectory(dir=folder) as data_dir:

            async def work(store: ShardStoreFile) -> None:
                parts = list(plain_parts(0, 120, 4, 256 * KIB))
                for row, some, writers in ((one, parts[:40], 1), (many, parts[40:], 8)):
                    start = time.perf_counter()
                    await at_once(putting(store, some), writers)
                    rate = len(some) * MIB / (time.perf_counter() - start) / 1e6
                    row.add(rate, bare_appends_per_s(folder, MIB) * MIB / 1e6)

            in_store(Path(data_dir), work)
    return [one, many]


def fill(data_dir: Path, count: int) -> None:
    """A store of `count` parts of one shard of 1 KiB."""

    async def work(store: ShardStoreFile) -> None:
        await at_once(putting(store, plain_parts(0, count, 1, KIB)), 1024)

    in_store(data_dir, work)


def opened(data_dir: Path) -> tuple[float, float]:
    """(seconds to open and serve the first get, peak RSS in MiB) of a fresh process, the page cache dropped."""
    os.sync()
    if os.access(DROP_CACHES, os.W_OK):
        DROP_CACHES.write_text("3")
    else:
        print("the page cache stays: dropping it needs root", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.store_parts", str(data_dir)]
    seconds, rss_mib = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    return float(seconds), float(rss_mib)


async def scrub(store: ShardStoreFile, share: float) -> None:
    """Verify everything, over and over, with `share` of the time."""
    after = b""
    while True:
        start = trio.current_time()
        step = await settled(partial(store.check, after, SCRUB.step_parts))
        after = b"" if step.done else step.after
        await trio.sleep((trio.current_time() - start) * (1 - share) / share)


def during_scrub(data_dir: Path, reps: int, share: float) -> Row:
    """The p99 of puts in a calm rhythm, with and without a scrub of the large store beside them."""
    row = Row(f"p99 of a put during a scrub, share {share}, ms", "without", "<= 2")

    async def calm(store: ShardStoreFile, parts: Iterable[StripePart]) -> float:
        latencies = []
        for request in putting(store, parts):
            start = time.perf_counter()
            outcome: PutOutcome | LockboxError = await settled(request)
            assert isinstance(outcome, PutOutcome)
            latencies.append(time.perf_counter() - start)
            await trio.sleep(0.002)
        return p99_ms(latencies)

    async def work(store: ShardStoreFile) -> None:
        first = 10**9
        for rep in range(reps):
            quiet = await calm(store, plain_parts(first + rep * 2000, 1000, 1, KIB))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scrub, store, share)
                busy = await calm(store, plain_parts(first + rep * 2000 + 1000, 1000, 1, KIB))
                nursery.cancel_scope.cancel()
            row.add(busy, quiet)

    in_store(data_dir, work)
    return row


def filled(folder: Path, reps: int, count: int) -> list[Row]:
    """What a large store costs."""
    data_dir = folder / "filled"
    data_dir.mkdir()
    opening = Row(f"open with {count:,} shards and serve, s", "", "< 1 s")
    memory = Row("peak RSS of that process, MiB", "", "")
    taken = Row("bytes on disk per byte of shards", "", "")
    try:
        start = time.perf_counter()
        fill(data_dir, count)
        filling = Row(f"filled with {count:,} shards, puts/s", "append + fdatasync", "")
        filling.add(count / (time.perf_counter() - start), bare_appends_per_s(folder, KIB))
        for _ in range(reps):
            seconds, rss_mib = opened(data_dir)
            opening.add(seconds, 0)
            memory.add(rss_mib, 0)
        taken.add((data_dir / "shards.db").stat().st_size / (count * KIB), 0)
        scrubs = [during_scrub(data_dir, reps, share) for share in (SCRUB.share, SCRUB.share_now)]
    finally:
        shutil.rmtree(data_dir)
    return [filling, opening, memory, taken, *scrubs]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--parts", type=int, default=1_000_000)
    options = parser.parse_args()
    print("| shard store | median (min-max) | the same disk, same run | ratio | goal |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for rows in (
            partial(small, Path(folder), options.reps),
            partial(large, Path(folder), options.reps),
            partial(filled, Path(folder), options.reps, options.parts),
        ):
            for row in rows():
                print(row.line(), flush=True)


if __name__ == "__main__":
    main()
