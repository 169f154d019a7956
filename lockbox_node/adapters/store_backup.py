"""Backup of a running node: a copy of its database in one snapshot, its large files, and who it is.

Runs in a thread beside the writer. SQLite's backup API copies in bounded steps inside one read transaction, so that
writes neither wait for it nor make it start again; the copy is then checked page by page and as a whole, because a
backup that nobody opened is a hope. Large files are immutable: they are hard-linked, or copied to another file system.
`ShardStoreFile.holds` keeps files from being removed until those that the copy names are safe. A later run into the
same directory keeps the full copy and writes only the pages that differ from it (backup_delta). Format: backup_set.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters import backup_set, store_schema
from lockbox_node.adapters.backup_delta import write_delta
from lockbox_node.adapters.backup_set import BIG, CONFIG, IDENTITY, NETWORK, Advance, Manifest, Piece
from lockbox_node.adapters.disk import DISK
from lockbox_node.adapters.store_files import FANOUT, HEADER_BYTES, name_of
from lockbox_node.adapters.store_schema import CHECKSUM_BYTES, CHECKSUM_VFS, DATABASE, PAGE_BYTES
from lockbox_node.errors import ConfigError, LockboxError, ShardCorrupt, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL, DELTA = "full", "delta"
COPY = "copy.db"
STEP_PAGES = 128
CHECK_STEPS = 100_000  # of SQLite's machine, between two looks at whether to go on
DELTA_SHARE_MAX = 0.5  # of the full copy: beyond it a new full one is the better backup
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the node that is backed up lives."""

    data_dir: Path
    config: Path
    network: Path

    def small_files(self) -> Iterator[tuple[Path, str]]:
        """(file, its path in the backup) of what makes the node itself; the identity key is among it."""
        yield self.config, CONFIG
        yield self.network, NETWORK
        yield self.data_dir / "STORE", "STORE"
        for entry in sorted(os.scandir(self.data_dir / IDENTITY), key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=True):
                yield self.data_dir / IDENTITY / entry.name, f"{IDENTITY}/{entry.name}"
        if (self.data_dir / "members").exists():
            yield self.data_dir / "members", "members"


@dataclass(frozen=True, slots=True)
class BackupDone:
    """A finished backup. `written_bytes` = what this run added; `why_full` says why no delta was possible."""

    manifest: Manifest
    written_bytes: int
    linked: int
    copied: int
    missing: int
    why_full: str
    same_disk: bool

    @property
    def grown(self) -> bool:
        """Whether the delta has become so large that a new full backup is the better one."""
        delta = self.manifest.delta
        return delta is not None and delta.size > DELTA_SHARE_MAX * self.manifest.full.size


