"""Run by the crash test: puts parts without end and prints the number of each that was acknowledged."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import PutOutcome
from tests.fakes.stripes import OWNER, FixedClock, Stripe, make_stripe

if TYPE_CHECKING:
    from lockbox_node.errors import LockboxError

IN_FLIGHT = 16


def stripe_of(number: int) -> Stripe:
    """Every seventh is large."""
    return make_stripe(number, groups=4, shard_bytes=20_000) if number % 7 == 0 else make_stripe(number)


async def put_for_ever(store: ShardStoreFile, start: int) -> None:
    """Sixteen in flight; a number is written to stdout only after its acknowledgement."""
    free = trio.Semaphore(IN_FLIGHT)

    def acknowledged(number: int, result: PutOutcome | LockboxError) -> None:
        assert isinstance(result, PutOutcome), result
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        free.release()

    while True:
        await free.acquire()
        store.put(stripe_of(start).parts[0], (), OWNER, partial(acknowledged, start))
        start += 1


async def main(data_dir: Path, start: int) -> None:
    """Serve until killed."""
    params = StoreParams(
        ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, checkpoint_wal_bytes=300_000, idle_s=0.01
    )
    store = ShardStoreFile.open(data_dir, params, FixedClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await put_for_ever(store, start)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
