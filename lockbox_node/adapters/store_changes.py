"""What each write does to the rows: put, merge of tables, renewal, quarantine, note; the rest is store_garbage.

Used by the writer alone, inside a transaction that it opened; a LockboxError refuses the request, and comes
before its first row is written. `careful` is set after a page failed its checksum: old bodies then stay where they are,
since touching the damaged page would fail again. The rulings are those of core.slots; the rows only carry them out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_books import Books
from lockbox_node.adapters.store_files import BigFiles, name_of
from lockbox_node.adapters.store_garbage import Found, Garbage, found_at
from lockbox_node.adapters.store_names import Names
from lockbox_node.adapters.store_requests import (
    Bury,
    Digests,
    Drop,
    EmptyTrash,
    Expire,
    Merge,
    Note,
    Put,
    Quarantine,
    Renew,
    Write,
)
from lockbox_node.adapters.store_rows import (
    INSERT_PART,
    PARTS_AT,
    DamagedRow,
    PartRow,
    pack_entries,
    pack_head,
    pack_note,
    pack_signed,
    unpack_entries,
    unpack_signed,
    verified_head,
)
from lockbox_node.core.repair import possible
from lockbox_node.core.slots import (
    Ruling,
    Standing,
    Verdict,
    judge_put,
    merge_entries,
    quota_exceeded,
    refusal_of,
    store_full,
)
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError, RequestRefused, ShardMissing
from lockbox_node.ports import Merged, PutOutcome, StripePart, WallClock
from protocol.errors import ErrorCode
from protocol.messages import SIBLINGS_MAX, BucketDigest, HolderEntry, HolderTable, Signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from lockbox_node.core.storage_params import StoreParams

# bool: whether a quarantine changed anything; int: how many rows a bounded step changed
Result = PutOutcome | Merged | bool | int | None | list[BucketDigest] | LockboxError


_ALONE = PutOutcome(())
TOMBSTONE_BYTES = 512  # about; of those beyond their number, or who puts and deletes in turn would fill the disk


def is_big(request: Put, params: StoreParams) -> bool:
    """Whether the part gets a file of its own."""
    return request.shard_bytes > params.inside_bytes_max


def with_lease_of(row: PartRow, part: StripePart) -> StripePart:
    """The part with the lease of the row that it mends, where that is the longer one."""
    if row.lease <= part.lease_until_unix_s:
        return part
    return replace(part, lease_until_unix_s=row.lease, renewal=unpack_signed(row.packed_renewal))


class Changes:
    """The rows of one store. `room_bytes` = what may still be written, set anew for each group."""

    def __init__(self, connection: apsw.Connection, files: BigFiles, params: StoreParams, clock: WallClock) -> None:
        self.room_bytes = 0
        self.books = Books(connection)
        self._connection = connection
        self._files = files
        self._params = params
        self._clock = clock
        self.names = Names(connection)
        self._garbage = Garbage(connection, self.books, self.names, params, clock)

    def perform(self, request: Write, rid: int | None, *, careful: bool) -> Result:
        """Carry out one request; `rid` names the file that was written for a large part."""
        match request:
            case Put():
                return self._put(request, rid, careful=careful)
            case Merge():
                return self._merge_all(request)
            case Renew():
                self._renew(request)
            case Bury():
                self._garbage.bury(request, careful=careful)
            case Drop():
                self._garbage.drop(request, careful=careful)
            case Expire():
                return self._garbage.expire(request)
            case EmptyTrash():
                return self._garbage.empty_trash(request, careful=careful)
            case Quarantine():
                return self._quarantine(request)
            case Digests():
                return self.books.digests()
            case Note():
                self._connection.execute(
                    "INSERT OR REPLACE INTO note VALUES (?, ?)", (request.name, pack_note(request.value))
                )
        return None

    def judge(self, request: Put, found: Found) -> Ruling:
        """The ruling on a put where `found` stands."""
        part = request.part
        return judge_put(
            [Standing(row.version, row.hash, row.index, bool(row.corrupt)) for row in found.rows],
            None if found.tombstone is None else found.tombstone[0],
            part.version,
            part.descriptor_hash,
            part.index,
            request.replaces,
        )

    def take_rid(self) -> int:
        """A row id that was never used."""
        self.books.next_rid += 1
        return self.books.next_rid - 1

    def admit(self, request: Put, ruling: Ruling, found: Found) -> None:
        """Take the room for a part that will be written. StoreFull, QuotaExceeded."""
        size, owner = request.payload_bytes, request.owner
        tally, params = self.books.tally, self._params
        tombstones = TOMBSTONE_BYTES * max(0, tally.tombstones - params.tombstones_max)
        if size > min(self.room_bytes, params.capacity_bytes - tally.logical_bytes - tombstones):
            raise store_full()
        if ruling.verdict is not Verdict.MEND:
            replaced = [row for row in found.rows if row.hash in ruling.removes and row.owner == owner.id]
            freed = sum(row.logical_bytes for row in replaced)
            if self.books.used_bytes(owner.id) - freed + size > owner.quota_bytes:
                raise quota_exceeded(owner.quota_bytes)
        self.room_bytes -= size

    def _put(self, request: Put, rid: int | None, *, careful: bool) -> PutOutcome:
        part = request.part
        found = found_at(self._connection, part.address)
        ruling = self.judge(request, found)
        entries = merge_entries(part.entries)
        by_hash = {row.hash: row for row in found.rows}
        if ruling.writes:
            if rid is None and is_big(request, self._params):
                raise LockboxError("what stands here just changed", "try again", ErrorCode.BUSY)
            if rid is None:
                self.admit(request, ruling, found)
            owner = request.owner.id
            for descriptor_hash in ruling.removes:
                old = by_hash.pop(descriptor_hash)
                if descriptor_hash == part.descriptor_hash:
                    entries, owner = merge_entries(entries, old.entries), old.owner
                    part = with_lease_of(old, part)
                self._garbage.remove(old, careful=careful)
            if part.descriptor_hash in found.pointers:
                entries = merge_entries(entries, self._take_pointer(part.address, part.descriptor_hash))
            self._insert(request, part, entries, owner, self.take_rid() if rid is None else rid)
        elif ruling.verdict is Verdict.HELD:
            self._merge_into(by_hash[part.descriptor_hash], entries)
            self._lengthen(by_hash[part.descriptor_hash], part.lease_until_unix_s, part.renewal)
        else:
            raise self._refusal(found, ruling, by_hash)
        if not by_hash:
            return _ALONE
        beside = sorted(by_hash.values(), key=lambda row: row.hash)
        siblings = (
            self._descriptor(row) for row in beside if row.version == part.version and row.hash != part.descriptor_hash
        )
        return PutOutcome(tuple(sibling for sibling in siblings if sibling is not None))

    def _refusal(self, found: Found, ruling: Ruling, by_hash: dict[bytes, PartRow]) -> RequestRefused:
        if ruling.proof is not None:
            return refusal_of(ruling, self._descriptor(by_hash[ruling.proof]))
        return refusal_of(ruling, None if found.tombstone is None else found.tombstone[1])

    def _insert(self, request: Put, part: StripePart, entries: tuple[HolderEntry, ...], owner: bytes, rid: int) -> None:
        big = is_big(request, self._params)
        shard_bytes = len(part.shards[0]) if part.shards else 0
        row = PartRow(
            rid, part.address, part.descriptor_hash, part.version, part.tier, part.lease_until_unix_s, part.index,
            0, int(big), len(part.shards), shard_bytes, request.payload_bytes, pack_entries(entries),
            -1, owner, pack_signed(part.renewal),
        )  # fmt: skip
        self._connection.execute(f"INSERT {INSERT_PART}", row.columns)
        inside = b"" if big else b"".join(part.shards)
        self._connection.execute("INSERT INTO body VALUES (?, ?, ?)", (rid, pack_head(part), inside))
        self.books.came(row)

    def _renew(self, request: Renew) -> None:
        key = (request.address, request.descriptor_hash)
        found = self._connection.execute(f"{PARTS_AT} AND hash = ?", key).get
        if found is None:
            raise ShardMissing("this part is not here", "renew it at its holders")
        self._lengthen(PartRow(*found), request.lease_until_unix_s, request.renewal)

    def _lengthen(self, row: PartRow, lease_until_unix_s: int, renewal: Signed | None) -> None:
        """A longer lease takes a part out of trash; a shorter one changes nothing."""
        if lease_until_unix_s <= row.lease or renewal is None:
            return
        if row.trashed >= 0:
            self.books.recovered(row)
        self._connection.execute(
            "UPDATE part SET lease = ?, renewal = ?, trashed = -1 WHERE rid = ?",
            (lease_until_unix_s, pack_signed(renewal), row.rid),
        )

    # Tables, quarantine

    def _merge_all(self, request: Merge) -> Merged:
        """Merge each table; what stands against it is for the teller to learn."""
        tombstones: dict[bytes, Signed] = {}
        newer: dict[bytes, Signed] = {}
        held: set[bytes] = set()
        over: set[bytes] = set()
        for table, may_point in [*((t, True) for t in request.tables), *((t, False) for t in request.held_only)]:
            found = found_at(self._connection, table.address)
            if found.tombstone is not None and table.version <= found.tombstone[0]:
                tombstones[table.address] = found.tombstone[1]
                over.add(table.descriptor_hash)
                continue
            row = next((row for row in found.rows if row.hash == table.descriptor_hash), None)
            if row is not None:
                if row.trashed < 0:
                    held.add(row.hash)
                self._merge_into(row, table.entries, first=request.first)
            elif (newest := self._replaced_by(table, found.rows)) is not None:
                newer[table.descriptor_hash] = newest
                over.add(table.descriptor_hash)
            elif may_point:
                self._point(table)
        return Merged(tuple(tombstones.values()), tuple(newer.values()), frozenset(held), frozenset(over))

    def _replaced_by(self, table: HolderTable, standing: Sequence[PartRow]) -> Signed | None:
        """The descriptor held here that replaces the slot of a told table."""
        for row in standing:
            if row.version > table.version:
                packed = self._connection.execute("SELECT head FROM body WHERE rid = ?", (row.rid,)).get
                try:
                    head, descriptor = verified_head(row, packed or b"")
                except DamagedRow:
                    continue
                if table.descriptor_hash in descriptor.replaces:
                    return head.descriptor
        return None

    def _point(self, table: HolderTable) -> None:
        execute, key = self._connection.execute, (table.address, table.descriptor_hash)
        now = self._clock.now_unix_s()
        until = int(now + self._params.pointer_ttl_s)
        known = execute("SELECT entries, until FROM pointer WHERE address = ? AND hash = ?", key).get
        if known is None:
            beside = int(execute("SELECT count(*) FROM pointer WHERE address = ?", (table.address,)).get)
            tally, params = self.books.tally, self._params
            crowded = tally.pointers >= params.pointers_max or tally.tombstones > params.tombstones_max
            if beside >= SIBLINGS_MAX or crowded or self.room_bytes <= 0:
                return  # a pointer is a help, not a duty: others have it
            entries = pack_entries(merge_entries(table.entries))
            execute("INSERT INTO pointer VALUES (?, ?, ?, ?, ?)", (*key, table.version, entries, until))
            self.books.tally.pointers += 1
            return
        old = () if known[1] <= now else unpack_entries(known[0])
        merged = merge_entries(old, table.entries)
        if merged != old or until - known[1] >= self._params.pointer_renew_s:
            execute(
                "UPDATE pointer SET entries = ?, until = ? WHERE address = ? AND hash = ?",
                (pack_entries(merged), until, *key),
            )

    def _merge_into(self, row: PartRow, entries: Sequence[HolderEntry], *, first: bool = False) -> None:
        old, entries = row.entries, possible(entries, tier_numbered(row.tier).n)
        merged = merge_entries(entries, old) if first else merge_entries(old, entries)
        if merged == old:
            return
        self._connection.execute("UPDATE part SET entries = ? WHERE rid = ?", (pack_entries(merged), row.rid))
        self.names.changed(row.rid, old, merged)

    def _take_pointer(self, address: bytes, descriptor_hash: bytes) -> tuple[HolderEntry, ...]:
        """The pointer's table, which the part takes over; nothing when its time is over."""
        sql = "DELETE FROM pointer WHERE address = ? AND hash = ? RETURNING entries, until"
        row = self._connection.execute(sql, (address, descriptor_hash)).get
        self.books.tally.pointers -= 1
        return unpack_entries(row[0]) if row[1] > self._clock.now_unix_s() else ()

    def _quarantine(self, request: Quarantine) -> bool:
        sql = "UPDATE part SET corrupt = 1 WHERE rid = ? AND corrupt = 0 RETURNING big"
        big = self._connection.execute(sql, (request.rid,)).get
        if big is None:
            return False
        self.books.tally.corrupt += 1
        if big:
            self._files.quarantine(name_of(request.address, request.rid))
        return True

    def _descriptor(self, row: PartRow) -> Signed | None:
        """The signed descriptor of a part, None when its row is damaged."""
        try:
            return verified_head(row, self._connection.execute("SELECT head FROM body WHERE rid = ?", (row.rid,)).get)[
                0
            ].descriptor
        except DamagedRow:
            return None