class Backup:
    """One run: `copy` while the store holds its files, then `finish`. LockboxError; every OSError is one too."""

    def __init__(self, sources: Sources, directory: Path, made_unix_s: int, advance: Advance, *, full: bool) -> None:
        self.total_bytes = 0  # to go through, known once `copy` has begun
        self._database_bytes = 0
        self._sources = sources
        self._directory = directory
        self._made_unix_s = made_unix_s
        self._advance = advance
        self._full = full
        self._why_full = "asked for" if full else ""
        self._previous: Manifest | None = None
        self._number = 0  # of this run's pieces, once the directory is known to be ours
        self._stale: list[Path] = []  # large files that the new backup does not name
        self._big_files = self._big_bytes = self._linked = self._copied = self._copied_bytes = self._missing = 0

    @property
    def _copy_path(self) -> Path:
        return self._directory / COPY

    def copy(self) -> None:
        """Database and large files, as they stand at one moment."""
        try:
            with closing(store_schema.connect(self._sources.data_dir / DATABASE)) as source:
                source.execute("PRAGMA query_only=ON")
                source.execute("BEGIN")
                self._prepare(self._figures(source))
                self._copy_database(source)
            with closing(store_schema.connect(self._copy_path)) as copied:
                self._link_big(copied)
        except OSError as error:
            raise backup_set.trouble(self._directory, error) from None
        except apsw.Error as error:
            raise _unreadable(error) from None

    def finish(self) -> BackupDone:
        """Check the copy, keep it or what differs, add the small files; the manifest makes it count; tidy up."""
        try:
            with closing(store_schema.connect(self._copy_path)) as copied:
                self._check(copied)
                node, store, epoch, parts = copied.execute("SELECT node, store, epoch, stripes FROM meta").get
            database, full, delta = self._keep()
            manifest = Manifest(
                format=backup_set.FORMAT,
                number=self._number,
                kind=DELTA if delta else FULL,
                node=bytes(node).hex(),
                store=store,
                epoch=epoch,
                made_unix_s=self._made_unix_s,
                parts=parts,
                big_files=self._big_files,
                big_bytes=self._big_bytes,
                database=database,
                full=full,
                delta=delta,
                files=self._small_files(),
            )
            DISK.flush_directory(self._directory)
            backup_set.save_manifest(self._directory, manifest)
            self._tidy(manifest)
        except OSError as error:
            raise backup_set.trouble(self._directory, error) from None
        except apsw.Error as error:
            raise _unreadable(error) from None
        new = delta or full
        written = new.size + sum(piece.size for piece in manifest.files) + self._copied_bytes
        same_disk = self._directory.stat().st_dev == self._sources.data_dir.stat().st_dev
        why_full = "" if delta else self._why_full
        return BackupDone(manifest, written, self._linked, self._copied, self._missing, why_full, same_disk)

    def discard(self) -> None:
        """Remove what an unfinished run wrote, except for links. Never touches a finished backup, never fails."""
        if not self._number:
            return
        own = [COPY, f"{COPY}-wal", f"{COPY}-shm", f"delta-{self._number:04d}", f"node-{self._number:04d}"]
        with contextlib.suppress(OSError):  # the error that ended the run is told; the next run tidies up
            self._remove([self._directory / name for name in [*own, f"full-{self._number:04d}.db"]])

    # Before anything is copied

    def _figures(self, source: apsw.Connection) -> str:
        """The store's uuid; the first read fixes the snapshot."""
        store, big_bytes = source.execute("SELECT store, big_bytes FROM meta").get
        self._database_bytes = PAGE_BYTES * int(source.execute("PRAGMA page_count").get)
        self.total_bytes = 2 * self._database_bytes + int(big_bytes)
        return str(store)

    def _prepare(self, store: str) -> None:
        if self._directory.resolve().is_relative_to(self._sources.data_dir.resolve()):
            raise UsageError(
                f"{self._directory} lies in the node's own directory", "give one outside of it, best on another disk"
            )
        backup_set.claim(self._directory, store)
        try:
            self._previous = backup_set.load_manifest(self._directory)
        except ConfigError:
            raise
        except LockboxError:
            self._why_full = self._why_full or "no earlier one is whole"
        else:
            self._remove(backup_set.unnamed(self._directory, self._previous))
        self._number = backup_set.next_number(self._directory)
        self._copy_path.unlink(missing_ok=True)
        free = shutil.disk_usage(self._directory).free
        if free < self._database_bytes:
            raise LockboxError(
                f"{self._directory} has {free:,} bytes free, a copy of the database needs {self._database_bytes:,}",
                "make room there, or give a directory on another disk",
            )

    # The copy

    def _copy_database(self, source: apsw.Connection) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        with closing(apsw.Connection(str(self._copy_path), flags=flags, vfs=CHECKSUM_VFS)) as target:
            self._copy_path.chmod(0o600)
            # A first page with room for checksums must be there before others are: they get none otherwise.
            target.reserve_bytes(reserve=CHECKSUM_BYTES)
            target.execute(f"PRAGMA page_size={PAGE_BYTES}; VACUUM").fetchall()
            target.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").fetchall()
            with target.backup("main", source, "main") as steps:
                left = 0
                while not steps.done:
                    steps.step(STEP_PAGES)
                    self._advance(PAGE_BYTES * max(0, left - steps.remaining))
                    left = steps.remaining

    def _link_big(self, copied: apsw.Connection) -> None:
        """Bring the large files that the copy names, folder by folder."""
        sql = "SELECT address, rid, shards * shard_bytes FROM part WHERE big = 1 AND corrupt = 0 AND address >= ?"
        big = self._directory / BIG
        for number in range(FANOUT):
            folder = big / f"{number:02x}"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = {entry.name for entry in os.scandir(folder)}
            upper = (" AND address < ?", (bytes([number]), bytes([number + 1]))) if number < 255 else ("", (b"\xff",))
            named = set()
            for address, rid, size in copied.execute(sql + upper[0], upper[1]):
                name = name_of(bytes(address), int(rid))
                named.add(name[3:])
                self._bring(name, HEADER_BYTES + int(size), known=name[3:] in there)
                self._advance(int(size))
            self._stale += [folder / name for name in sorted(there - named)]
            if named - there:
                DISK.flush_directory(folder)
        DISK.flush_directory(big)

    def _bring(self, name: str, size: int, *, known: bool) -> None:
        source, target = self._sources.data_dir / BIG / name, self._directory / BIG / name
        self._big_files += 1
        self._big_bytes += size
        if known and _same(source, target, size):
            return
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
            self._linked += 1
        except FileNotFoundError:  # damage found meanwhile: moved aside; restore marks the part
            self._missing += 1
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            draft = target.with_name(f"{target.name}.new")
            draft.unlink(missing_ok=True)
            self._copied_bytes += backup_set.copy_file(source, draft, lambda _count: self._advance(0))[0]
            draft.rename(target)
            self._copied += 1

    # What is kept of it

    def _check(self, copied: apsw.Connection) -> None:
        """Every page against its checksum, and the whole against itself."""

        def go_on() -> bool:
            self._advance(0)
            return False

        copied.set_progress_handler(go_on, CHECK_STEPS)
        said = copied.execute("PRAGMA integrity_check(1)").get
        copied.set_progress_handler(None)
        if said != "ok":
            raise ShardCorrupt("the database of this node is damaged: no backup was made", "drain this node")

    def _keep(self) -> tuple[Piece, Piece, Piece | None]:
        """(the database as it will be restored, the full copy, the delta) of the new backup."""
        previous = self._previous
        if not self._full and previous is not None:
            full = self._directory / previous.full.path
            name = f"delta-{self._number:04d}"
            try:
                made = write_delta(full, self._copy_path, self._directory / name, self._advance)
            except FileNotFoundError:
                self._why_full = "the full copy is missing"
            else:
                if made.full_sha256 == previous.full.sha256:
                    self._copy_path.unlink()
                    database = Piece(DATABASE, made.newer_bytes, made.newer_sha256)
                    return database, previous.full, Piece(name, made.delta_bytes, made.delta_sha256)
                self._why_full = "the full copy is damaged"
        path = self._directory / f"full-{self._number:04d}.db"
        size, sha256 = backup_set.measure(self._copy_path, self._advance)
        backup_set.sync_file(self._copy_path)
        self._copy_path.rename(path)
        return Piece(DATABASE, size, sha256), Piece(path.name, size, sha256), None

    def _small_files(self) -> list[Piece]:
        home = self._directory / f"node-{self._number:04d}"
        pieces = []
        for source, name in self._sources.small_files():
            target = home / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            size, sha256 = backup_set.copy_file(source, target, self._advance)
            pieces.append(Piece(f"{home.name}/{name}", size, sha256))
            DISK.flush_directory(target.parent)
        DISK.flush_directory(home)
        return pieces

    def _tidy(self, manifest: Manifest) -> None:
        """Remove what the new manifest does not name."""
        self._remove(backup_set.unnamed(self._directory, manifest))
        for path in self._stale:
            path.unlink(missing_ok=True)

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _same(source: Path, target: Path, size: int) -> bool:
    """Whether `target` is the file of this part already: linked, or a whole copy with the same header."""
    if target.stat().st_size != size:
        return False
    try:
        if source.samefile(target):
            return True
        with source.open("rb") as one, target.open("rb") as other:
            return one.read(HEADER_BYTES) == other.read(HEADER_BYTES)
    except FileNotFoundError:
        return True  # moved aside since the last run: the copy is all there is


def _unreadable(error: apsw.Error) -> LockboxError:
    if isinstance(error, apsw.FullError):
        return LockboxError("the disk of the backup is full", "make room there, or give another directory")
    return ShardCorrupt(f"the database cannot be copied: {error}", "drain this node, or restore an earlier backup")
