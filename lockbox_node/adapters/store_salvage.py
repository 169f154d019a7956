"""A database with damaged pages is built anew from everything that proves itself.

A body is kept when its descriptor is signed by the key behind the address, its slots have the signed hashes, and its
shards have the signed ids of one index: address, version, tier, lease and index follow from that, never from the row.
The row of the part gives table, owner and trash; when it lies on whole pages and its body is lost, it is kept as a
corrupt part, which healing mends in place. Tombstones are kept by their signature, notes by their check, pointers when
they decode. What is left out is counted: the siblings know what we should hold.
The draft becomes the database by one rename (DRAFT to NEXT); a crash after it is finished by the next start.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_books import Books
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_pages import Pages, Record
from lockbox_node.adapters.store_proof import (
    BODY_ALONE,
    DOUBTED_ROW,
    PROVED,
    ROW,
    Meta,
    Proof,
    meta_of,
    pointer_of,
    proof_of,
    row_of,
    tomb_of,
)
from lockbox_node.adapters.store_rows import INSERT_PART, PART_COLUMNS, DamagedRow, PartRow, pack_entries
from lockbox_node.adapters.store_rows import unpack_note as checked_note
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.disk import Disk

DRAFT = "shards.salvage"
NEXT = "shards.next"  # complete: it takes the place of the database, now or at the next start
ROWS_PER_COMMIT = 1000


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What a salvage left: `kept` parts as they were, `corrupt` ones to be mended; `lost` parts and tombstones."""

    kept: int
    lost: int
    corrupt: tuple[tuple[bytes, bytes], ...]
    pages: int  # that were not as they were written, without those in the middle of a row


def rebuild(data_dir: Path, node: bytes, now_unix_s: float, disk: Disk) -> Salvaged:
    """Write the new database beside the old one and name it NEXT. OSError, apsw.Error, ConfigError."""
    _remove(data_dir, DRAFT, disk)
    for old in sorted((data_dir / "quarantine").glob(f"{store_schema.DATABASE}-*")):
        disk.unlink(old)  # its room may be needed
    try:
        salvaged = _draft(data_dir, node, now_unix_s, disk)
    except BaseException:
        with contextlib.suppress(OSError):  # it may fill the disk; the next start removes it otherwise
            _remove(data_dir, DRAFT, disk)
        raise
    disk.rename(data_dir / DRAFT, data_dir / NEXT)
    disk.flush_directory(data_dir)
    return salvaged


