"""Simulated disks for tests, and what a node finds on them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError, ShardCorrupt, ShardMissing
from lockbox_node.ports import PutOutcome, StripePart, settled
from simulations.disk import SimDisk
from tests.fakes.stripes import OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lockbox_node.ports import Answer
    from simulations.disk import SimStore

T = TypeVar("T")
SEEDS = range(40)
PARTS = [make_stripe(number).parts[0] for number in range(12)]


def make_disk(seed: int = 1, params: StoreParams | None = None) -> SimDisk:
    return SimDisk(params or StoreParams(), FixedClock(), Random(seed))


@asynccontextmanager
async def serving(disk: SimDisk) -> AsyncIterator[SimStore]:
    """A life that ends cleanly, unless the disk crashes in it."""
    store = disk.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: SimStore, part: StripePart, *replaces: bytes) -> PutOutcome:
    return await settled(partial(store.put, part, replaces, OWNER))


async def get(store: SimStore, part: StripePart) -> StripePart:
    return await settled(partial(store.get, part.address, part.descriptor_hash))


async def state_of(store: SimStore, part: StripePart) -> str:
    """What a node finds of a part."""
    try:
        assert await get(store, part) == part
    except ShardMissing:
        return "lost"
    except ShardCorrupt:
        return "torn"
    return "kept"


async def failure_of(start: Callable[[Answer[T]], None]) -> LockboxError:
    with pytest.raises(LockboxError) as caught:
        await settled(start)
    return caught.value


async def crashed_while_putting(seed: int) -> tuple[SimDisk, set[int]]:
    """A disk after a crash at some moment of many puts, and which of PARTS were acknowledged."""
    disk, acknowledged = make_disk(seed, StoreParams(group_requests_max=3)), set()
    async with serving(disk) as store:
        for number, part in enumerate(PARTS):
            store.put(part, (), OWNER, lambda _result, number=number: acknowledged.add(number))  # type: ignore[misc]
        await trio.sleep(Random(seed).uniform(0, 0.010))
        disk.crash()
        told = set(acknowledged)
        await trio.sleep(1)
        assert acknowledged == told
    return disk, acknowledged
