"""Parts for the store's benchmark, a million in a minute; and the process that opens a store of them.

The store verifies hashes, not signatures (the service does that before it): these parts are right in every hash and
carry an empty signature.
"""

from __future__ import annotations

import hashlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import StripePart, entries_of, settled
from protocol import merkle
from protocol.ids import Address, DescriptorHash, address_of
from protocol.messages import Signed
from protocol.records import CODE_CAUCHY, HASH_SHA256, Descriptor, Group, leaf_bytes
from tests.fakes.stripes import NOW_UNIX_S, FixedClock, bytes_of, node_of

if TYPE_CHECKING:
    from collections.abc import Iterator

K, N, INDEX, TIER = 5, 10, 3, 1
NODES = [node_of(number) for number in range(24)]
SLOT = bytes(64)
YEAR_S = 365 * 86_400


def plain_parts(first: int, count: int, groups: int, shard_bytes: int) -> Iterator[StripePart]:
    """`count` different parts of `groups` shards each."""
    leaf = leaf_bytes(shard_bytes)
    filler = [bytes_of("other shard", index) for index in range(N)]
    noise = bytes_of("noise", length=shard_bytes - 16)
    slot_hash = hashlib.sha256(SLOT).digest()
    for number in range(first, first + count):
        key = hashlib.sha256(number.to_bytes(8, "big")).digest()
        shards = tuple(number.to_bytes(8, "big") + group.to_bytes(8, "big") + noise for group in range(groups))
        ids = [[*filler[:INDEX], merkle.root(shard, leaf), *filler[INDEX + 1 :]] for shard in shards]
        descriptor = Descriptor(
            key, 1, TIER, CODE_CAUCHY, K, N, HASH_SHA256, leaf, shard_bytes, [Group(group) for group in ids],
            [slot_hash], NOW_UNIX_S, NOW_UNIX_S + YEAR_S, [],
        )  # fmt: skip
        body = msgspec.msgpack.encode(descriptor)
        holders = ((index, NODES[(number + index) % len(NODES)]) for index in range(N))
        yield StripePart(
            Address(address_of(key)), 1, DescriptorHash(hashlib.sha256(body).digest()), Signed(body, bytes(64)), TIER,
            NOW_UNIX_S + YEAR_S, (SLOT,), INDEX, shards, entries_of(holders, 1),
        )  # fmt: skip


async def open_and_get(data_dir: Path) -> float:
    """Seconds from nothing to the first verified part."""
    from lockbox_node.adapters.shard_store import ShardStoreFile

    (part,) = plain_parts(0, 1, 1, 1024)
    start = time.perf_counter()
    store = ShardStoreFile.open(data_dir, StoreParams(free_floor_bytes=0), FixedClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await settled(partial(store.get, part.address, part.descriptor_hash)) == part
        spent = time.perf_counter() - start
        nursery.cancel_scope.cancel()
    return spent


if __name__ == "__main__":
    seconds = trio.run(open_and_get, Path(sys.argv[1]))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(f"{seconds:.4f} {int(peak.split()[1]) / 1024:.1f}")
