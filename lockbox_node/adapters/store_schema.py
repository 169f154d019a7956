"""The database of the shard store: connection settings, format, migrations, and the layout of its directory.

WAL with synchronous=FULL: a commit is one flush, and what was acknowledged survives a power loss. The checksum VFS puts
8 bytes behind every page, so a flipped bit in a page is an error, never a wrong row. SQLite before 3.51.3 can corrupt
a database when the WAL restarts and is refused. One transaction per migration; `user_version` says which ran.
STORE holds the same uuid as the database, so that a missing or swapped disk is noticed, not taken for an empty store.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from typing import TYPE_CHECKING

import apsw
import apsw.sqlite_extra

from lockbox_node.adapters.disk import DISK, Disk
from lockbox_node.errors import ConfigError
from protocol.held import bucket_of, held_digest, sum_bytes

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "shards.db"
DRAFT = "shards.new"
CHECKSUM_VFS = "cksmvfs"
CHECKSUM_BYTES = 8
PAGE_BYTES = 4096
CACHE_KIB = 16 * 1024
SQLITE_MIN = 3_051_003
APPLICATION_ID = 0x4C424F58  # "LBOX"
RID_SKIP = 1 << 20  # row ids are never reused: those of an unfinished run are skipped (at most one group of them)

MIGRATIONS = (
    """
