"""What each write does to the rows: put, merge of tables, tombstone, quarantine.

Used by the writer alone, inside a transaction that it opened; a LockboxError means that the request is refused and its
savepoint is rolled back. `careful` is set after a page failed its checksum: old bodies then stay where they are, since
touching the damaged page would fail again. The rulings are those of core.slots; the rows only carry them out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_files import BigFiles, name_of
from lockbox_node.adapters.store_rows import (
    PART_COLUMNS,
    Bury,
    DamagedRow,
    Merge,
    PartRow,
    Put,
    Quarantine,
    Write,
    logical_bytes,
    pack_entries,
    pack_head,
    prefixes,
    unpack_entries,
    verified_head,
)
from lockbox_node.core.slots import Ruling, Standing, Verdict, judge_put, merge_entries, refusal_of, store_full
from lockbox_node.errors import LockboxError, RequestRefused, StoreFull
from lockbox_node.ports import PutOutcome, StripePart, WallClock
from protocol.errors import ErrorCode
from protocol.messages import SIBLINGS_MAX, HolderEntry, HolderTable, Signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from lockbox_node.core.storage_params import StoreParams

Result = PutOutcome | bool | None | LockboxError  # bool: whether a quarantine changed anything
_PARTS = f"SELECT {PART_COLUMNS} FROM part WHERE address = ?"  # noqa: S608  # our column names
_TOMB = "SELECT version FROM tomb WHERE address = ?"


@dataclass(slots=True)
class Tally:
    """The counters of the meta row: written in the transaction that changes what they count."""

    stripes: int
    shards: int
    logical_bytes: int
    big_bytes: int
    corrupt: int
    pointers: int
    tombstones: int


TALLY = tuple(item.name for item in fields(Tally))


def is_big(part: StripePart, params: StoreParams) -> bool:
    """Whether the part gets a file of its own."""
    return sum(len(shard) for shard in part.shards) > params.inside_bytes_max


class Changes:
    """The rows of one store. `room_bytes` = what may still be written, set anew for each group."""

    def __init__(self, connection: apsw.Connection, files: BigFiles, params: StoreParams, clock: WallClock) -> None:
        self.room_bytes = 0
        self._connection = connection
        self._files = files
        self._params = params
        self._clock = clock
        row = connection.execute(f"SELECT next_rid, {', '.join(TALLY)} FROM meta").get  # noqa: S608
        self.next_rid = int(row[0])
        self.tally = Tally(*row[1:])

    def perform(self, request: Write, rid: int | None, *, careful: bool) -> Result:
        """Carry out one request; `rid` names the file that was written for a large part."""
        match request:
            case Put():
                return self._put(request, rid, careful=careful)
            case Merge():
                for table in request.tables:
                    self._merge(table)
            case Bury():
                self._bury(request, careful=careful)
            case Quarantine():
                return self._quarantine(request)
        return None

    def judge(self, request: Put, standing: Sequence[PartRow]) -> Ruling:
        """The ruling on a put where `standing` stands."""
        part = request.part
        tombstone = self._connection.execute(_TOMB, (part.address,)).get
        return judge_put(
            [Standing(row.version, row.hash, row.index, bool(row.corrupt)) for row in standing],
            None if tombstone is None else int(tombstone),
            part.version,
            part.descriptor_hash,
            part.index,
            request.replaces,
        )

    def standing(self, address: bytes) -> list[PartRow]:
        """The parts at an address."""
        return [PartRow(*row) for row in self._connection.execute(_PARTS, (address,))]

    def take_rid(self) -> int:
        """A row id that was never used."""
        self.next_rid += 1
        return self.next_rid - 1

    def take_room(self, request: Put) -> None:
        """StoreFull unless disk and capacity have room for the part."""
        size = request.payload_bytes
        if size > min(self.room_bytes, self._params.capacity_bytes - self.tally.logical_bytes):
            raise store_full()
        self.room_bytes -= size

    def _put(self, request: Put, rid: int | None, *, careful: bool) -> PutOutcome:
        part = request.part
        standing = self.standing(part.address)
        ruling = self.judge(request, standing)
        entries = merge_entries(part.entries)
        by_hash = {row.hash: row for row in standing}
        if ruling.writes:
            if rid is None and is_big(part, self._params):
                raise LockboxError("what stands here just changed", "try again", ErrorCode.BUSY)
            if rid is None:
                self.take_room(request)
            for descriptor_hash in ruling.removes:
                old = by_hash.pop(descriptor_hash)
                if descriptor_hash == part.descriptor_hash:
                    entries = merge_entries(entries, old.entries)
                self._remove(old, careful=careful)
            if pointer := self._take_pointer(part.address, part.descriptor_hash):
                entries = merge_entries(entries, pointer)
            self._insert(part, entries, self.take_rid() if rid is None else rid)
        elif ruling.verdict is Verdict.HELD:
            self._merge_into(by_hash[part.descriptor_hash], entries)
        else:
            raise self._refusal(part.address, ruling, by_hash)
        beside = sorted(by_hash.values(), key=lambda row: row.hash)
        siblings = (
            self._descriptor(row) for row in beside if row.version == part.version and row.hash != part.descriptor_hash
        )
        return PutOutcome(tuple(sibling for sibling in siblings if sibling is not None))

    def _refusal(self, address: bytes, ruling: Ruling, by_hash: dict[bytes, PartRow]) -> RequestRefused:
        if ruling.proof is not None:
            return refusal_of(ruling, self._descriptor(by_hash[ruling.proof]))
        row = self._connection.execute("SELECT body, signature FROM tomb WHERE address = ?", (address,)).get
        return refusal_of(ruling, Signed(*row))

    def _insert(self, part: StripePart, entries: tuple[HolderEntry, ...], rid: int) -> None:
        big = is_big(part, self._params)
        execute = self._connection.execute
        shard_bytes = len(part.shards[0]) if part.shards else 0
        size = logical_bytes(part)
        execute(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)",
            (
                rid, part.address, part.descriptor_hash, part.version, part.tier, part.lease_until_unix_s, part.index,
                big, len(part.shards), shard_bytes, size, pack_entries(entries),
            ),
        )  # fmt: skip
        inside = b"" if big else b"".join(part.shards)
        execute("INSERT INTO body VALUES (?, ?, ?)", (rid, pack_head(part), inside))
        self._name(rid, entries)
        self.tally.stripes += 1
        self.tally.shards += len(part.shards)
        self.tally.logical_bytes += size
        self.tally.big_bytes += shard_bytes * len(part.shards) if big else 0

    def _remove(self, row: PartRow, *, careful: bool) -> None:
        execute = self._connection.execute
        size = int(execute("SELECT logical_bytes FROM part WHERE rid = ?", (row.rid,)).get)
        execute("DELETE FROM part WHERE rid = ?", (row.rid,))
        if not careful:
            execute("DELETE FROM body WHERE rid = ?", (row.rid,))
        for prefix in sorted(prefixes(row.entries)):
            execute("DELETE FROM named WHERE prefix = ? AND rid = ?", (prefix, row.rid))
        if row.big:
            execute("INSERT OR IGNORE INTO unlinkq VALUES (?)", (name_of(row.address, row.rid),))
        self.tally.stripes -= 1
        self.tally.shards -= row.shards
        self.tally.logical_bytes -= size
        self.tally.big_bytes -= row.shards * row.shard_bytes if row.big else 0
        self.tally.corrupt -= bool(row.corrupt)

    # Tables, tombstones, quarantine

    def _merge(self, table: HolderTable) -> None:
        execute = self._connection.execute
        held = execute(f"{_PARTS} AND hash = ?", (table.address, table.descriptor_hash)).get
        if held is not None:
            return self._merge_into(PartRow(*held), table.entries)
        tombstone = execute(_TOMB, (table.address,)).get
        if tombstone is not None and table.version <= int(tombstone):
            return None
        return self._point(table)

    def _point(self, table: HolderTable) -> None:
        execute, key = self._connection.execute, (table.address, table.descriptor_hash)
        now = self._clock.now_unix_s()
        until = int(now + self._params.pointer_ttl_s)
        known = execute("SELECT entries, until FROM pointer WHERE address = ? AND hash = ?", key).get
        if known is None:
            beside = int(execute("SELECT count(*) FROM pointer WHERE address = ?", (table.address,)).get)
            if beside >= SIBLINGS_MAX or self.tally.pointers >= self._params.pointers_max or self.room_bytes <= 0:
                return  # a pointer is a help, not a duty: others have it
            entries = pack_entries(merge_entries(table.entries))
            execute("INSERT INTO pointer VALUES (?, ?, ?, ?, ?)", (*key, table.version, entries, until))
            self.tally.pointers += 1
            return
        old = () if known[1] <= now else unpack_entries(known[0])
        merged = merge_entries(old, table.entries)
        if merged != old or until - known[1] >= self._params.pointer_renew_s:
            execute(
                "UPDATE pointer SET entries = ?, until = ? WHERE address = ? AND hash = ?",
                (pack_entries(merged), until, *key),
            )

    def _merge_into(self, row: PartRow, entries: Sequence[HolderEntry]) -> None:
        old = row.entries
        merged = merge_entries(old, entries)
        if merged == old:
            return
        self._connection.execute("UPDATE part SET entries = ? WHERE rid = ?", (pack_entries(merged), row.rid))
        gone = prefixes(old) - prefixes(merged)
        for prefix in sorted(gone):
            self._connection.execute("DELETE FROM named WHERE prefix = ? AND rid = ?", (prefix, row.rid))
        self._name(row.rid, merged)

    def _name(self, rid: int, entries: Sequence[HolderEntry]) -> None:
        rows = [(prefix, rid) for prefix in sorted(prefixes(entries))]
        if rows:
            self._connection.executemany("INSERT OR IGNORE INTO named VALUES (?, ?)", rows)

    def _take_pointer(self, address: bytes, descriptor_hash: bytes) -> tuple[HolderEntry, ...]:
        """The pointer's table, which the part takes over; none when there is no living pointer."""
        sql = "DELETE FROM pointer WHERE address = ? AND hash = ? RETURNING entries, until"
        row = self._connection.execute(sql, (address, descriptor_hash)).get
        if row is None:
            return ()
        self.tally.pointers -= 1
        return unpack_entries(row[0]) if row[1] > self._clock.now_unix_s() else ()

    def _bury(self, request: Bury, *, careful: bool) -> None:
        execute, address = self._connection.execute, request.address
        known = execute(_TOMB, (address,)).get
        if known is not None and int(known) >= request.version:
            return
        rows = [row for row in self.standing(address) if row.version <= request.version]
        for row in rows:
            self._remove(row, careful=careful)
        sql = "DELETE FROM pointer WHERE address = ? AND version <= ? RETURNING 1"
        pointers = len(execute(sql, (address, request.version)).fetchall())
        self.tally.pointers -= pointers
        if known is None:
            if not rows and not pointers and self.tally.tombstones >= self._params.tombstones_max:
                raise StoreFull("no room for a tombstone where nothing stands", "try another node")
            self.tally.tombstones += 1
        execute(
            "INSERT OR REPLACE INTO tomb VALUES (?, ?, ?, ?, ?)",
            (
                address,
                request.version,
                request.tombstone.body,
                request.tombstone.signature,
                int(self._clock.now_unix_s()),
            ),
        )

    def _quarantine(self, request: Quarantine) -> bool:
        sql = "UPDATE part SET corrupt = 1 WHERE rid = ? AND corrupt = 0 RETURNING big"
        big = self._connection.execute(sql, (request.rid,)).get
        if big is None:
            return False
        self.tally.corrupt += 1
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
