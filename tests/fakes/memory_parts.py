"""What a ShardStore in memory keeps, and its rulings: no queue, no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from lockbox_node.core.repair import is_named
from lockbox_node.core.slots import (
    TOMBSTONE_MARGIN_S,
    Ruling,
    Standing,
    Verdict,
    corrupt_part,
    judge_put,
    merge_entries,
    quota_exceeded,
    refusal_of,
    store_full,
)
from lockbox_node.errors import ShardCorrupt, ShardMissing
from lockbox_node.ports import (
    Checked,
    Merged,
    Owner,
    PutOutcome,
    SlotView,
    StoreFigures,
    StripePart,
    StripeSummary,
    WallClock,
)
from protocol import merkle
from protocol.held import bucket_of, held_digest, sum_bytes
from protocol.ids import Address, DescriptorHash, NodeId
from protocol.messages import SIBLINGS_MAX, BucketDigest, HolderEntry, HolderTable, Signed
from protocol.records import open_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.storage_params import StoreParams

T = TypeVar("T")


@dataclass
class Kept:
    part: StripePart
    owner: bytes = b""
    corrupt: bool = False
    headless: bool = False  # neither descriptor nor slots can be read
    trashed_at_s: int = -1  # uptime; -1 = live


class MemoryParts:
    """What stands in a MemoryStore: the synchronous half; refusals are raised."""

    def __init__(self, params: StoreParams, clock: WallClock) -> None:
        self.on_corrupt: Callable[[Address, DescriptorHash], None] = lambda _address, _hash: None
        self.notes: dict[str, bytes] = {}
        self._params = params
        self._clock = clock
        self._parts: dict[tuple[bytes, bytes], Kept] = {}
        self._pointers: dict[tuple[bytes, bytes], tuple[HolderTable, float]] = {}
        self._tombs: dict[bytes, tuple[int, Signed, int]] = {}  # version, proof, until

    def figures(self) -> StoreFigures:
        """Current counts."""
        size = sum(_size(kept.part) for kept in self._parts.values())
        trash = [kept for kept in self._parts.values() if kept.trashed_at_s >= 0]
        trash_bytes = sum(_size(kept.part) for kept in trash)
        return StoreFigures(
            len(self._parts),
            sum(len(kept.part.shards) for kept in self._parts.values()),
            size - trash_bytes,
            size,
            sum(kept.corrupt for kept in self._parts.values()),
            len(self._pointers),
            len(self._tombs),
            len(trash),
            trash_bytes,
        )

    def corrupt(self, address: bytes, descriptor_hash: bytes) -> None:
        """Flip a bit of the last stored shard."""
        kept = self._parts[address, descriptor_hash]
        last = bytearray(kept.part.shards[-1])
        last[len(last) // 2] ^= 1
        kept.part = replace(kept.part, shards=(*kept.part.shards[:-1], bytes(last)))

    def spoil_head(self, address: bytes, descriptor_hash: bytes) -> None:
        self._parts[address, descriptor_hash].headless = True

    def drop(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Remove one part."""
        self._parts.pop((address, descriptor_hash), None)

    def summaries(self, after: bytes, limit: int) -> list[StripeSummary]:
        """A page."""
        keys = [key for key in sorted(self._parts) if key > (after[:32], after[32:])]
        return [_summary(self._parts[key]) for key in keys[: min(limit, self._params.scan_rows_max)]]

    def held_with(self, node: NodeId) -> list[StripeSummary]:
        """Those whose table names the node."""
        return [
            _summary(kept)
            for _, kept in sorted(self._parts.items())
            if any(entry.node == node for entry in kept.part.entries)
        ]

    def standing(self, address: bytes) -> list[Kept]:
        return [kept for key, kept in sorted(self._parts.items()) if key[0] == address]

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner) -> PutOutcome:
        standing = self.standing(part.address)
        tomb = self._tombs.get(part.address)
        ruling = judge_put(
            [
                Standing(kept.part.version, kept.part.descriptor_hash, kept.part.index, kept.corrupt)
                for kept in standing
            ],
            None if tomb is None else tomb[0],
            part.version,
            part.descriptor_hash,
            part.index,
            replaces,
        )
        key = (part.address, part.descriptor_hash)
        if ruling.writes:
            self.admit(part, ruling, owner)
            old = self._parts.get(key)
            pointer = self._pointers.pop(key, None)
            for removed in ruling.removes:
                del self._parts[part.address, DescriptorHash(removed)]
            tables = [part.entries, old.part.entries if old else ()]
            if pointer is not None and pointer[1] > self._clock.now_unix_s():
                tables.append(tuple(pointer[0].entries))
            if old is not None and old.part.lease_until_unix_s > part.lease_until_unix_s:
                part = replace(part, lease_until_unix_s=old.part.lease_until_unix_s, renewal=old.part.renewal)
            self._parts[key] = Kept(
                replace(part, entries=merge_entries(*tables)), owner.id if old is None else old.owner
            )
        elif ruling.verdict is Verdict.HELD:
            self.merge_into(self._parts[key], part.entries)
            if part.renewal is not None:
                self.renew(part.renewal, key, part.lease_until_unix_s)
        else:
            proof = self._parts[part.address, DescriptorHash(ruling.proof)].part.descriptor if ruling.proof else None
            raise refusal_of(ruling, proof if proof is not None or tomb is None else tomb[1])
        return PutOutcome(
            tuple(
                kept.part.descriptor
                for kept in self.standing(part.address)
                if kept.part.version == part.version and kept.part.descriptor_hash != part.descriptor_hash
            )
        )

    def admit(self, part: StripePart, ruling: Ruling, owner: Owner) -> None:
        if _size(part) > self._params.capacity_bytes - sum(_size(kept.part) for kept in self._parts.values()):
            raise store_full()
        used = sum(
            _size(kept.part)
            for (address, descriptor_hash), kept in self._parts.items()
            if kept.owner == owner.id and not (address == part.address and descriptor_hash in ruling.removes)
        )
        if ruling.verdict is not Verdict.MEND and used + _size(part) > owner.quota_bytes:
            raise quota_exceeded(owner.quota_bytes)

    def renew(self, renewal: Signed, key: tuple[bytes, bytes], lease_until_unix_s: int) -> None:
        kept = self._parts.get(key)
        if kept is None:
            raise ShardMissing("this part is not here", "renew it at its holders")
        if lease_until_unix_s > kept.part.lease_until_unix_s:
            kept.part = replace(kept.part, renewal=renewal, lease_until_unix_s=lease_until_unix_s)
            kept.trashed_at_s = -1

    def expire(self, now_unix_s: float, uptime_s: int) -> int:
        limit = self._params.idle_rows_max
        over = [
            kept
            for _, kept in sorted(self._parts.items())
            if kept.trashed_at_s < 0 and kept.part.lease_until_unix_s <= now_unix_s
        ][:limit]
        for kept in over:
            kept.trashed_at_s = uptime_s
        forgotten = [address for address, tomb in sorted(self._tombs.items()) if tomb[2] <= now_unix_s][:limit]
        for address in forgotten:
            del self._tombs[address]
        return len(over) + len(forgotten)

    def empty_trash(self, before_uptime_s: float) -> int:
        gone = [key for key, kept in sorted(self._parts.items()) if 0 <= kept.trashed_at_s <= before_uptime_s]
        for key in gone[: self._params.idle_rows_max]:
            del self._parts[key]
        return len(gone[: self._params.idle_rows_max])

    def check(self, after: bytes, limit: int) -> Checked:
        keys = [key for key in sorted(self._parts) if key > (after[:32], after[32:])]
        parts, size, corrupt = 0, 0, 0
        for address, descriptor_hash in keys[:limit]:
            after = address + descriptor_hash
            parts += 1
            size += _size(self._parts[address, descriptor_hash].part)
            try:
                self.get(Address(address), DescriptorHash(descriptor_hash))
            except ShardCorrupt:
                corrupt += 1
            if size >= self._params.check_bytes_max:
                break
        return Checked(after, parts, size, corrupt, len(keys) < limit and parts == len(keys))

    def digests(self, node: NodeId | None) -> list[BucketDigest]:
        found: dict[int, list[int]] = {}
        for kept in self._parts.values():
            part = kept.part
            if kept.trashed_at_s < 0 and (node is None or is_named(part.entries, node)):
                bucket = found.setdefault(bucket_of(part.address), [0, 0])
                bucket[0] += 1
                bucket[1] += held_digest(part.address, part.version, part.descriptor_hash)
        return [BucketDigest(bucket, parts, sum_bytes(total)) for bucket, (parts, total) in sorted(found.items())]

    def get(self, address: Address, descriptor_hash: DescriptorHash) -> StripePart:
        kept = self._parts.get((address, descriptor_hash))
        if kept is None:
            raise ShardMissing("this part is not here", "ask the other holders")
        if not kept.corrupt:
            descriptor = open_descriptor(kept.part.descriptor)
            ids = [group.shard_ids[kept.part.index] for group in descriptor.groups]
            roots = [merkle.root(shard, descriptor.leaf_bytes) for shard in kept.part.shards]
            if roots == ids and not kept.headless:
                return kept.part
            kept.corrupt = True
            self.on_corrupt(address, descriptor_hash)
        raise corrupt_part()

    def look(self, address: Address) -> SlotView:
        standing = sorted(self.standing(address), key=lambda kept: (-kept.part.version, kept.part.descriptor_hash))
        now = self._clock.now_unix_s()
        pointers = [
            table
            for key, (table, until) in sorted(self._pointers.items())
            if key[0] == address and until > now and key not in self._parts
        ]
        pointers.sort(key=lambda table: (-table.version, table.descriptor_hash))
        tomb = self._tombs.get(address)
        return SlotView(
            tuple(replace(kept.part, shards=()) for kept in standing if not kept.headless),
            tuple([_table(kept.part) for kept in standing] + pointers)[:SIBLINGS_MAX],
            None if tomb is None else tomb[1],
        )

    def merge_all(
        self, tables: Sequence[HolderTable], held_only: Sequence[HolderTable], *, first: bool = False
    ) -> Merged:
        tombstones: dict[bytes, Signed] = {}
        newer: dict[bytes, Signed] = {}
        held: set[bytes] = set()
        over: set[bytes] = set()
        for table, may_point in [*((t, True) for t in tables), *((t, False) for t in held_only)]:
            tomb = self._tombs.get(table.address)
            kept = self._parts.get((table.address, table.descriptor_hash))
            if tomb is not None and table.version <= tomb[0]:
                tombstones[table.address] = tomb[1]
                over.add(table.descriptor_hash)
            elif kept is not None:
                if kept.trashed_at_s < 0:
                    held.add(table.descriptor_hash)
                self.merge_into(kept, tuple(table.entries), first=first)
            elif (newest := self.replaced_by(table)) is not None:
                newer[table.descriptor_hash] = newest
                over.add(table.descriptor_hash)
            elif may_point:
                self.point(table)
        return Merged(tuple(tombstones.values()), tuple(newer.values()), frozenset(held), frozenset(over))

    def replaced_by(self, table: HolderTable) -> Signed | None:
        for kept in self.standing(table.address):
            signed = kept.part.descriptor
            if kept.part.version > table.version and table.descriptor_hash in open_descriptor(signed).replaces:
                return signed
        return None

    def point(self, table: HolderTable) -> None:
        key = (table.address, table.descriptor_hash)
        now = self._clock.now_unix_s()
        known = self._pointers.get(key)
        beside = sum(other[0] == table.address for other in self._pointers)
        if known is None and (beside >= SIBLINGS_MAX or len(self._pointers) >= self._params.pointers_max):
            return
        old = tuple(known[0].entries) if known is not None and known[1] > now else ()
        merged = HolderTable(
            table.address, table.version, table.descriptor_hash, list(merge_entries(old, table.entries))
        )
        self._pointers[key] = (merged, now + self._params.pointer_ttl_s)

    def merge_into(self, kept: Kept, entries: Sequence[HolderEntry], *, first: bool = False) -> None:
        old = kept.part.entries
        kept.part = replace(kept.part, entries=merge_entries(entries, old) if first else merge_entries(old, entries))

    def delete(self, tombstone: Signed, address: Address, version: int, until_unix_s: int) -> None:
        known = self._tombs.get(address)
        gone = [key for key, kept in self._parts.items() if key[0] == address and kept.part.version <= version]
        leases = [self._parts[key].part.lease_until_unix_s + TOMBSTONE_MARGIN_S for key in gone]
        until = max([until_unix_s, *leases, 0 if known is None else known[2]])
        if known is not None and known[0] >= version:
            self._tombs[address] = (*known[:2], until)
            return
        for key in gone:
            del self._parts[key]
        for key in [
            key for key, (table, _) in self._pointers.items() if key[0] == address and table.version <= version
        ]:
            del self._pointers[key]
        self._tombs[address] = (version, tombstone, until)


def _table(part: StripePart) -> HolderTable:
    return HolderTable(part.address, part.version, part.descriptor_hash, list(part.entries))


def _summary(kept: Kept) -> StripeSummary:
    part = kept.part
    return StripeSummary(
        part.address,
        part.version,
        part.descriptor_hash,
        part.tier,
        part.index,
        kept.corrupt,
        part.entries,
        part.lease_until_unix_s,
        kept.trashed_at_s >= 0,
    )


def _size(part: StripePart) -> int:
    return sum(len(piece) for piece in (*part.shards, *part.slots, part.descriptor.body))