CREATE TABLE meta(
    one INTEGER PRIMARY KEY CHECK (one = 1), store TEXT NOT NULL, node BLOB NOT NULL,
    next_rid INTEGER NOT NULL,
    stripes INTEGER NOT NULL DEFAULT 0, shards INTEGER NOT NULL DEFAULT 0, logical_bytes INTEGER NOT NULL DEFAULT 0,
    big_bytes INTEGER NOT NULL DEFAULT 0, corrupt INTEGER NOT NULL DEFAULT 0, pointers INTEGER NOT NULL DEFAULT 0,
    tombstones INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE part(
    rid INTEGER PRIMARY KEY, address BLOB NOT NULL, hash BLOB NOT NULL, version INTEGER NOT NULL,
    tier INTEGER NOT NULL, lease INTEGER NOT NULL, idx INTEGER NOT NULL, corrupt INTEGER NOT NULL,
    big INTEGER NOT NULL, shards INTEGER NOT NULL, shard_bytes INTEGER NOT NULL, logical_bytes INTEGER NOT NULL,
    entries BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX part_identity ON part(address, hash);
CREATE TABLE body(rid INTEGER PRIMARY KEY, head BLOB NOT NULL, shards BLOB NOT NULL) STRICT;
CREATE TABLE named(prefix INTEGER NOT NULL, rid INTEGER NOT NULL, PRIMARY KEY (prefix, rid)) STRICT, WITHOUT ROWID;
CREATE TABLE pointer(
    address BLOB NOT NULL, hash BLOB NOT NULL, version INTEGER NOT NULL, entries BLOB NOT NULL,
    until INTEGER NOT NULL, PRIMARY KEY (address, hash)) STRICT, WITHOUT ROWID;
CREATE INDEX pointer_until ON pointer(until);
CREATE TABLE tomb(
    address BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL,
    at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE unlinkq(path TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
""",
    # Owners and their usage, leases that end (trashed = uptime of the store in seconds, -1 = live), renewals, times of
    # tombstones, digests by bucket (`digest_news` = changes since the last fold), notes, the epoch, and up to
    # which row id `named` is written.
    """
ALTER TABLE meta ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN trash_stripes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN trash_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN named_until INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET named_until = next_rid, big_bytes = big_bytes + 256 * (SELECT count(*) FROM part WHERE big = 1);
ALTER TABLE part ADD COLUMN trashed INTEGER NOT NULL DEFAULT -1;
ALTER TABLE part ADD COLUMN owner BLOB NOT NULL DEFAULT x'';
ALTER TABLE part ADD COLUMN renewal BLOB NOT NULL DEFAULT x'';
CREATE INDEX part_lease ON part(lease) WHERE trashed < 0;
CREATE INDEX part_trashed ON part(trashed) WHERE trashed >= 0;
ALTER TABLE tomb ADD COLUMN until INTEGER NOT NULL DEFAULT 9223372036854775807;
CREATE INDEX tomb_until ON tomb(until);
CREATE TABLE usage(owner BLOB NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL, parts INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
INSERT INTO usage SELECT owner, sum(logical_bytes), count(*) FROM part GROUP BY owner;
CREATE TABLE digest(bucket INTEGER PRIMARY KEY, parts INTEGER NOT NULL, sum BLOB NOT NULL) STRICT;
INSERT INTO digest SELECT held_bucket(address), count(*), held_sum(address, version, hash) FROM part GROUP BY 1;
CREATE TABLE digest_news(number INTEGER PRIMARY KEY, changes BLOB NOT NULL) STRICT;
CREATE TABLE note(name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
""",
    # The index of holders by blocks of parts; it is written behind again from the first part on.
    """
DROP TABLE named;
CREATE TABLE named(prefix INTEGER NOT NULL, block INTEGER NOT NULL, places BLOB NOT NULL, PRIMARY KEY (prefix, block))
    STRICT, WITHOUT ROWID;
UPDATE meta SET named_until = 0;
""",
)


class DamagedDatabase(ConfigError):
    """The database cannot be opened because its bytes are not those that were written."""


def is_damage(error: apsw.Error) -> bool:
    """Whether a page of the database is not as SQLite wrote it."""
    damaged = isinstance(error, apsw.CorruptError | apsw.NotADBError)
    return damaged or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA


def require_sqlite(version_number: int) -> None:
    """ConfigError unless SQLite is 3.51.3 or later (as a number: 3051003)."""
    if version_number < SQLITE_MIN:
        text = f"{version_number // 1_000_000}.{version_number // 1000 % 1000}.{version_number % 1000}"
        raise ConfigError(
            f"SQLite {text} can corrupt a database when its WAL restarts; 3.51.3 or later is needed",
            "install apsw from its wheel, which brings its own SQLite",
        )


def _load_checksums() -> None:
    if CHECKSUM_VFS not in apsw.vfs_names():
        carrier = apsw.Connection(":memory:")
        apsw.sqlite_extra.load(carrier, "cksumvfs")
        carrier.close()


def checksum_connection() -> apsw.Connection:
    """A connection to nothing, for the SQL function verify_checksum(page)."""
    _load_checksums()
    return apsw.Connection(":memory:")


def connect(path: Path, *, fresh: bool = False) -> apsw.Connection:
    """A connection with our settings, through the checksum VFS. `fresh`: the database may be made."""
    require_sqlite(int(apsw.SQLITE_VERSION_NUMBER))
    _load_checksums()
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if fresh else 0)
    connection = apsw.Connection(str(path), flags=flags, vfs=CHECKSUM_VFS)
    if fresh:
        connection.reserve_bytes(reserve=CHECKSUM_BYTES)
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL; VACUUM").fetchall()
    if int(connection.execute("PRAGMA checksum_verification").get or 0) != 1:
        connection.close()
        raise DamagedDatabase(f"{path.name} has no page checksums", "restore a backup that a lockbox-node made")
    connection.execute(
        f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0;"
        f"PRAGMA cache_size=-{CACHE_KIB}; PRAGMA foreign_keys=OFF; PRAGMA temp_store=MEMORY"
    ).fetchall()  # apsw runs no further than the first row otherwise
    return connection


class _HeldSum:
    """SQL's held_sum(address, version, hash): the sum of held digests of a group, 32 bytes."""

    def __init__(self) -> None:
        self._total = 0

    def step(self, *values: apsw.SQLiteValue) -> None:
        address, version, descriptor_hash = values
        assert isinstance(address, bytes)
        assert isinstance(version, int)
        assert isinstance(descriptor_hash, bytes)
        self._total += held_digest(address, version, descriptor_hash)

    def final(self) -> bytes:
        return sum_bytes(self._total)


def _held_bucket(*values: apsw.SQLiteValue) -> int:
    (address,) = values
    assert isinstance(address, bytes)
    return bucket_of(address)


def migrate(connection: apsw.Connection, store: str, node: bytes) -> None:
    """Bring the database to the newest format, one transaction per step. ConfigError when it is newer than we."""
    connection.create_scalar_function("held_bucket", _held_bucket, 1, deterministic=True)
    connection.create_aggregate_function("held_sum", _HeldSum, 3)
    version = int(connection.execute("PRAGMA user_version").get)
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"shards.db has format {version}, this program knows up to {len(MIGRATIONS)}",
            "start the version that wrote it, or a later one",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(MIGRATIONS[number]).fetchall()
        if number == 0:
            connection.execute("INSERT INTO meta(one, store, node, next_rid) VALUES (1, ?, ?, 1)", (store, node))
        connection.execute(
            f"PRAGMA user_version={number + 1}; PRAGMA application_id={APPLICATION_ID}; COMMIT"
        ).fetchall()


def lock(data_dir: Path) -> int:
    """The descriptor that holds the flock on `lock`; close it to let go. ConfigError when a second daemon runs."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(
            f"another lockbox-node already runs on {data_dir}", "stop it, or give this one its own data_dir"
        ) from None
    return descriptor


def open_database(data_dir: Path, node: bytes, disk: Disk = DISK) -> apsw.Connection:
    """The writer's connection, migrated and matched with STORE; makes both in an empty directory. ConfigError."""
    path, marker = data_dir / DATABASE, data_dir / "STORE"
    if marker.exists() and not path.exists():
        raise ConfigError(
            f"{data_dir} has a STORE but no {DATABASE}: its disk is missing or it was deleted",
            "mount the disk, restore a backup, or remove STORE to begin with nothing",
        )
    store = marker.read_text().strip() if marker.exists() else ""
    fresh = not path.exists() or not path.stat().st_size
    connection: apsw.Connection | None = None
    try:
        if fresh:
            _make_database(path, store or str(uuid.uuid4()), node, disk)
        connection = connect(path)
        migrate(connection, store or str(uuid.uuid4()), node)
        inside, owner = connection.execute("SELECT store, node FROM meta").get
        connection.execute("UPDATE meta SET next_rid = next_rid + ?, epoch = epoch + 1", (RID_SKIP,))
    except (apsw.Error, ConfigError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ConfigError):
            raise
        full = isinstance(error, apsw.FullError)
        hint = "make room on its disk" if full else "restore a backup, or begin with another dir"
        kind = DamagedDatabase if is_damage(error) else ConfigError
        raise kind(f"{path} cannot be used: {error}", hint) from None
    if store and inside != store:
        connection.close()
        raise ConfigError(
            f"{DATABASE} belongs to store {inside}, STORE says {store}: parts of two nodes are mixed",
            "mount the disk that belongs here, or restore a backup",
        )
    if node and not owner:
        connection.execute("UPDATE meta SET node = ?", (node,))
    elif node and owner != node:
        connection.close()
        raise ConfigError(
            f"{data_dir} is the data_dir of node {owner.hex()[:8]}, not of {node.hex()[:8]}",
            "use the identity that belongs to it, or another data_dir",
        )
    if not store:
        _write_marker(data_dir, inside, disk)
    return connection


def _make_database(path: Path, store: str, node: bytes, disk: Disk) -> None:
    """Under another name first: a power loss leaves no database or a whole one, never one that is refused."""
    draft = path.with_name(DRAFT)
    for leftover in sorted(path.parent.glob(f"{DRAFT}*")):
        disk.unlink(leftover)
    connection = connect(draft, fresh=True)
    try:
        migrate(connection, store, node)
    finally:
        connection.close()
    disk.rename(draft, path)
    disk.flush_directory(path.parent)


def _write_marker(data_dir: Path, store: str, disk: Disk) -> None:
    fresh = data_dir / "STORE.new"
    if fresh.exists():
        disk.unlink(fresh)
    descriptor = disk.create(fresh)
    try:
        disk.write(descriptor, [f"{store}\n".encode()])
        disk.flush(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(fresh, data_dir / "STORE")
    disk.flush_directory(data_dir)