def _draft(data_dir: Path, node: bytes, now_unix_s: float, disk: Disk) -> Salvaged:
    pages = Pages(data_dir / store_schema.DATABASE)
    try:
        salvaged = _Draft(data_dir, pages, disk).build(node, now_unix_s)
    finally:
        pages.close()
    _check(data_dir / DRAFT)
    descriptor = os.open(data_dir / DRAFT, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.flush(descriptor)
    finally:
        os.close(descriptor)
    return salvaged


def finish(data_dir: Path, now_unix_s: float, disk: Disk) -> bool:
    """Let NEXT take the place of the database, which goes to quarantine/; whether there was one. OSError.

    Nobody may have the database open. The WAL goes first: SQLite would apply it to the new database.
    """
    _remove(data_dir, DRAFT, disk)
    if not (data_dir / NEXT).exists():
        return False
    quarantine = data_dir / "quarantine"
    quarantine.mkdir(mode=0o700, exist_ok=True)
    database = data_dir / store_schema.DATABASE
    aside = quarantine / f"{store_schema.DATABASE}-{int(now_unix_s)}"
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            disk.rename(data_dir / f"{store_schema.DATABASE}{suffix}", quarantine / f"{aside.name}{suffix}")
    if database.exists():
        with contextlib.suppress(FileExistsError):
            disk.link(database, aside)
    disk.flush_directory(quarantine)
    disk.flush_directory(data_dir)
    disk.rename(data_dir / NEXT, database)
    disk.flush_directory(data_dir)
    return True


def _remove(data_dir: Path, name: str, disk: Disk) -> None:
    for leftover in sorted(data_dir.glob(f"{name}*")):
        disk.unlink(leftover)


def _check(path: Path) -> None:
    """What was written can be read, page by page and row by row."""
    connection = store_schema.connect(path)
    try:
        found = connection.execute("PRAGMA integrity_check").get
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()
    if found != "ok":
        raise ConfigError(f"the rebuilt database is damaged too: {found}", "look at disk and memory of this machine")


class _Draft:
    """The new database while it is filled."""

    def __init__(self, data_dir: Path, pages: Pages, disk: Disk) -> None:
        self._pages = pages
        self._big = data_dir / "big"
        self._files = BigFiles(data_dir, disk)
        self._disk = disk
        self._marker = (data_dir / "STORE").read_text()
        self._connection = store_schema.connect(data_dir / DRAFT, fresh=True)
        self._execute = self._connection.execute
        self._meta: Meta | None = None
        self._rows = 0
        self._replaced: set[tuple[bytes, bytes]] = set()
        self._written = 0

    def build(self, node: bytes, now_unix_s: float) -> Salvaged:
        """Everything; the connection is closed."""
        try:
            store_schema.migrate(self._connection, self._marker.split("\n")[0].strip(), b"")
            self._execute("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=1000").fetchall()
            self._execute("BEGIN IMMEDIATE")
            for record in self._pages.records():
                self._take_row(record)
            for record in self._pages.records(tables_alone=True):
                self._take_body(record)
            salvaged = self._settle()
            self._write_books(node, now_unix_s)
            self._execute("COMMIT")
            self._execute("PRAGMA synchronous=FULL")
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            self._connection.close()
        return salvaged

    def _wrote(self) -> None:
        self._written += 1
        if self._written % ROWS_PER_COMMIT == 0:
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")

    # First walk: all but the bodies

    def _take_row(self, record: Record) -> None:
        match record.values:
            case (None, bytes(), bytes()):
                return
            case (str(name), bytes(value)) if record.rowid is None:
                self._take_note(name, value)
            case (None, *_) if (row := row_of(record)) is not None:
                self._take_part(row, sound=record.sound)
            case (None, str(), bytes(), *_) if record.sound and (meta := meta_of(record)) is not None:
                self._meta = meta
            case (bytes(), int(), bytes(), bytes(), int(), *_) if (tomb := tomb_of(record)) is not None:
                self._execute("INSERT OR IGNORE INTO tomb VALUES (?, ?, ?, ?, ?, ?)", tomb)
            case (bytes(), bytes(), int(), bytes(), int()) if (pointer := pointer_of(record)) is not None:
                self._execute("INSERT OR IGNORE INTO pointer VALUES (?, ?, ?, ?, ?)", pointer)
            case _:
                return
        self._wrote()

    def _take_note(self, name: str, value: bytes) -> None:
        try:
            checked_note(value)
        except DamagedRow:
            return
        self._execute("INSERT OR IGNORE INTO note VALUES (?, ?)", (name, value))

    def _take_part(self, row: PartRow, *, sound: bool) -> None:
        """As if its body were lost, until the body is found."""
        self._rows += 1
        verb = "REPLACE" if sound else "INSERT OR IGNORE"
        self._execute(f"{verb} {INSERT_PART}", replace(row, corrupt=ROW if sound else DOUBTED_ROW).columns)

    # Second walk: the bodies

    def _take_body(self, record: Record) -> None:
        match record:
            case Record(int(rid), (None, bytes(packed), bytes(inside))):
                pass
            case _:
                return
        found = self._execute(f"SELECT {PART_COLUMNS} FROM part WHERE rid = ?", (rid,)).get  # noqa: S608
        row = None if found is None else PartRow(*found)
        if row is not None and row.corrupt in (PROVED, BODY_ALONE):
            return
        proof = proof_of(rid, packed, inside, row if row is not None and row.corrupt == ROW else None, self._files)
        if proof is None or self._stands_elsewhere(proof, row):
            return
        kept = proof.row(row)
        state = BODY_ALONE if row is None else PROVED
        self._execute(f"REPLACE {INSERT_PART}", replace(kept, corrupt=state).columns)
        self._execute("REPLACE INTO body VALUES (?, ?, ?)", (rid, packed, inside))
        self._replaced.update((kept.address, digest) for digest in proof.descriptor.replaces)
        self._wrote()

    def _stands_elsewhere(self, proof: Proof, row: PartRow | None) -> bool:
        """Whether this body is left over from an earlier time."""
        if row is not None and row.corrupt == ROW and (row.address, row.hash) != (proof.address, proof.hash):
            return True
        sql = "SELECT corrupt FROM part WHERE address = ? AND hash = ? AND rid <> ?"
        other = self._execute(sql, (proof.address, proof.hash, proof.rid)).get
        return other is not None and other != DOUBTED_ROW

    # At the end

    def _settle(self) -> Salvaged:
        execute, meta = self._execute, self._meta
        if meta is not None and self._rows == meta.stripes:  # every row was found: these were left by a careful delete
            execute("DELETE FROM part WHERE corrupt = ?", (BODY_ALONE,))
        for address, digest in sorted(self._replaced):
            key = (address, digest, BODY_ALONE)
            execute("DELETE FROM part WHERE address = ? AND hash = ? AND corrupt = ?", key)
        tombs = "SELECT 1 FROM tomb WHERE tomb.address = part.address AND tomb.version >= part.version"
        execute(f"DELETE FROM part WHERE EXISTS ({tombs})")  # noqa: S608  # our text
        dropped = len(execute("DELETE FROM part WHERE corrupt = ? RETURNING 1", (DOUBTED_ROW,)).fetchall())
        execute("UPDATE part SET corrupt = 0 WHERE corrupt = ?", (BODY_ALONE,))
        execute("DELETE FROM body WHERE rid NOT IN (SELECT rid FROM part WHERE corrupt = 0)")
        corrupt = execute("SELECT address, hash FROM part WHERE corrupt = ? ORDER BY address, hash", (ROW,)).fetchall()
        kept = int(execute("SELECT count(*) FROM part WHERE corrupt = 0").get)
        if meta is None:
            lost = dropped
        else:
            tombstones = int(execute("SELECT count(*) FROM tomb").get)
            lost = max(0, meta.stripes - kept - len(corrupt), dropped) + max(0, meta.tombstones - tombstones)
        return Salvaged(kept, lost, _keys(corrupt), self._pages.unsound // 2)

    def _write_books(self, node: bytes, now_unix_s: float) -> None:
        """Counters, usage and digests, from the rows; `named` is written behind, as after a put."""
        books = Books(self._connection)
        after = -1
        sql = f"SELECT {PART_COLUMNS} FROM part WHERE rid > ? ORDER BY rid LIMIT ?"  # noqa: S608
        while page := [PartRow(*row) for row in self._execute(sql, (after, ROWS_PER_COMMIT))]:
            for row in page:
                self._count(books, row)
            books.save()
            books.saved()
            after = page[-1].rid
        books.tally.pointers = int(self._execute("SELECT count(*) FROM pointer").get)
        books.tally.tombstones = int(self._execute("SELECT count(*) FROM tomb").get)
        books.next_rid = self._meta.next_rid if self._meta else max(after, self._highest_file_rid()) + 1
        books.save()
        # Lost with its row: what a clock says is above any count of starts, and starts count on from there.
        epoch = self._meta.epoch if self._meta else int(now_unix_s)
        self._execute(
            "UPDATE meta SET epoch = ?, node = ?, named_until = 0", (epoch, self._meta.node if self._meta else node)
        )

    def _count(self, books: Books, row: PartRow) -> None:
        try:
            _ = row.entries
        except ValueError:
            self._execute("UPDATE part SET entries = ? WHERE rid = ?", (pack_entries(()), row.rid))
        books.came(row)
        books.tally.corrupt += bool(row.corrupt)
        if row.trashed >= 0:
            books.trashed(row)

    def _highest_file_rid(self) -> int:
        """A row id is never used twice, for a file may still be waiting to be removed."""
        if not self._big.is_dir():
            return 0
        return max((rid for folder in range(256) for _, rid in self._files.names(folder)), default=0)


def _keys(rows: list[tuple[apsw.SQLiteValue, ...]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (address, digest) for address, digest in rows if isinstance(address, bytes) and isinstance(digest, bytes)
    )
