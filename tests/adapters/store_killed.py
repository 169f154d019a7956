"""Run by the crash test: puts and deletes without end, and prints each that was acknowledged."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError
from tests.fakes.stripes import OWNER, FixedClock, Stripe, make_stripe

IN_FLIGHT = 16
AGE = 12  # a part is deleted when so many later ones were asked for


def stripe_of(number: int) -> Stripe:
    """Every seventh is large."""
    return make_stripe(number, groups=4, shard_bytes=20_000) if number % 7 == 0 else make_stripe(number)


def is_deleted(number: int) -> bool:
    """Whether it goes again."""
    return number % 4 == 0


async def work_for_ever(store: ShardStoreFile, start: int) -> None:
    """Sixteen in flight; a line goes to stdout only after its acknowledgement."""
    free = trio.Semaphore(IN_FLIGHT)
    kept: set[int] = set()

    def acknowledged(kind: str, number: int, result: object) -> None:
        assert not isinstance(result, LockboxError), result
        if kind == "put":
            kept.add(number)
        sys.stdout.write(f"{kind} {number}\n")
        sys.stdout.flush()
        free.release()

    number = start
    while True:
        await free.acquire()
        stripe = stripe_of(number)
        store.put(stripe.parts[0], (), OWNER, partial(acknowledged, "put", number))
        old = number - AGE
        if is_deleted(old) and old in kept:
            await free.acquire()
            signer = stripe_of(old).signer
            answer = partial(acknowledged, "delete", old)
            store.delete(signer.tombstone(1), signer.address, 1, 2**40, answer)
        number += 1


async def main(data_dir: Path, start: int) -> None:
    """Serve until killed."""
    params = StoreParams(
        ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, checkpoint_wal_bytes=300_000, idle_s=0.01
    )
    store = ShardStoreFile.open(data_dir, params, FixedClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await work_for_ever(store, start)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
