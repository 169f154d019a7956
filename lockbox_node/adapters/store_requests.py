"""The writes of a shard store as they wait for their group: one value each, with what it weighs.

`weight` = bytes that a request holds in the queue and adds to a transaction, about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_rows import logical_bytes
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from lockbox_node.ports import Owner, StripePart
    from protocol.messages import HolderTable, Signed

FRAME_BYTES = 512  # what a request weighs beside its payload
ENTRY_BYTES = 48


@dataclass(frozen=True, slots=True)
class Put:
    """ShardStore.put."""

    part: StripePart
    replaces: tuple[bytes, ...]
    owner: Owner
    shard_bytes: int = field(init=False)  # of all shards
    payload_bytes: int = field(init=False)  # what it adds to the store
    weight: int = field(init=False)

    def __post_init__(self) -> None:
        part = self.part
        shard_bytes = sum(map(len, part.shards))
        payload_bytes = logical_bytes(part)
        object.__setattr__(self, "shard_bytes", shard_bytes)
        object.__setattr__(self, "payload_bytes", payload_bytes)
        object.__setattr__(self, "weight", payload_bytes + ENTRY_BYTES * len(part.entries) + FRAME_BYTES)


@dataclass(frozen=True, slots=True)
class Merge:
    """ShardStore.merge."""

    tables: tuple[HolderTable, ...]
    held_only: tuple[HolderTable, ...]
    first: bool = False

    @property
    def weight(self) -> int:
        """See the module."""
        return FRAME_BYTES + sum(128 + ENTRY_BYTES * len(table.entries) for table in (*self.tables, *self.held_only))


@dataclass(frozen=True, slots=True)
class Renew:
    """ShardStore.renew."""

    renewal: Signed
    address: bytes
    descriptor_hash: bytes
    lease_until_unix_s: int
    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Bury:
    """ShardStore.delete."""

    tombstone: Signed
    address: bytes
    version: int
    until_unix_s: int

    @property
    def weight(self) -> int:
        """See the module."""
        return FRAME_BYTES + len(self.tombstone.body)


@dataclass(frozen=True, slots=True)
class Drop:
    """ShardStore.drop."""

    address: bytes
    descriptor_hash: bytes
    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Expire:
    """ShardStore.expire."""

    now_unix_s: float
    uptime_s: float
    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class EmptyTrash:
    """ShardStore.empty_trash."""

    before_uptime_s: float
    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Digests:
    """ShardStore.digests: asked of the writer, which keeps them."""

    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Note:
    """ShardStore.note."""

    name: str
    value: bytes
    weight: int = FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A read found the part corrupt: remember it, move its file aside."""

    address: bytes
    descriptor_hash: bytes
    rid: int
    weight: int = FRAME_BYTES


def too_much() -> LockboxError:
    """The answer when a queue is full."""
    return LockboxError("too much waits for this store", "try again in a moment", ErrorCode.BUSY)


def closing() -> LockboxError:
    """The answer to what waits when the store closes."""
    return LockboxError("the store is closing; nothing was done", "ask another node", ErrorCode.BUSY)


Write = Put | Merge | Renew | Bury | Drop | Expire | EmptyTrash | Digests | Note | Quarantine
