"""Damage done on purpose to the stored shards of one node of a test network.

One bit of a shard is flipped where it lies, in the database (through the checksum VFS, so that the page is sound and
the shard is not) or in its large file, while the daemon runs: what a disk does that lies. Which shards and which bits
is chosen by a seeded dice.
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

KEPT_BY_WIPE = frozenset({"node.toml", "identity", "network"})
BUSY_MS = 10_000  # the daemon may hold the write lock


def corrupt(data_dir: Path, share: float, seed: int) -> int:
    """Flip one bit in every stored shard, or in about `share` (0 to 1) of them; how many were changed."""
    from lockbox_node.adapters import store_schema

    if not (data_dir / store_schema.DATABASE).is_file():
        raise LockboxError(f"{data_dir} holds no {store_schema.DATABASE}", "has this node ever run?")
    dice = random.Random(seed)
    changed = 0
    database = store_schema.connect(data_dir / store_schema.DATABASE)
    try:
        database.set_busy_timeout(BUSY_MS)
        with database:
            parts: list[Any] = database.execute("SELECT rid, address, big, shards, shard_bytes FROM part").fetchall()
            for rid, address, big, shards, shard_bytes in parts:
                starts = [number * shard_bytes for number in range(shards) if dice.random() < share]
                bits = [start * 8 + dice.randrange(shard_bytes * 8) for start in starts]
                changed += _flip_file(data_dir, address, rid, bits) if big else _flip_row(database, rid, bits)
    finally:
        database.close()
    return changed


def wipe(data_dir: Path) -> None:
    """Remove all that the node stored or remembers; its configuration, identity and network documents stay."""
    for path in data_dir.iterdir():
        if path.name in KEPT_BY_WIPE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _flip_row(database: apsw.Connection, rid: int, bits: list[int]) -> int:
    row = database.execute("SELECT shards FROM body WHERE rid = ?", (rid,)).fetchone()
    if row is None or not bits:
        return 0
    body = bytearray(row[0])
    for bit in bits:
        body[bit // 8] ^= 1 << bit % 8
    database.execute("UPDATE body SET shards = ? WHERE rid = ?", (bytes(body), rid))
    return len(bits)


def _flip_file(data_dir: Path, address: bytes, rid: int, bits: list[int]) -> int:
    from lockbox_node.adapters.store_files import HEADER_BYTES, name_of

    try:
        with (data_dir / "big" / name_of(address, rid)).open("r+b") as file:
            for bit in bits:
                file.seek(HEADER_BYTES + bit // 8)
                byte = file.read(1)[0]
                file.seek(HEADER_BYTES + bit // 8)
                file.write(bytes([byte ^ 1 << bit % 8]))
    except FileNotFoundError:  # in quarantine: damaged already
        return 0
    return len(bits)
