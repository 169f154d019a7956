"""The seam: seven ports between the node and the world.

Everything above runs unchanged in the daemon (adapters) and in a seeded simulation (fakes); both pass the same
contract suites in tests/contracts. The store answers through callbacks, so that one writer task commits what is
queued in one transaction and no task per request exists: docs/decisions/0001-store-callbacks.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from lockbox_node.errors import LockboxError
from protocol.messages import BucketDigest, HolderEntry, HolderTable, Signed

if TYPE_CHECKING:
    from protocol.ids import Address, DescriptorHash, NodeId

T = TypeVar("T")
NOTE_BYTES_MAX = 4096
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
    renewal: Signed | None = None  # the newest one; the lease is the later of its own and the descriptor's


@dataclass(frozen=True, slots=True)
class Owner:
    """Who is charged for a part: the TLS peer that brought it, and how much it may keep here."""

    id: bytes
    quota_bytes: int


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
    lease_until_unix_s: int = 0
    trashed: bool = False  # its lease is over: still served, no longer repaired


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
class Merged:
    """What a merge of holder tables met: it is for the teller to learn from."""

    tombstones: tuple[Signed, ...] = ()  # that cover told tables
    newer: tuple[Signed, ...] = ()  # descriptors held here that replace a told slot
    held: frozenset[bytes] = frozenset()  # descriptor hashes of told tables whose slot is held here, not in trash,
    over: frozenset[bytes] = frozenset()  # and of those that a tombstone covers or a newer version replaces


@dataclass(frozen=True, slots=True)
class Checked:
    """One step of a scrub: what was verified, and the key (address || descriptor hash) to go on after."""

    after: bytes
    parts: int
    checked_bytes: int
    corrupt: int
    done: bool


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Counts and bytes for `status` and metrics. logical + trash = what the parts hold; disk = what the store takes."""

    stripes: int  # those in trash too
    shards: int
    logical_bytes: int  # without trash
    disk_bytes: int  # database, WAL, large files, quarantine; without the ballast
    corrupt: int
    pointers: int
    tombstones: int
    trash_stripes: int = 0
    trash_bytes: int = 0
    reserved_bytes: int = 0  # the ballast, given up when the disk is full
    salvaged: int = 0  # how often a damaged database was rebuilt since the start
    lost: int = 0  # parts and tombstones that it cost


class ShardStore(Protocol):
    """Durable stripes. Every method queues and returns; the answer comes once, when it is durable or read."""

    on_corrupt: Callable[[Address, DescriptorHash], None]  # set by who repairs; called when a read found damage
    on_broken: Callable[[str], None]  # set by who announces us; called once, when the store became read-only, with why
    # set by who compares with the siblings; called when damage took more than is known by name: how much, if that is
    # known, of parts and tombstones
    on_lost: Callable[[int], None]

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """Store (or replace in place) one part. Durable before the answer.

        In the same transaction: STALE (RequestRefused, with the signed proof) when a tombstone covers the version or
        a higher version stands that this one does not replace; lower versions named in `replaces` are removed; a
        corrupt part of the same identity is replaced and keeps its owner; an equal part is answered as stored.
        StoreFull or QuotaExceeded before a byte is written.
        """
        ...

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """The part with its shards, each verified against its id in this call. ShardMissing, ShardCorrupt."""
        ...

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """What stands at the address, without shard bytes."""
        ...

    def merge(
        self,
        tables: Sequence[HolderTable],
        held_only: Sequence[HolderTable],
        answer: Answer[Merged],
        *,
        first: bool = False,
    ) -> None:
        """Merge holder tables: `tables` into held parts, else as pointers (24 h); `held_only` into held parts alone.

        Higher sequence wins per (index, node). Of a full table those lines stay that stood before; with `first`, which
        is for what we did ourselves, those that are told: what others say never makes us forget our own repairs.
        """
        ...

    def renew(
        self,
        renewal: Signed,
        address: Address,
        descriptor_hash: DescriptorHash,
        lease_until_unix_s: int,
        answer: Answer[None],
    ) -> None:
        """Lengthen the lease of a held part, never shorten it; out of trash with it. ShardMissing when it is not held.

        `renewal` is kept for those who take the part over later.
        """
        ...

    def delete(
        self, tombstone: Signed, address: Address, version: int, until_unix_s: int, answer: Answer[None]
    ) -> None:
        """Remove all versions up to `version` and keep the tombstone at least until then, or the parts' leases."""
        ...

    def drop(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[None]) -> None:
        """Remove one part that its owner has replaced; none there is fine."""
        ...

    def expire(self, now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        """Move parts whose lease is over to trash, stamped with the uptime; forget tombstones whose time is over.

        A bounded step: answers how many rows it changed, 0 = nothing is left to do.
        """
        ...

    def empty_trash(self, before_uptime_s: float, answer: Answer[int]) -> None:
        """Remove for good what was stamped at or before that uptime: a bounded step, as `expire`."""
        ...

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """Held stripes in (address, descriptor hash) order after the given address || descriptor hash."""
        ...

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """Held stripes whose table names `node`."""
        ...

    def check(self, after: bytes, limit: int, answer: Answer[Checked]) -> None:
        """Verify the next `limit` parts in (address, descriptor hash) order: one step of a scrub.

        What is damaged goes to quarantine and is told by `on_corrupt`, as when it is read.
        """
        ...

    def digests(self, answer: Answer[list[BucketDigest]]) -> None:
        """The digest of every bucket that is not empty, in order, without trash: kept with each change."""
        ...

    def digests_with(self, node: NodeId, answer: Answer[list[BucketDigest]]) -> None:
        """The same over the parts alone whose table says that `node` holds an index: counted now, by a range scan."""
        ...

    def note(self, name: str, value: bytes, answer: Answer[None]) -> None:
        """Keep a small value under a name of ours; durable before the answer. Raises LockboxError if it is too long."""
        ...

    @property
    def notes(self) -> Mapping[str, bytes]:
        """What was noted, from memory."""
        ...

    def figures(self) -> StoreFigures:
        """Current counts, from memory."""
        ...

    @property
    def broken(self) -> str:
        """Why the store takes no more writes; '' while it is well."""
        ...


class Journal(Protocol):
    """Short records of one length, kept for some minutes, so that a restart does not forget them."""

    @property
    def whole(self) -> bool:
        """False when the last records of the life before this may be missing: the machine itself had stopped."""
        ...

    def append(self, record: bytes) -> None:
        """Kept when this returns, unless the machine stops. Never raises: what cannot be kept makes it not `whole`."""
        ...

    def kept(self) -> list[bytes]:
        """What earlier lives kept, oldest first; records that are minutes old may be missing."""
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


def fitting_note(value: bytes) -> bytes:
    """The value of a note. LockboxError when it is longer than a store keeps."""
    if len(value) > NOTE_BYTES_MAX:
        raise LockboxError(f"a note of {len(value)} bytes", f"at most {NOTE_BYTES_MAX}; keep less of it")
    return value


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
