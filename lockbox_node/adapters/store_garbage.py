"""What leaves a shard store: tombstones, replaced parts, ended leases, trash.

Used by store_changes inside the writer's transaction. A part whose lease is over is only marked; it goes for good when
its time in trash is over, which the caller counts. Large files are queued for unlinking in the same transaction and go
after it, so that a crash leaves a file too many, never a row without its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_files import name_of
from lockbox_node.adapters.store_rows import PART_COLUMNS, PARTS_AT, PartRow
from lockbox_node.core.slots import TOMBSTONE_MARGIN_S
from lockbox_node.errors import StoreFull
from protocol.messages import Signed

if TYPE_CHECKING:
    import apsw

    from lockbox_node.adapters.store_books import Books
    from lockbox_node.adapters.store_names import Names
    from lockbox_node.adapters.store_requests import Bury, Drop, EmptyTrash, Expire
    from lockbox_node.core.storage_params import StoreParams
    from lockbox_node.ports import WallClock

_OVER = f"SELECT {PART_COLUMNS} FROM part WHERE trashed < 0 AND lease <= ? LIMIT ?"  # noqa: S608  # our column names
_TRASH = f"SELECT {PART_COLUMNS} FROM part WHERE trashed >= 0 AND trashed <= ? LIMIT ?"  # noqa: S608
_EMPTY = ", NULL" * (PART_COLUMNS.count(",") - 2)  # behind three columns
_FOUND = (
    f"SELECT 0, {PART_COLUMNS} FROM part WHERE address = ?1 UNION ALL "  # noqa: S608  # our column names
    f"SELECT 1, version, body, signature{_EMPTY} FROM tomb WHERE address = ?1 UNION ALL "
    f"SELECT 2, hash, NULL, NULL{_EMPTY} FROM pointer WHERE address = ?1"
)
_UNTIL_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Found:
    """All that stands at an address."""

    rows: list[PartRow]
    tombstone: tuple[int, Signed] | None
    pointers: frozenset[bytes]  # descriptor hashes


def found_at(connection: apsw.Connection, address: bytes) -> Found:
    """Parts, tombstone and pointers of an address in one statement: each costs a put 5 us otherwise."""
    rows: list[PartRow] = []
    tombstone: tuple[int, Signed] | None = None
    pointers: list[bytes] = []
    for kind, *columns in connection.execute(_FOUND, (address,)):
        if kind == 0:
            rows.append(PartRow(*columns))
        elif kind == 1:
            tombstone = (columns[0], Signed(columns[1], columns[2]))
        else:
            pointers.append(columns[0])
    return Found(rows, tombstone, frozenset(pointers))


def standing_at(connection: apsw.Connection, address: bytes) -> list[PartRow]:
    """The parts at an address."""
    return [PartRow(*row) for row in connection.execute(PARTS_AT, (address,))]


class Garbage:
    """The removing half of the changes of one store."""

    def __init__(
        self, connection: apsw.Connection, books: Books, names: Names, params: StoreParams, clock: WallClock
    ) -> None:
        self._connection = connection
        self._books = books
        self._names = names
        self._params = params
        self._clock = clock

    def remove(self, row: PartRow, *, careful: bool) -> None:
        """A part is gone for good; its file goes after the commit."""
        execute = self._connection.execute
        execute("DELETE FROM part WHERE rid = ?", (row.rid,))
        if not careful:
            execute("DELETE FROM body WHERE rid = ?", (row.rid,))
        self._names.went(row)
        if row.big:
            execute("INSERT OR IGNORE INTO unlinkq VALUES (?)", (name_of(row.address, row.rid),))
        self._books.went(row)

    def bury(self, request: Bury, *, careful: bool) -> None:
        """Everything up to the version goes; the tombstone stays. StoreFull where nothing stands and too many do."""
        execute, address = self._connection.execute, request.address
        known = execute("SELECT version, until FROM tomb WHERE address = ?", (address,)).get
        rows = [row for row in standing_at(self._connection, address) if row.version <= request.version]
        until = max([request.until_unix_s, *(row.lease + TOMBSTONE_MARGIN_S for row in rows)])
        until = min(_UNTIL_MAX, max(until, 0 if known is None else int(known[1])))
        if known is not None and int(known[0]) >= request.version:
            if until > int(known[1]):
                execute("UPDATE tomb SET until = ? WHERE address = ?", (until, address))
            return
        for row in rows:
            self.remove(row, careful=careful)
        sql = "DELETE FROM pointer WHERE address = ? AND version <= ? RETURNING 1"
        pointers = len(execute(sql, (address, request.version)).fetchall())
        self._books.tally.pointers -= pointers
        if known is None:
            if not rows and not pointers and self._books.tally.tombstones >= self._params.tombstones_max:
                raise StoreFull("no room for a tombstone where nothing stands", "try another node")
            self._books.tally.tombstones += 1
        at, signed = int(self._clock.now_unix_s()), request.tombstone
        execute(
            "INSERT OR REPLACE INTO tomb(address, version, body, signature, at, until) VALUES (?, ?, ?, ?, ?, ?)",
            (address, request.version, signed.body, signed.signature, at, until),
        )

    def drop(self, request: Drop, *, careful: bool) -> None:
        """One part goes."""
        for row in standing_at(self._connection, request.address):
            if row.hash == request.descriptor_hash:
                self.remove(row, careful=careful)

    def expire(self, request: Expire) -> int:
        """Some parts whose lease is over go to trash, some tombstones whose time is over are forgotten."""
        execute, limit = self._connection.execute, self._params.idle_rows_max
        rows = [PartRow(*row) for row in execute(_OVER, (int(request.now_unix_s), limit))]
        for row in rows:
            execute("UPDATE part SET trashed = ? WHERE rid = ?", (int(request.uptime_s), row.rid))
            self._books.trashed(row)
        sql = "DELETE FROM tomb WHERE address IN (SELECT address FROM tomb WHERE until <= ? LIMIT ?) RETURNING 1"
        forgotten = len(execute(sql, (int(request.now_unix_s), limit)).fetchall())
        self._books.tally.tombstones -= forgotten
        return len(rows) + forgotten

    def empty_trash(self, request: EmptyTrash, *, careful: bool) -> int:
        """Some parts that were long enough in trash go for good."""
        if request.before_uptime_s < 0:
            return 0
        limit = self._params.idle_rows_max
        rows = [PartRow(*row) for row in self._connection.execute(_TRASH, (int(request.before_uptime_s), limit))]
        for row in rows:
            self.remove(row, careful=careful)
        return len(rows)
