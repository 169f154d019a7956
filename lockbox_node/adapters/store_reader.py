"""The reader of a shard store: several reads in one snapshot, each byte compared with what the owner signed.

Runs in one thread at a time, beside the writer, on a connection of its own. A scan stops at its page and continues as
another read, because a long read transaction keeps the WAL from shrinking. Damage is an answer here (`Damage`); the
store then tells the writer to quarantine the part.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters.store_files import BigFiles, name_of
from lockbox_node.adapters.store_names import page_with
from lockbox_node.adapters.store_rows import (
    PART_COLUMNS,
    PARTS_AT,
    QUALIFIED_COLUMNS,
    DamagedRow,
    PartRow,
    split_shards,
    unpack_entries,
    verified_head,
    verified_shards,
)
from lockbox_node.adapters.store_schema import is_damage
from lockbox_node.core.repair import is_named
from lockbox_node.core.slots import corrupt_part
from lockbox_node.errors import LockboxError, ShardCorrupt, ShardMissing
from lockbox_node.ports import Checked, SlotView, StripePart, StripeSummary, WallClock
from protocol.errors import ErrorCode
from protocol.held import bucket_of, held_digest, sum_bytes
from protocol.messages import SIBLINGS_MAX, BucketDigest, HolderTable, Signed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.storage_params import StoreParams


@dataclass(frozen=True, slots=True)
class Get:
    """ShardStore.get as it waits."""

    address: bytes
    descriptor_hash: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """ShardStore.look as it waits."""

    address: bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """ShardStore.summaries as it waits."""

    after: bytes
    limit: int


@dataclass(slots=True)
class HeldWith:
    """ShardStore.held_with as it waits, with what its pages gave so far."""

    node: bytes
    after_rid: int = -1
    found: list[StripeSummary] = field(default_factory=list)


@dataclass(slots=True)
class DigestsWith:
    """ShardStore.digests_with as it waits, with what its pages gave so far: bucket -> [parts, sum]."""

    node: bytes
    after_rid: int = -1
    found: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """ShardStore.check as it waits."""

    after: bytes
    limit: int


Read = Get | Look | Scan | HeldWith | DigestsWith | Check


@dataclass(frozen=True, slots=True)
class Damage:
    """A part whose bytes are not those that were put. `rid` is None when a page hides it: nothing to mark then."""

    address: bytes
    descriptor_hash: bytes
    rid: int | None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer to a Check, and the damage that it found."""

    checked: Checked
    damages: tuple[Damage, ...]


class _More:
    """The scan goes on in another transaction."""


# A lack of descriptors, memory or rights says nothing about the bytes: it must never condemn them.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EINTR, errno.EAGAIN})

MORE = _More()
ReadResult = (
    StripePart | SlotView | list[StripeSummary] | list[BucketDigest] | CheckResult | LockboxError | Damage | _More
)


