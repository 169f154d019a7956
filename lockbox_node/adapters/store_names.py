"""The index of a shard store from a node to the parts whose table names it, written behind the puts.

A put would otherwise touch a page for each of its holders, ten and more for one part. So the index holds the parts
below a row id (`named_until`), and the parts from there on, which are the latest, are looked through one by one; in
quiet moments, and at checkpoints once enough have come, the index catches up. A row of it lists a whole block of
parts for one node, two bytes a part, so that parts with the same holders share a row. `entries` of the parts decide in
the end: the index only finds candidates.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_rows import PART_COLUMNS, PartRow, prefix_of, prefixes, unpack_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

    from protocol.messages import HolderEntry

FOLD_ROWS = 2000  # of one transaction
BLOCK = 1024  # row ids of one row
_ADD = (  # || makes a text of two blobs, of the same bytes
    "INSERT INTO named VALUES (?, ?, ?) ON CONFLICT (prefix, block) "
    "DO UPDATE SET places = CAST(places || excluded.places AS BLOB)"
)
_PUT = "INSERT OR REPLACE INTO named VALUES (?, ?, ?)"
_GET = "SELECT places FROM named WHERE prefix = ? AND block = ?"
_DELETE = "DELETE FROM named WHERE prefix = ? AND block = ?"
_BLOCKS = "SELECT block, places FROM named WHERE prefix = ? AND block >= ? ORDER BY block"
_PART = f"SELECT {PART_COLUMNS} FROM part WHERE rid = ?"  # noqa: S608  # our column names
_LATEST = f"SELECT {PART_COLUMNS} FROM part WHERE rid > ? ORDER BY rid LIMIT ?"  # noqa: S608
_HIGHEST = "SELECT coalesce(max(rid), 0) FROM part"
_UNFOLDED = "SELECT rid, entries FROM part WHERE rid >= ? ORDER BY rid LIMIT ?"

Key = tuple[int, int]  # prefix, block


class Names:
    """The writer's side. Every method but `fold` runs inside its transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._edits: dict[Key, dict[int, bool]] = {}  # of this transaction: place -> whether it is to be there
        self.until = int(connection.execute("SELECT named_until FROM meta").get)

    def changed(self, rid: int, old: Sequence[HolderEntry], new: Sequence[HolderEntry]) -> None:
        """The table of a standing part is another now."""
        if rid < self.until:
            before, after = prefixes(old), prefixes(new)
            self._edit(rid, before - after, there=False)
            self._edit(rid, after - before, there=True)

    def went(self, row: PartRow) -> None:
        """The part is gone."""
        if row.rid < self.until:
            self._edit(row.rid, prefixes(row.entries), there=False)

    def save(self) -> None:
        """Write what changed, before the commit."""
        execute = self._connection.execute
        for key, edits in sorted(self._edits.items()):
            places = dict.fromkeys(_unpack(execute(_GET, key).get or b""), True) | edits
            there = sorted(place for place, is_there in places.items() if is_there)
            if there:
                execute(_PUT, (*key, _pack(there)))
            else:
                execute(_DELETE, key)

    def forget(self) -> None:
        """The transaction is over."""
        self._edits.clear()

    def _edit(self, rid: int, changing: set[int], *, there: bool) -> None:
        block, place = divmod(rid, BLOCK)
        for prefix in changing:
            self._edits.setdefault((prefix, block), {})[place] = there

    def fold(self, *, only_many: bool = False) -> bool:
        """Catch up by one step, in a transaction of its own; whether more waits. `only_many`: not for a few parts."""
        execute = self._connection.execute
        if only_many and int(execute(_HIGHEST).get) - self.until + 1 < FOLD_ROWS:
            return False
        rows = [(int(rid), bytes(entries)) for rid, entries in execute(_UNFOLDED, (self.until, FOLD_ROWS))]
        if not rows:
            return False
        found: dict[Key, list[int]] = {}
        for rid, packed in rows:
            block, place = divmod(rid, BLOCK)
            for prefix in prefixes(unpack_entries(packed)):
                found.setdefault((prefix, block), []).append(place)
        until = rows[-1][0] + 1
        execute("BEGIN IMMEDIATE")
        self._connection.executemany(_ADD, [(*key, _pack(places)) for key, places in sorted(found.items())])
        execute("UPDATE meta SET named_until = ?", (until,))
        execute("COMMIT")
        self.until = until
        return len(rows) == FOLD_ROWS


def page_with(connection: apsw.Connection, node: bytes, after_rid: int, limit: int) -> list[PartRow]:
    """The reader's side: the next candidates in the order of their row ids; fewer than `limit` are the last."""
    until = int(connection.execute("SELECT named_until FROM meta").get)
    rows: list[PartRow] = []
    for rid in _indexed(connection, prefix_of(node), after_rid, until):
        found = connection.execute(_PART, (rid,)).get
        if found is not None:
            rows.append(PartRow(*found))
        if len(rows) == limit:
            return rows
    latest = max(after_rid, until - 1)
    return rows + [PartRow(*columns) for columns in connection.execute(_LATEST, (latest, limit - len(rows)))]


def _indexed(connection: apsw.Connection, prefix: int, after_rid: int, until: int) -> Iterator[int]:
    """Row ids in the index, above `after_rid` and below `until`, in their order."""
    if after_rid + 1 < until:
        for block, packed in connection.execute(_BLOCKS, (prefix, max(0, after_rid) // BLOCK)):
            rids = (block * BLOCK + place for place in _unpack(packed))
            yield from (rid for rid in rids if after_rid < rid < until)


def _pack(places: Sequence[int]) -> bytes:
    return struct.pack(f">{len(places)}H", *places)


def _unpack(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(packed) // 2}H", packed)
