"""The seam: six ports between the node and the world.

Everything above runs unchanged in the daemon (adapters) and in a seeded simulation (fakes); both pass the same
contract suites in tests/contracts. The store answers through callbacks, so that one writer task commits what is
queued in one transaction and no task per request exists: docs/decisions/0001-store-callbacks.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from lockbox_node.errors import LockboxError
from protocol.messages import HolderEntry, HolderTable, Signed

if TYPE_CHECKING:
    from protocol.ids import Address, DescriptorHash, NodeId

T = TypeVar("T")
Answer = Callable[[T | LockboxError], None]
"""Called exactly once, on the trio thread, with the result or the error (never raised)."""


class PeerStream(Protocol):
    """Byte stream after TLS. `peer_leaf` is the DER that TLS verified; `Hello` must match it."""

    peer_leaf: bytes
    peer_host: str

    async def receive_into(self, buffer: memoryview) -> int:
        """Bytes received, as many as are at hand; 0 = the peer closed cleanly. PeerUnreachable when it broke."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. After a cancelled or failed send the stream is dead. PeerUnreachable when it broke."""
        ...

    async def aclose(self) -> None:
        """Close at once; never hangs."""
        ...


PeerHandler = Callable[[PeerStream], Awaitable[None]]


class Network(Protocol):
    """Authenticated streams to and from peers."""

    async def dial(self, host: str, port: int) -> PeerStream:
        """PeerUnreachable when nobody answers or TLS fails."""
        ...

    async def serve(self, handler: PeerHandler, *, task_status: trio.TaskStatus[int]) -> None:
        """Accept for ever; started with the port. `handler` owns its stream and closes it."""
        ...


@dataclass(frozen=True, slots=True)
class StripePart:
    """What one holder keeps of a stripe: shard `index` of every group, the slots, the table of its siblings."""

    address: Address
    version: int
    descriptor_hash: DescriptorHash
    descriptor: Signed
    tier: int
    lease_until_unix_s: int
    slots: tuple[bytes, ...]
    index: int
    shards: tuple[bytes, ...]
    entries: tuple[HolderEntry, ...]


@dataclass(frozen=True, slots=True)
class StripeSummary:
    """A stripe held here, without its bytes: what healing and audits plan with."""

    address: Address
    version: int
    descriptor_hash: DescriptorHash
    tier: int
    index: int
    corrupt: bool
    entries: tuple[HolderEntry, ...]


@dataclass(frozen=True, slots=True)
class PutOutcome:
    """Durable. `siblings` = other descriptors of the same version that stand here too."""

    siblings: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class SlotView:
    """All that stands at an address here: held parts (no shards), pointers (tables only), the tombstone."""

    parts: tuple[StripePart, ...]  # with `shards` empty, highest version first
    tables: tuple[HolderTable, ...]  # of held parts and of pointers
    tombstone: Signed | None


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Counts and bytes for `status` and metrics."""

    stripes: int
    shards: int
    logical_bytes: int
    disk_bytes: int
    corrupt: int
    pointers: int
    tombstones: int


class ShardStore(Protocol):
    """Durable stripes. Every method queues and returns; the answer comes once, when it is durable or read."""

    on_corrupt: Callable[[Address, DescriptorHash], None]  # set by who repairs; called when a read found damage
    on_broken: Callable[[str], None]  # set by who announces us; called once, when the store became read-only, with why

    def put(self, part: StripePart, replaces: Sequence[bytes], answer: Answer[PutOutcome]) -> None:
        """Store (or replace in place) one part. Durable before the answer.

        In the same transaction: STALE (RequestRefused, with the signed proof) when a tombstone covers the version or
        a higher version stands that this one does not replace; lower versions named in `replaces` are removed; a
        corrupt part of the same identity is replaced; an equal part is answered as stored (idempotent).
        StoreFull before a byte is written.
        """
        ...

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """The part with its shards, each verified against its id in this call. ShardMissing, ShardCorrupt."""
        ...

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """What stands at the address, without shard bytes."""
        ...

    def merge(self, tables: Sequence[HolderTable], answer: Answer[None]) -> None:
        """Merge holder tables: into held parts, else as pointers (24 h). Higher sequence wins per (index, node)."""
        ...

    def delete(self, tombstone: Signed, address: Address, version: int, answer: Answer[None]) -> None:
        """Remove all versions up to `version` and keep the tombstone."""
        ...

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """Held stripes in (address, descriptor hash) order after the given address || descriptor hash."""
        ...

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """Held stripes whose table names `node`."""
        ...

    def figures(self) -> StoreFigures:
        """Current counts, from memory."""
        ...

    @property
    def broken(self) -> str:
        """Why the store takes no more writes; '' while it is well."""
        ...


async def settled(start: Callable[[Answer[T]], None]) -> T:
    """Await one store answer: `await settled(lambda answer: store.get(address, hash, answer))`. Raises its error."""
    event = trio.Event()
    box: list[T | LockboxError] = []

    def answer(result: T | LockboxError) -> None:
        box.append(result)
        event.set()

    start(answer)
    await event.wait()
    result = box[0]
    if isinstance(result, LockboxError):
        raise result
    return result


class Workers(Protocol):
    """Where long computations run: threads under a limiter in the daemon, inline in a simulation."""

    async def run(self, fn: Callable[[], T]) -> T:
        """The result of `fn`; never call it for work under 1 ms."""
        ...


class Entropy(Protocol):
    """Key bytes and nonces, nothing else."""

    def fill(self, buffer: bytearray | memoryview) -> None:
        """Overwrite the whole buffer with unpredictable bytes."""
        ...


class WallClock(Protocol):
    """Wall time, only for what is persisted or signed."""

    def now_unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...


class KeyStore(Protocol):
    """A private key that may never leave its home: file, PKCS#11 token, TPM."""

    async def public_key(self) -> bytes:
        """SPKI DER."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """ECDSA-P256-SHA256 signature, DER. KeyStoreError."""
        ...


def entries_of(holders: Iterable[tuple[int, bytes]], sequence: int) -> tuple[HolderEntry, ...]:
    """Holder table lines of (index, node id) pairs with one sequence."""
    return tuple(HolderEntry(index, node, sequence) for index, node in holders)
