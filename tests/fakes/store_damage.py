"""Damage as a disk does it: a bit of a stored shard, in its file or in its row with a good page checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_files import HEADER_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.ports import StripePart


def flip_shard_bit(data_dir: Path, part: StripePart) -> None:
    """Flip one bit of the part's first shard, from a connection of its own."""
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    connection.set_busy_timeout(5000)
    key = (part.address, part.descriptor_hash)
    rid, big = connection.execute("SELECT rid, big FROM part WHERE address = ? AND hash = ?", key).get
    if big:
        (path,) = (data_dir / "big").glob(f"*/{part.address.hex()}-{rid}")
        raw = bytearray(path.read_bytes())
        raw[HEADER_BYTES + 10] ^= 1
        path.write_bytes(raw)
    else:
        shards = bytearray(connection.execute("SELECT shards FROM body WHERE rid = ?", (rid,)).get)
        shards[10] ^= 1
        connection.execute("UPDATE body SET shards = ? WHERE rid = ?", (bytes(shards), rid))
    connection.close()
