"""Damage done on purpose to the stored shards of one node of a test network.

Bits are flipped where the shards lie, in the database and in the big files, while the daemon runs: what a failing
disk does. Only the share asked for is touched, chosen by a seeded dice.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from pathlib import Path


def corrupt(data_dir: Path, share: float, seed: int) -> int:
    """Flip one bit in about `share` (0 to 1) of the stripe parts of a node; how many were changed."""
    import apsw

    dice = random.Random(seed)
    if not (data_dir / "shards.db").is_file():
        raise LockboxError(f"{data_dir} holds no shards.db", "has this node ever run?")
    changed = 0
    database = apsw.Connection(str(data_dir / "shards.db"))
    try:
        database.set_busy_timeout(10_000)
        with database:
            for (rid,) in list(database.execute("SELECT rid FROM body")):
                if dice.random() < share:
                    changed += _flip_row(database, rid, dice)
    finally:
        database.close()
    for path in sorted((data_dir / "big").glob("*/*")):
        if dice.random() < share:
            changed += _flip_file(path, dice)
    return changed


def _flip_row(database: object, rid: int, dice: random.Random) -> int:
    import apsw

    assert isinstance(database, apsw.Connection)
    row = database.execute("SELECT data FROM body WHERE rid = ?", (rid,)).fetchone()
    if row is None or not row[0]:
        return 0
    body = bytearray(row[0])
    body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    database.execute("UPDATE body SET data = ? WHERE rid = ?", (bytes(body), rid))
    return 1


def _flip_file(path: Path, dice: random.Random) -> int:
    header = 256
    size = path.stat().st_size
    if size <= header:
        return 0
    with path.open("r+b") as file:
        at = dice.randrange(header, size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))
    return 1
