"""What a ShardStore in memory keeps, and its rulings: no queue, no disk; refusals are raised.

The rulings are those of core.slots, as in the adapter; here stands only what SQL does there. `damage_met` decides what
becomes of a part that was found damaged: MemoryStore marks it at once, SimStore by a write, as the adapter does.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import TYPE_CHECKING

from lockbox_node.core.repair import is_named, possible
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
from lockbox_node.core.tiers import tier_numbered
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
from simulations.kept import Kept, Key, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.storage_params import StoreParams


class MemoryParts:
    """What stands in a store without a disk of its own: the synchronous half."""

    def __init__(self, params: StoreParams, clock: WallClock) -> None:
        self.damage_met: Callable[[Kept], None] = lambda _kept: None  # by a read, each time until it is quarantined
        self.notes: dict[str, bytes] = {}
        self.full = False  # the disk has no room for more, whatever the capacity says
        self._params = params
        self._clock = clock
        self._parts: dict[Key, Kept] = {}
        self._hashes: dict[Address, list[DescriptorHash]] = {}  # of `_parts`, by address, in order
        self._used: dict[bytes, int] = {}  # bytes by owner
        self._pointers: dict[bytes, dict[bytes, tuple[HolderTable, float]]] = {}  # by address and hash, until when
        self._tombs: dict[bytes, tuple[int, Signed, int]] = {}  # version, proof, until

    def copy(self) -> MemoryParts:
        """The same content, from now on apart."""
        other = MemoryParts(self._params, self._clock)
        other.notes, other.full, other._used = dict(self.notes), self.full, dict(self._used)
        other._parts = {key: replace(kept) for key, kept in self._parts.items()}
        other._hashes = {address: list(hashes) for address, hashes in self._hashes.items()}
        other._pointers = {address: dict(tables) for address, tables in self._pointers.items()}
        other._tombs = dict(self._tombs)
        return other

    def figures(self) -> StoreFigures:
        """Current counts."""
        size = sum(self._used.values())
        trash = [kept.size for kept in self._parts.values() if kept.trashed_at_s >= 0]
        return StoreFigures(
            len(self._parts),
            sum(len(kept.part.shards) for kept in self._parts.values()),
            size - sum(trash),
            size,
            sum(kept.corrupt for kept in self._parts.values()),
            self.pointers(),
            len(self._tombs),
            len(trash),
            sum(trash),
        )

    def tombstones(self) -> dict[bytes, tuple[int, int]]:
        """Which version, and all below it, is buried at which address, and until which unix time."""
        return {address: (version, until) for address, (version, _, until) in self._tombs.items()}

    def pointers(self) -> int:
        """How many there are."""
        return sum(map(len, self._pointers.values()))

    def every(self) -> tuple[Kept, ...]:
        """Everything, in the order in which it came."""
        return tuple(self._parts.values())

    def kept(self) -> list[Kept]:
        """Everything, in the order of the keys."""
        return [kept for _, kept in sorted(self._parts.items())]

    def standing(self, address: Address) -> list[Kept]:
        """What is kept at one address, in the order of the hashes."""
        return [self._parts[address, descriptor_hash] for descriptor_hash in self._hashes.get(address, ())]

    # Damage

    def corrupt(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Flip a bit of the last stored shard."""
        kept = self._parts[address, descriptor_hash]
        kept.flip(len(kept.part.shards) - 1, len(kept.part.shards[-1]) // 2, 0)

    def spoil_head(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Neither descriptor nor slots can be read any more."""
        self._parts[address, descriptor_hash].headless = True

    def quarantine(self, kept: Kept) -> bool:
        """Mark a part that a read found damaged; False when it is marked already, or replaced or gone meanwhile."""
        if kept.corrupt or self._parts.get(kept.key) is not kept:
            return False
        kept.corrupt = True
        return True

    def find(self, address: Address, descriptor_hash: DescriptorHash) -> Kept | None:
        """The part as it is kept, unverified."""
        return self._parts.get((address, descriptor_hash))

    # ShardStore

    def drop(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Remove one part; none there is fine."""
        if (address, descriptor_hash) in self._parts:
            self._remove((address, descriptor_hash))

    def summaries(self, after: bytes, limit: int) -> list[StripeSummary]:
        """A page."""
        keys = sorted(key for key in self._parts if key > (after[:32], after[32:]))
        return [self._parts[key].summary for key in keys[: min(limit, self._params.scan_rows_max)]]

    def held_with(self, node: NodeId) -> list[StripeSummary]:
        """Those whose table names the node."""
        return [
            kept.summary
            for _, kept in sorted(self._parts.items())
            if any(entry.node == node for entry in kept.part.entries)
        ]

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner) -> PutOutcome:
        """Store one part, merge it into its equal, or refuse it."""
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
            self._admit(part, ruling, owner)
            self._write(part, ruling, owner)
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

    def _write(self, part: StripePart, ruling: Ruling, owner: Owner) -> None:
        key = (part.address, part.descriptor_hash)
        old = self._parts.get(key)
        pointer = self._take_pointer(key)
        for removed in ruling.removes:
            self.drop(part.address, DescriptorHash(removed))
        tables = [part.entries, old.part.entries if old else ()]
        if pointer is not None and pointer[1] > self._clock.now_unix_s():
            tables.append(tuple(pointer[0].entries))
        if old is not None and old.part.lease_until_unix_s > part.lease_until_unix_s:
            part = replace(part, lease_until_unix_s=old.part.lease_until_unix_s, renewal=old.part.renewal)
        self._add(Kept(replace(part, entries=merge_entries(*tables)), owner.id if old is None else old.owner))

    def _admit(self, part: StripePart, ruling: Ruling, owner: Owner) -> None:
        size = size_of(part)
        if self.full or size > self._params.capacity_bytes - sum(self._used.values()):
            raise store_full()
        removed = [self._parts[part.address, DescriptorHash(gone)] for gone in ruling.removes]
        used = self._used.get(owner.id, 0) - sum(kept.size for kept in removed if kept.owner == owner.id)
        if ruling.verdict is not Verdict.MEND and used + size > owner.quota_bytes:
            raise quota_exceeded(owner.quota_bytes)

    def _add(self, kept: Kept) -> None:
        assert kept.key not in self._parts
        self._parts[kept.key] = kept
        bisect.insort(self._hashes.setdefault(kept.part.address, []), kept.part.descriptor_hash)
        self._used[kept.owner] = self._used.get(kept.owner, 0) + kept.size

    def _remove(self, key: Key) -> None:
        kept = self._parts.pop(key)
        self._hashes[key[0]].remove(key[1])
        if not self._hashes[key[0]]:
            del self._hashes[key[0]]
        self._used[kept.owner] -= kept.size
        if not self._used[kept.owner]:
            del self._used[kept.owner]

    def _take_pointer(self, key: Key) -> tuple[HolderTable, float] | None:
        tables = self._pointers.get(key[0], {})
        pointer = tables.pop(key[1], None)
        if pointer is not None and not tables:
            del self._pointers[key[0]]
        return pointer

    def renew(self, renewal: Signed, key: Key, lease_until_unix_s: int) -> None:
        """Lengthen a lease; out of trash with it."""
        kept = self._parts.get(key)
        if kept is None:
            raise ShardMissing("this part is not here", "renew it at its holders")
        if lease_until_unix_s > kept.part.lease_until_unix_s:
            kept.part = replace(kept.part, renewal=renewal, lease_until_unix_s=lease_until_unix_s)
            kept.trashed_at_s = -1

    def expire(self, now_unix_s: float, uptime_s: int) -> int:
        """Some ended leases go to trash, some tombstones are forgotten."""
        limit = self._params.idle_rows_max
        over = [kept for kept in self.kept() if kept.trashed_at_s < 0 and kept.part.lease_until_unix_s <= now_unix_s][
            :limit
        ]
        for kept in over:
            kept.trashed_at_s = uptime_s
        forgotten = [address for address, tomb in sorted(self._tombs.items()) if tomb[2] <= now_unix_s][:limit]
        for address in forgotten:
            del self._tombs[address]
        return len(over) + len(forgotten)

    def empty_trash(self, before_uptime_s: float) -> int:
        """Some of the trash goes for good."""
        gone = [kept.key for kept in self.kept() if 0 <= kept.trashed_at_s <= before_uptime_s]
        for key in gone[: self._params.idle_rows_max]:
            self._remove(key)
        return len(gone[: self._params.idle_rows_max])

    def check(self, after: bytes, limit: int) -> Checked:
        """One step of a scrub."""
        keys = sorted(key for key in self._parts if key > (after[:32], after[32:]))
        parts, size, corrupt = 0, 0, 0
        for address, descriptor_hash in keys[:limit]:
            after = address + descriptor_hash
            parts += 1
            size += self._parts[address, descriptor_hash].size
            try:
                self.get(address, descriptor_hash)
            except ShardCorrupt:
                corrupt += 1
            if size >= self._params.check_bytes_max:
                break
        return Checked(after, parts, size, corrupt, len(keys) < limit and parts == len(keys))

    def digests(self, node: NodeId | None) -> list[BucketDigest]:
        """Of every bucket that is not empty; with `node`, over what its name stands in."""
        found: dict[int, list[int]] = {}
        for kept in self._parts.values():
            part = kept.part
            if kept.trashed_at_s < 0 and (node is None or is_named(part.entries, node)):
                bucket = found.setdefault(bucket_of(part.address), [0, 0])
                bucket[0] += 1
                bucket[1] += held_digest(part.address, part.version, part.descriptor_hash)
        return [BucketDigest(bucket, parts, sum_bytes(total)) for bucket, (parts, total) in sorted(found.items())]

    def get(self, address: Address, descriptor_hash: DescriptorHash) -> StripePart:
        """The part, each shard compared with what the owner signed."""
        kept = self._parts.get((address, descriptor_hash))
        if kept is None:
            raise ShardMissing("this part is not here", "ask the other holders")
        if not kept.corrupt:
            descriptor = open_descriptor(kept.part.descriptor)
            ids = [group.shard_ids[kept.part.index] for group in descriptor.groups]
            roots = [merkle.root(shard, descriptor.leaf_bytes) for shard in kept.part.shards]
            if roots == ids and not kept.headless:
                return kept.part
            self.damage_met(kept)
        raise corrupt_part()

    def look(self, address: Address) -> SlotView:
        """What stands at the address, without shards."""
        standing = sorted(self.standing(address), key=lambda kept: (-kept.part.version, kept.part.descriptor_hash))
        now = self._clock.now_unix_s()
        pointers = [
            table
            for descriptor_hash, (table, until) in self._pointers.get(address, {}).items()
            if until > now and (address, descriptor_hash) not in self._parts
        ]
        pointers.sort(key=lambda table: (-table.version, table.descriptor_hash))
        tomb = self._tombs.get(address)
        return SlotView(
            tuple(replace(kept.part, shards=()) for kept in standing if not kept.headless),
            tuple([kept.table for kept in standing] + pointers)[:SIBLINGS_MAX],
            None if tomb is None else tomb[1],
        )

    def merge_all(
        self, tables: Sequence[HolderTable], held_only: Sequence[HolderTable], *, first: bool = False
    ) -> Merged:
        """Merge each table; what stands against it is for the teller to learn."""
        tombstones: dict[bytes, Signed] = {}
        newer: dict[bytes, Signed] = {}
        held: set[bytes] = set()
        over: set[bytes] = set()
        for table, may_point in [*((t, True) for t in tables), *((t, False) for t in held_only)]:
            tomb = self._tombs.get(table.address)
            kept = self.find(Address(table.address), DescriptorHash(table.descriptor_hash))
            if tomb is not None and table.version <= tomb[0]:
                tombstones[table.address] = tomb[1]
                over.add(table.descriptor_hash)
            elif kept is not None:
                if kept.trashed_at_s < 0:
                    held.add(table.descriptor_hash)
                self.merge_into(kept, tuple(table.entries), first=first)
            elif (newest := self._replaced_by(table)) is not None:
                newer[table.descriptor_hash] = newest
                over.add(table.descriptor_hash)
            elif may_point:
                self._point(table)
        return Merged(tuple(tombstones.values()), tuple(newer.values()), frozenset(held), frozenset(over))

    def _replaced_by(self, table: HolderTable) -> Signed | None:
        for kept in self.standing(Address(table.address)):
            signed = kept.part.descriptor
            if kept.part.version > table.version and table.descriptor_hash in open_descriptor(signed).replaces:
                return signed
        return None

    def _point(self, table: HolderTable) -> None:
        now = self._clock.now_unix_s()
        beside = self._pointers.get(table.address, {})
        known = beside.get(table.descriptor_hash)
        if known is None:
            crowded = self.pointers() >= self._params.pointers_max
            if len(beside) >= SIBLINGS_MAX or crowded or self.full:
                return
        old = tuple(known[0].entries) if known is not None and known[1] > now else ()
        merged = HolderTable(
            table.address, table.version, table.descriptor_hash, list(merge_entries(old, table.entries))
        )
        self._pointers.setdefault(table.address, {})[table.descriptor_hash] = (merged, now + self._params.pointer_ttl_s)

    def forget_pointers(self) -> None:
        """Those whose time is over go."""
        now = self._clock.now_unix_s()
        for address, tables in list(self._pointers.items()):
            live = {descriptor_hash: told for descriptor_hash, told in tables.items() if told[1] > now}
            if live:
                self._pointers[address] = live
            else:
                del self._pointers[address]

    def merge_into(self, kept: Kept, entries: Sequence[HolderEntry], *, first: bool = False) -> None:
        """Merge told lines into a held part."""
        old = kept.part.entries
        entries = possible(entries, tier_numbered(kept.part.tier).n)
        kept.part = replace(kept.part, entries=merge_entries(entries, old) if first else merge_entries(old, entries))

    def delete(self, tombstone: Signed, address: Address, version: int, until_unix_s: int) -> None:
        """Remove all versions up to `version`; the tombstone stays, and never falls."""
        known = self._tombs.get(address)
        gone = [kept for kept in self.standing(address) if kept.part.version <= version]
        leases = [kept.part.lease_until_unix_s + TOMBSTONE_MARGIN_S for kept in gone]
        until = max([until_unix_s, *leases, 0 if known is None else known[2]])
        if known is not None and known[0] >= version:
            self._tombs[address] = (*known[:2], until)
            return
        for kept in gone:
            self._remove(kept.key)
        tables = self._pointers.pop(address, {})
        if newer := {key: told for key, told in tables.items() if told[0].version > version}:
            self._pointers[address] = newer
        self._tombs[address] = (version, tombstone, until)
