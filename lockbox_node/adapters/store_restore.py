"""Restore of a backup into an empty directory: everything is checked before anything counts.

All is built below `.restoring` and moved up at the end, node.toml last, so that a restore that was cut short is no node
that somebody could start. Every piece must have the size and SHA-256 of the manifest, the database as a whole too; it
is then opened through the checksum VFS and checked. A large part that is missing or not what its owner signed is marked
corrupt: its siblings will be asked for it. The restored node outranks the one that it was copied from: its epoch rises
by EPOCH_STEP at least, and to the time of the restore, so that of two restores the later one wins.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import apsw
import msgpack

from lockbox_node.adapters import backup_set, store_schema
from lockbox_node.adapters.backup_delta import apply_delta
from lockbox_node.adapters.backup_set import BIG, CONFIG, IDENTITY, Advance, Manifest, Piece, damaged
from lockbox_node.adapters.disk import DISK
from lockbox_node.adapters.store_files import BigFiles, name_of
from lockbox_node.adapters.store_reader import Damage, Get, StoreReader
from lockbox_node.adapters.store_rows import pack_note
from lockbox_node.adapters.store_schema import DATABASE
from lockbox_node.config import Config, NodeSettings, load, to_toml
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.ports import WallClock

STAGING = ".restoring"
NOTE = "restored"
EPOCH_STEP = 1_000_000


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `marked` = large parts that the backup did not hold whole."""

    manifest: Manifest
    config: Path
    listen: str
    advertised: str
    epoch: int
    marked: int


