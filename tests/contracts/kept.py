"""A store and what the contract suites need around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import (
    Checked,
    Merged,
    Owner,
    PutOutcome,
    ShardStore,
    SlotView,
    StripePart,
    StripeSummary,
    settled,
)
from protocol.messages import BucketDigest, HolderTable, Signed
from tests.fakes.stripes import OWNER, FixedClock, Stripe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Shape = dict[str, Any]
FAR = 2**40
RENEWAL = Signed(b"a renewal, which the store does not read", bytes(64))
PARAMS = StoreParams(ballast_bytes=4096, capacity_bytes=2_000_000, free_floor_bytes=0, free_floor_percent=0.0)
BIG: Shape = {"shard_bytes": 50_000, "groups": 4}  # a part above 64 KiB: a file of its own in the adapter


@dataclass
class Kept:
    """A store and what the tests need around it."""

    store: ShardStore
    clock: FixedClock
    flip: Callable[[StripePart], None]
    lose: Callable[[StripePart], None] = lambda _part: None
    corrupt_seen: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def put(self, part: StripePart, replaces: Sequence[bytes] = (), owner: Owner = OWNER) -> PutOutcome:
        return await settled(partial(self.store.put, part, replaces, owner))

    async def get(self, part: StripePart) -> StripePart:
        return await settled(partial(self.store.get, part.address, part.descriptor_hash))

    async def look(self, stripe: Stripe) -> SlotView:
        return await settled(partial(self.store.look, stripe.signer.address))

    async def merge(self, *tables: HolderTable) -> Merged:
        return await settled(partial(self.store.merge, tables, ()))

    async def delete(self, stripe: Stripe, version: int, until_unix_s: int = FAR) -> None:
        tombstone = stripe.signer.tombstone(version)
        await settled(partial(self.store.delete, tombstone, stripe.signer.address, version, until_unix_s))

    async def summaries(self, after: bytes = b"", limit: int = 100) -> list[StripeSummary]:
        return await settled(partial(self.store.summaries, after, limit))

    async def renew(self, part: StripePart, until_unix_s: int) -> None:
        await settled(partial(self.store.renew, RENEWAL, part.address, part.descriptor_hash, until_unix_s))

    async def expire(self, uptime_s: float = 0) -> int:
        return await settled(partial(self.store.expire, self.clock.now, uptime_s))

    async def empty_trash(self, before_uptime_s: float) -> int:
        return await settled(partial(self.store.empty_trash, before_uptime_s))

    async def check(self, after: bytes = b"", limit: int = 100) -> Checked:
        return await settled(partial(self.store.check, after, limit))

    async def digests(self) -> list[BucketDigest]:
        return await settled(self.store.digests)
