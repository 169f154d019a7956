"""Every store that passes for a ShardStore."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.shard_store import ShardStoreFile
from tests.contracts.kept import PARAMS, Kept
from tests.fakes.memory_store import MemoryStore
from tests.fakes.store_damage import flip_shard_bit
from tests.fakes.stripes import FixedClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trio


@pytest.fixture(params=["memory", "file"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Kept]:
    clock = FixedClock()
    if request.param == "memory":
        memory = MemoryStore(PARAMS, clock)
        kept = Kept(memory, clock, lambda part: memory.corrupt(part.address, part.descriptor_hash))
        memory.on_corrupt = lambda *key: kept.corrupt_seen.append(key)
        yield kept
        return
    store = ShardStoreFile.open(tmp_path, PARAMS, clock)
    kept = Kept(store, clock, partial(flip_shard_bit, tmp_path))
    store.on_corrupt = lambda *key: kept.corrupt_seen.append(key)
    await nursery.start(store.run)
    yield kept
    nursery.cancel_scope.cancel()