def restore(source: Path, target: Path, clock: WallClock, advance: Advance) -> Restored:
    """Make the node of the newest backup in `source` in the empty directory `target`.

    AssetNotFound without a backup, exit 6 when any of its pieces is not what was written; nothing is left in `target`
    then. UsageError when `target` holds anything.
    """
    manifest = backup_set.load_manifest(source)
    staging = target / STAGING
    if target.resolve().is_relative_to(source.resolve()):  # the next backup would remove it as rubbish
        raise UsageError(f"{target} lies in the backup itself", "give a directory outside of it")
    try:
        _require_empty(target)
        staging.mkdir(mode=0o700)
        try:
            _small_files(source, staging, manifest, advance)
            _database(source, staging, manifest, advance)
            _check(staging / DATABASE)
            with closing(store_schema.open_database(staging, bytes.fromhex(manifest.node))) as connection:
                lost = _big_files(source, staging, connection, clock, advance)
                epoch = _mark(connection, manifest, lost, int(clock.now_unix_s()))
            backup_set.sync_file(staging / DATABASE)
            settings = _own_paths(staging / CONFIG).node
            _move_up(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    except OSError as error:
        raise backup_set.trouble(target, error) from None
    return Restored(manifest, target / CONFIG, settings.listen, settings.advertised, epoch, len(lost))


def _require_empty(target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = sorted({entry.name for entry in os.scandir(target)} - {"lost+found"})
    if found:
        what = "a node already" if DATABASE in found or CONFIG in found else f"{found[0]} already"
        raise UsageError(f"{target} holds {what}", "give a new or empty directory: nothing is overwritten")


# The pieces


def _small_files(source: Path, staging: Path, manifest: Manifest, advance: Advance) -> None:
    for piece in manifest.files:
        _, _, name = piece.path.partition("/")
        (staging / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_piece(source, piece, staging / name, advance)
    for needed in (CONFIG, "STORE", IDENTITY):
        if not (staging / needed).exists():
            raise damaged(f"{source} lacks {needed}")


def _copy_piece(source: Path, piece: Piece, target: Path, advance: Advance) -> None:
    try:
        copied = backup_set.copy_file(source / piece.path, target, advance)
    except FileNotFoundError:
        raise damaged(f"{source / piece.path} is missing") from None
    if copied != (piece.size, piece.sha256):
        raise damaged(f"{source / piece.path} is damaged")


def _database(source: Path, staging: Path, manifest: Manifest, advance: Advance) -> None:
    """Full copy and delta put together; the result must be, to the byte, the database that was backed up."""
    path = staging / DATABASE
    _copy_piece(source, manifest.full, path, advance)
    if manifest.delta is not None:
        delta = staging / "delta"
        _copy_piece(source, manifest.delta, delta, advance)
        apply_delta(delta, path, advance)
        delta.unlink()
    if backup_set.measure(path, advance) != (manifest.database.size, manifest.database.sha256):
        raise damaged(f"the pieces of {source} do not give the database that was backed up")


def _check(path: Path) -> None:
    """Every page through the checksum VFS, every row against its index."""
    try:
        with closing(store_schema.connect(path)) as connection:
            said = connection.execute("PRAGMA integrity_check(1)").get
    except apsw.Error as error:
        said = str(error)
    if said != "ok":
        raise damaged(f"the database of the backup is damaged ({said})")


# Large parts


def _big_files(
    source: Path, staging: Path, connection: apsw.Connection, clock: WallClock, advance: Advance
) -> list[int]:
    """Copy and verify the large parts; the row ids of those that are missing or not what was signed."""
    files = BigFiles(staging)
    files.prepare()
    reader = StoreReader(connection, files, StoreParams(), clock)
    lost: list[int] = []
    sql = "SELECT rid, address, hash FROM part WHERE big = 1 AND corrupt = 0 ORDER BY address, rid"
    rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    for rid, address, descriptor_hash in rows:
        name = name_of(address, rid)
        try:
            backup_set.copy_file(source / BIG / name, staging / BIG / name, advance)
        except FileNotFoundError:
            lost.append(rid)
            continue
        (result,) = reader.read([Get(address, descriptor_hash)])
        if isinstance(result, Damage):
            (staging / BIG / name).unlink()
            lost.append(rid)
        elif isinstance(result, LockboxError):
            raise result
    for folder in sorted({name_of(address, rid)[:2] for rid, address, _ in rows}):
        DISK.flush_directory(staging / BIG / folder)
    return lost


def _mark(connection: apsw.Connection, manifest: Manifest, lost: list[int], now_unix_s: int) -> int:
    """In one transaction: what is lost, the note of the restore, the epoch above that of the copied node."""
    execute = connection.execute
    note = msgpack.packb({"unix_s": now_unix_s, "backup_unix_s": manifest.made_unix_s})
    execute("BEGIN IMMEDIATE")
    for rid in lost:
        execute("UPDATE part SET corrupt = 1 WHERE rid = ?", (rid,))
    execute("UPDATE meta SET corrupt = corrupt + ?", (len(lost),))
    execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (NOTE, pack_note(note)))
    epoch = int(execute("UPDATE meta SET epoch = max(epoch + ?, ?) RETURNING epoch", (EPOCH_STEP, now_unix_s)).get)
    execute("COMMIT")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return epoch


# The end


def _own_paths(path: Path) -> Config:
    """node.toml with the layout of the new directory; as it was when that is the same."""
    config = load(path)
    usual = NodeSettings()
    if (config.node.data_dir, config.node.network) != (usual.data_dir, usual.network):
        config = replace(config, node=replace(config.node, data_dir=usual.data_dir, network=usual.network))
        backup_set.replace_file(path, to_toml(config).encode())
    return config


def _move_up(staging: Path, target: Path) -> None:
    for folder, _, _ in os.walk(staging):
        if not folder.startswith(str(staging / BIG)):
            DISK.flush_directory(staging / os.path.relpath(folder, staging))
    names = sorted(entry.name for entry in os.scandir(staging))
    for name in [*(name for name in names if name != CONFIG), CONFIG]:
        DISK.flush_directory(target)
        (staging / name).rename(target / name)
    staging.rmdir()
    DISK.flush_directory(target)
