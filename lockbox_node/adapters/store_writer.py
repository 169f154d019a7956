"""The one writer of a shard store: a group of requests becomes one transaction, one flush, and then the answers.

Runs in one thread at a time, never on the trio thread. Rules: files before the transaction that names them; a refused
request has written nothing; a failing commit fails the group; a full disk is an answer; any other I/O error or failed
flush makes the store read-only and is never retried, because the kernel may have dropped the dirty pages.
A page that fails its checksum rolls the transaction back (SQLite's rule): the group then runs one by one, `careful`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters.store_ballast import Ballast
from lockbox_node.adapters.store_changes import Changes, Result, is_big
from lockbox_node.adapters.store_files import FANOUT, BigFiles, BigHeader, is_full, name_of
from lockbox_node.adapters.store_garbage import found_at
from lockbox_node.adapters.store_requests import Note, Put, Write
from lockbox_node.adapters.store_rows import DamagedRow, unpack_note
from lockbox_node.adapters.store_schema import DATABASE, PAGE_BYTES, is_damage
from lockbox_node.core.slots import store_full
from lockbox_node.errors import LockboxError
from lockbox_node.ports import StoreFigures, StripePart, WallClock
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lockbox_node.core.storage_params import StoreParams


WAL_FRAME_BYTES = PAGE_BYTES + 24
SWEEP_FOLDERS = 16  # of `big/` per idle step
FREE_PAGES_KEPT = 4096  # the file shrinks only beyond this many free pages


class StoreWriter:
    """Everything that changes the store. `broken` says why it became read-only, '' while it is well."""

    def __init__(
        self, data_dir: Path, connection: apsw.Connection, files: BigFiles, params: StoreParams, clock: WallClock
    ) -> None:
        self.broken = ""
        self.damaged = False  # a page of the database was met that is not as it was written
        self.wal_pages = 0
        self.notes: dict[str, bytes] = {}  # replaced, never changed: others read it meanwhile
        self._connection = connection
        self._files = files
        self._params = params
        self._clock = clock
        self._changes = Changes(connection, files, params, clock)
        self._books = self._changes.books
        self._ballast = Ballast(data_dir, params)
        self._ballast.take()
        self._first_rid = self._books.next_rid
        self._swept = 0
        self._database_bytes = self._wal_bytes = 0
        self._path = data_dir / DATABASE
        self._weigh()
        connection.set_wal_hook(self._on_wal)
        self._load_notes()
        self.epoch = int(connection.execute("SELECT epoch FROM meta").get)

    def figures(self) -> StoreFigures:
        """What the last committed group left."""
        tally = self._books.tally
        wal_bytes = max(self._wal_bytes, self.wal_pages * WAL_FRAME_BYTES)
        disk_bytes = self._database_bytes + wal_bytes + tally.big_bytes
        return StoreFigures(
            tally.stripes,
            tally.shards,
            tally.logical_bytes - tally.trash_bytes,
            disk_bytes,
            tally.corrupt,
            tally.pointers,
            tally.tombstones,
            tally.trash_stripes,
            tally.trash_bytes,
            self._ballast.held_bytes,
        )

    # The group

    def commit(self, group: Sequence[Write]) -> list[Result]:
        """Run the requests in order, in one transaction; the results are durable when this returns."""
        if self.broken:
            return [self._read_only()] * len(group)
        staged: dict[int, int] = {}
        try:
            self._changes.room_bytes = self._ballast.room_bytes()
            refused = self._stage(group, staged)
            results = self._run(group, staged, refused)
            self._drop_unused(group, staged)
        except OSError as error:
            self.broken = f"a file could not be written: {os.strerror(error.errno or 0)}"
            results = [self._read_only()] * len(group)
        return results

    def _run(self, group: Sequence[Write], staged: dict[int, int], refused: dict[int, LockboxError]) -> list[Result]:
        places = range(len(group))
        try:
            return self._transaction(group, places, staged, refused, careful=False)
        except apsw.Error as error:
            if self._is_fatal(error):
                return [self._read_only()] * len(group)
            self._make_room(error)
        results: list[Result] = []
        for place in places:
            try:
                results += self._transaction(group, [place], staged, refused, careful=True)
            except apsw.Error as error:
                if self._is_fatal(error):
                    return results + [self._read_only()] * (len(group) - len(results))
                results.append(_answer_to(error))
                self._make_room(error)
        return results

    def _make_room(self, error: apsw.Error) -> None:
        """On a full disk: let the ballast go, for what frees space; nothing more is put until it is back."""
        if isinstance(error, apsw.FullError):
            self._ballast.let_go()
            self._changes.room_bytes = 0

    def _transaction(
        self,
        group: Sequence[Write],
        places: Sequence[int],
        staged: dict[int, int],
        refused: dict[int, LockboxError],
        *,
        careful: bool,
    ) -> list[Result]:
        execute = self._connection.execute
        before = self._books.mark()
        results: list[Result] = []
        execute("BEGIN IMMEDIATE")
        try:
            for place in places:
                known = refused.get(place)
                results.append(known or self._one(group[place], staged.get(place), careful=careful))
            self._books.save()
            self._changes.names.save()
            execute("COMMIT")
        except BaseException:
            self._books.back_to(before)
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        finally:
            self._changes.names.forget()
        self._books.saved()
        if any(isinstance(group[place], Note) for place in places):
            self._load_notes()
        return results

    def _one(self, request: Write, rid: int | None, *, careful: bool) -> Result:
        """A refused request has changed nothing: the rulings come before the rows."""
        before, changes = self._books.mark(), self._connection.total_changes()
        try:
            return self._changes.perform(request, rid, careful=careful)
        except LockboxError as refusal:
            assert self._connection.total_changes() == changes, "a request was refused after it had written"
            self._books.back_to(before)
            return refusal

    # Large files, before the transaction

    def _stage(self, group: Sequence[Write], staged: dict[int, int]) -> dict[int, LockboxError]:
        """Write the files of large parts that will be stored; `staged` gets place -> rid. What failed is returned."""
        refused: dict[int, LockboxError] = {}
        names = []
        for place, request in enumerate(group):
            if not isinstance(request, Put) or not is_big(request, self._params):
                continue
            try:
                found = found_at(self._connection, request.part.address)
                ruling = self._changes.judge(request, found)
                if not ruling.writes:
                    continue
                self._changes.admit(request, ruling, found)
                rid = self._changes.take_rid()
                self._files.write(_header(request.part, rid), request.part.shards)
                staged[place] = rid
                names.append(name_of(request.part.address, rid))
            except LockboxError as refusal:
                refused[place] = refusal
            except apsw.Error as error:
                if self._is_fatal(error):
                    return dict.fromkeys(range(len(group)), self._read_only())
                refused[place] = _answer_to(error)
            except OSError as error:
                if not is_full(error):
                    raise
                refused[place] = store_full()
                self._ballast.let_go()
                self._changes.room_bytes = 0
        self._files.sync(names)
        return refused

    def _drop_unused(self, group: Sequence[Write], staged: dict[int, int]) -> None:
        """Unlink the files that no row names: of refused and of repeated requests. The sweep finds what is missed."""
        names = []
        for place, rid in staged.items():
            request = group[place]
            if isinstance(request, Put) and not self.broken and not self._is_row(rid):
                names.append(name_of(request.part.address, rid))
        self._files.unlink(names)

    def _is_row(self, rid: int) -> bool:
        """Whether a part has this row id; where a damaged page hides the answer, its file is kept."""
        try:
            return self._connection.execute("SELECT 1 FROM part WHERE rid = ?", (rid,)).get is not None
        except apsw.Error as error:
            self._is_fatal(error)
            return True

    # Between the groups

    def checkpoint(self) -> None:
        """Move what the WAL holds into the database, as far as no reader needs it; what is written behind follows."""
        if self.broken:
            return
        try:
            self._write_behind(only_many=True)
        except apsw.Error as error:
            if self._is_fatal(error):
                return
        self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _write_behind(self, *, only_many: bool = False) -> bool:
        """One step of what is written behind; whether there is more."""
        self._books.fold()
        return self._changes.names.fold(only_many=only_many)

    def idle(self) -> bool:
        """One bounded step of housekeeping; True when there is more to do."""
        if self.broken:
            return False
        try:
            more = self._unlink() | self._sweep() | self._expire() | self._shrink()
            more |= self._write_behind()
            self._ballast.take()
        except apsw.Error as error:
            return self._is_fatal(error) and False
        except OSError as error:
            self.broken = f"a file could not be removed: {os.strerror(error.errno or 0)}"
            return False
        if not more and self.wal_pages:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return more

    def close(self) -> None:
        """Last checkpoint; the connection is closed, without the one that SQLite would try again."""
        if not self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()

    def let_go(self) -> None:
        """The connection is closed as it is: another database takes the place of this one."""
        self.broken = "another database takes the place of this one"
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()

    def _checkpoint(self, mode: int) -> bool:
        if self.broken:
            return False
        try:
            self._connection.wal_checkpoint(mode=mode)
            self.wal_pages = 0
            self._weigh()
        except apsw.Error as error:
            self._is_fatal(error)
            return False
        return True

    def _weigh(self) -> None:
        """What database and WAL take on the disk now; the WAL keeps its length until it is truncated."""
        self._database_bytes = self._path.stat().st_size
        wal = self._path.with_name(f"{DATABASE}-wal")
        self._wal_bytes = wal.stat().st_size if wal.exists() else 0

    def _unlink(self) -> bool:
        """Remove the files of deleted parts, then forget them."""
        limit = self._params.idle_rows_max
        paths = [str(row[0]) for row in self._connection.execute("SELECT path FROM unlinkq LIMIT ?", (limit,))]
        if paths:
            self._files.unlink(paths)
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM unlinkq WHERE path = ?", [(path,) for path in paths])
            self._connection.execute("COMMIT")
        return len(paths) == limit

    def _sweep(self) -> bool:
        """Once after the start: remove files that a crash left without a row."""
        orphans = []
        for folder in range(self._swept, min(self._swept + SWEEP_FOLDERS, FANOUT)):
            for name, rid in self._files.names(folder):
                if rid < self._first_rid and not self._is_row(rid):
                    orphans.append(name)
            self._swept = folder + 1
        if orphans:
            self._files.unlink(orphans)
        return self._swept < FANOUT

    def _expire(self) -> bool:
        """Forget pointers whose time is over."""
        limit = self._params.idle_rows_max
        sql = "SELECT address, hash FROM pointer WHERE until <= ? LIMIT ?"
        keys = self._connection.execute(sql, (self._clock.now_unix_s(), limit)).fetchall()
        if keys:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM pointer WHERE address = ? AND hash = ?", keys)
            self._connection.execute("UPDATE meta SET pointers = pointers - ?", (len(keys),))
            self._connection.execute("COMMIT")
            self._books.tally.pointers -= len(keys)
        return len(keys) == limit

    def _shrink(self) -> bool:
        """Give free pages back to the file system, a few at a time."""
        free = int(self._connection.execute("PRAGMA freelist_count").get)
        if free <= max(FREE_PAGES_KEPT, self._database_bytes // PAGE_BYTES // 4):
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({self._params.idle_rows_max})").fetchall()
        return True

    # Helpers

    def _load_notes(self) -> None:
        notes = {}
        for name, packed in self._connection.execute("SELECT name, value FROM note"):
            try:
                notes[str(name)] = unpack_note(packed)
            except DamagedRow:
                continue  # as if it had never been noted
        self.notes = notes

    def _on_wal(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def _is_fatal(self, error: apsw.Error) -> bool:
        """Whether the store is broken by it; ends a transaction that is still open. Our own mistakes are raised."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if is_damage(error):
            self.damaged = True
            return False
        if _is_full(error) or isinstance(error, apsw.BusyError):
            return False
        if not isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.ReadOnlyError):
            raise error
        self.broken = f"the database could not be written: {error}"
        return True

    def _read_only(self) -> LockboxError:
        return LockboxError(f"the store is read-only: {self.broken}", "look at the disk, then start the node again")


def _is_full(error: apsw.Error) -> bool:
    """Whether the disk is full: for a page, or for the WAL index, which is a file too."""
    return isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE


def _answer_to(error: apsw.Error) -> LockboxError:
    if _is_full(error):
        return store_full()
    if isinstance(error, apsw.BusyError):
        return LockboxError("the store is in use by another program", "try again", ErrorCode.BUSY)
    return LockboxError("a page of the database is damaged", "try again: it is being rebuilt", ErrorCode.BUSY)


def _header(part: StripePart, rid: int) -> BigHeader:
    return BigHeader(
        part.address, part.descriptor_hash, part.version, rid, part.index, len(part.shards), len(part.shards[0])
    )
