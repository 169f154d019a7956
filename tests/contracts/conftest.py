"""Every store that passes for a ShardStore."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.shard_store import ShardStoreFile
from simulations.disk import SimDisk
from simulations.memory_store import MemoryStore
from tests.contracts.kept import PARAMS, Kept
from tests.fakes.store_damage import flip_shard_bit
from tests.fakes.stripes import FixedClock

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trio

    from lockbox_node.ports import StripePart


def lose_row(data_dir: Path, store: ShardStoreFile, part: StripePart) -> None:
    """Take a part out of the database behind the store's back, and have it rebuilt before the next write."""
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    sql = "DELETE FROM part WHERE address = ? AND hash = ? RETURNING rid"
    rid = connection.execute(sql, (part.address, part.descriptor_hash)).get
    connection.execute("DELETE FROM body WHERE rid = ?", (rid,))
    connection.close()
    store._writer.damaged = True


@pytest.fixture(params=["memory", "simulated", "file"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery, rng: random.Random
) -> AsyncIterator[Kept]:
    clock = FixedClock()
    if request.param == "memory":
        memory = MemoryStore(PARAMS, clock)
        kept = Kept(memory, clock, lambda part: memory.corrupt(part.address, part.descriptor_hash))
        kept.lose = lambda part: memory.salvage_without(part.address, part.descriptor_hash)
        memory.on_corrupt = lambda *key: kept.corrupt_seen.append(key)
        yield kept
        return
    if request.param == "simulated":
        simulated = SimDisk(PARAMS, clock, rng).open()
        kept = Kept(simulated, clock, lambda part: simulated.corrupt(part.address, part.descriptor_hash))
        kept.lose = lambda part: simulated.salvage_without(part.address, part.descriptor_hash)
        simulated.on_corrupt = lambda *key: kept.corrupt_seen.append(key)
        await nursery.start(simulated.run)
        yield kept
        nursery.cancel_scope.cancel()
        return
    store = ShardStoreFile.open(tmp_path, PARAMS, clock)
    kept = Kept(store, clock, partial(flip_shard_bit, tmp_path))
    kept.lose = partial(lose_row, tmp_path, store)
    store.on_corrupt = lambda *key: kept.corrupt_seen.append(key)
    await nursery.start(store.run)
    yield kept
    nursery.cancel_scope.cancel()