class StoreReader:
    """Everything that only reads."""

    def __init__(self, connection: apsw.Connection, files: BigFiles, params: StoreParams, clock: WallClock) -> None:
        self._connection = connection
        self._files = files
        self._params = params
        self._clock = clock
        self._hurry: Callable[[], bool] = lambda: False
        self.damaged = False  # a page of the database was met that is not as it was written

    def read(self, group: Sequence[Read], hurry: Callable[[], bool] = lambda: False) -> list[ReadResult]:
        """The results in order; stops early (fewer results) when the bytes of a hop are reached.

        A check ends after the part that it is at when there is `hurry`: a put would else wait for all its parts.
        """
        results: list[ReadResult] = []
        self._hurry = hurry
        self._begin()
        size = 0
        try:
            for request in group:
                result = self._one(request)
                results.append(result)
                if isinstance(result, StripePart):
                    size += sum(len(shard) for shard in result.shards)
                elif isinstance(result, CheckResult):
                    size += result.checked.checked_bytes
                if size >= self._params.read_group_bytes_max:
                    break
        finally:
            self._end()
        return results

    def close(self) -> None:
        """The connection is closed."""
        self._connection.close()

    def _begin(self) -> None:
        self._connection.execute("BEGIN")

    def _end(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("COMMIT")
            except (apsw.IOError, apsw.CorruptError) as error:  # what the failed statement left behind
                self._met(error)
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _one(self, request: Read) -> ReadResult:
        try:
            match request:
                case Get():
                    return self._get(request)
                case Look():
                    return self._look(request.address)
                case Scan():
                    return self._scan(request)
                case HeldWith():
                    return self._held_with(request)
                case DigestsWith():
                    return self._digests_with(request)
                case Check():
                    return self._check(request)
        except (apsw.IOError, apsw.CorruptError) as error:
            self._met(error)
            self._end()  # SQLite may have ended the transaction; the others of the group read in a new one
            self._begin()
            if isinstance(request, Get):
                return Damage(request.address, request.descriptor_hash, None)
            return ShardCorrupt("a page of the database cannot be read", "try again: the database is being rebuilt")
        except apsw.BusyError:
            return LockboxError("the store is in use by another program", "try again", ErrorCode.BUSY)

    def _get(self, request: Get) -> StripePart | LockboxError | Damage:
        key = (request.address, request.descriptor_hash)
        found = self._connection.execute(f"{PARTS_AT} AND hash = ?", key).get
        if found is None:
            return ShardMissing("this part is not here", "ask the other holders")
        result = self._read_part(PartRow(*found))
        return result or LockboxError("this part just changed", "try again", ErrorCode.BUSY)

    def _read_part(self, row: PartRow) -> StripePart | LockboxError | Damage | None:
        """The verified part; None when the writer has changed it meanwhile."""
        if row.corrupt:
            return corrupt_part()
        try:
            return self._verified(row)
        except (DamagedRow, OSError, apsw.IOError, apsw.CorruptError) as error:
            if isinstance(error, OSError) and error.errno in SHORTAGES:
                return LockboxError("this node is short of what it needs to read", "try again", ErrorCode.BUSY)
            self._met(error)
            self._end()  # the writer may have replaced or deleted the part since our snapshot
            self._begin()
        now = self._connection.execute(f"{PARTS_AT} AND hash = ?", (row.address, row.hash)).get
        if now is not None and now[0] == row.rid:
            return Damage(row.address, row.hash, row.rid)
        return None

    def _met(self, error: Exception) -> None:
        self.damaged |= isinstance(error, apsw.Error) and is_damage(error)

    def _check(self, request: Check) -> CheckResult | LockboxError:
        """Verify the next parts, up to `check_bytes_max`; one in a hurry. What is known to be corrupt counts again."""
        after, parts, size, corrupt = request.after, 0, 0, 0
        damages: list[Damage] = []
        rows = self._page(request.after, request.limit)
        for row in rows:
            result = self._read_part(row)
            if result is None:
                break  # the next step begins with it
            if isinstance(result, LockboxError) and not row.corrupt:
                return result
            after = row.address + row.hash
            parts += 1
            size += row.logical_bytes
            if isinstance(result, Damage):
                damages.append(result)
            corrupt += not isinstance(result, StripePart)
            if size >= self._params.check_bytes_max or self._hurry():
                break
        done = len(rows) < min(request.limit, self._params.scan_rows_max) and parts == len(rows)
        return CheckResult(Checked(after, parts, size, corrupt, done), tuple(damages))

    def _verified(self, row: PartRow) -> StripePart:
        body = self._connection.execute("SELECT head, shards FROM body WHERE rid = ?", (row.rid,)).get
        if body is None:
            raise DamagedRow("the body is gone")
        head, descriptor = verified_head(row, body[0])
        if row.big:
            shards = self._files.read(name_of(row.address, row.rid), row.shards, row.shard_bytes)
        else:
            shards = split_shards(row, body[1])
        return row.part(head, verified_shards(row, descriptor, shards))

    def _look(self, address: bytes) -> SlotView:
        execute = self._connection.execute
        joined = "part LEFT JOIN body USING (rid)"
        sql = f"SELECT {QUALIFIED_COLUMNS}, head FROM {joined} WHERE address = ? ORDER BY version DESC, hash"  # noqa: S608
        parts: list[StripePart] = []
        tables: list[HolderTable] = []
        held = set()
        for *columns, packed in execute(sql, (address,)):
            row = PartRow(*columns)
            tables.append(row.table)
            held.add(row.hash)
            try:
                parts.append(row.part(verified_head(row, packed or b"")[0], ()))
            except DamagedRow:
                continue  # `get` of it tells; its table still helps
        sql = "SELECT hash, version, entries FROM pointer WHERE address = ? AND until > ? ORDER BY version DESC, hash"
        for descriptor_hash, version, entries in execute(sql, (address, self._clock.now_unix_s())):
            if descriptor_hash not in held and len(tables) < SIBLINGS_MAX:
                tables.append(HolderTable(address, version, descriptor_hash, list(unpack_entries(entries))))
        tomb = execute("SELECT body, signature FROM tomb WHERE address = ?", (address,)).get
        return SlotView(tuple(parts), tuple(tables), None if tomb is None else Signed(*tomb))

    def _page(self, after: bytes, limit: int) -> list[PartRow]:
        sql = f"SELECT {PART_COLUMNS} FROM part WHERE (address, hash) > (?, ?) ORDER BY address, hash LIMIT ?"  # noqa: S608
        rows = self._connection.execute(sql, (after[:32], after[32:], min(limit, self._params.scan_rows_max)))
        return [PartRow(*row) for row in rows]

    def _scan(self, request: Scan) -> list[StripeSummary]:
        return [row.summary for row in self._page(request.after, request.limit)]

    def _rows_with(self, request: HeldWith | DigestsWith) -> tuple[list[PartRow], bool]:
        """The next page of rows whose table may name the node, and whether there are more."""
        limit = self._params.scan_rows_max
        rows = page_with(self._connection, request.node, request.after_rid, limit)
        if rows:
            request.after_rid = rows[-1].rid
        return rows, len(rows) == limit

    def _held_with(self, request: HeldWith) -> list[StripeSummary] | _More:
        rows, more = self._rows_with(request)
        request.found += [row.summary for row in rows if any(entry.node == request.node for entry in row.entries)]
        return MORE if more else request.found

    def _digests_with(self, request: DigestsWith) -> list[BucketDigest] | _More:
        rows, more = self._rows_with(request)
        for row in rows:
            if row.trashed < 0 and is_named(row.entries, request.node):
                bucket = request.found.setdefault(bucket_of(row.address), [0, 0])
                bucket[0] += 1
                bucket[1] += held_digest(row.address, row.version, row.hash)
        if more:
            return MORE
        return [BucketDigest(number, found[0], sum_bytes(found[1])) for number, found in sorted(request.found.items())]
