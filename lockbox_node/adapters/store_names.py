"""The index of a shard store from a node to the parts whose table names it, written behind the puts.

A put would otherwise touch a page for each of its holders, ten and more for one part. So the index holds the parts
below a row id (`named_until`), and the parts from there on, which are the latest, are looked through one by one; in
quiet moments and at checkpoints the index catches up, sorted, so that neighbours are written together. `entries` of
the rows decide in the end: the index only finds candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.adapters.store_rows import PART_COLUMNS, QUALIFIED_COLUMNS, PartRow, prefix_of, prefixes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from protocol.messages import HolderEntry

FOLD_ROWS = 2000  # of one transaction
_INSERT = "INSERT OR IGNORE INTO named VALUES (?, ?)"
_DELETE = "DELETE FROM named WHERE prefix = ? AND rid = ?"
_INDEXED = (
    f"SELECT {QUALIFIED_COLUMNS} FROM named JOIN part USING (rid) WHERE prefix = ? AND rid > ? AND rid < ? "  # noqa: S608
    "ORDER BY rid LIMIT ?"
)
_LATEST = f"SELECT {PART_COLUMNS} FROM part WHERE rid > ? ORDER BY rid LIMIT ?"  # noqa: S608  # our column names


class Names:
    """The writer's side. Every method but `fold` runs inside its transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.until = int(connection.execute("SELECT named_until FROM meta").get)

    def changed(self, rid: int, old: Sequence[HolderEntry], new: Sequence[HolderEntry]) -> None:
        """The table of a standing part is another now."""
        if rid < self.until:
            before, after = prefixes(old), prefixes(new)
            self._connection.executemany(_DELETE, [(prefix, rid) for prefix in sorted(before - after)])
            self._connection.executemany(_INSERT, [(prefix, rid) for prefix in sorted(after - before)])

    def went(self, row: PartRow) -> None:
        """The part is gone."""
        if row.rid < self.until:
            self._connection.executemany(_DELETE, [(prefix, row.rid) for prefix in sorted(prefixes(row.entries))])

    def fold(self) -> None:
        """Catch up, in transactions of its own."""
        while self._fold_some():
            pass

    def _fold_some(self) -> bool:
        execute = self._connection.execute
        rows = [PartRow(*columns) for columns in execute(_LATEST, (self.until - 1, FOLD_ROWS))]
        if not rows:
            return False
        names = [(prefix, row.rid) for row in rows for prefix in prefixes(row.entries)]
        execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, sorted(names))
        execute("UPDATE meta SET named_until = ?", (rows[-1].rid + 1,))
        execute("COMMIT")
        self.until = rows[-1].rid + 1
        return len(rows) == FOLD_ROWS


def page_with(connection: apsw.Connection, node: bytes, after_rid: int, limit: int) -> list[PartRow]:
    """The reader's side: the next candidates in the order of their row ids; fewer than `limit` are the last."""
    until = int(connection.execute("SELECT named_until FROM meta").get)
    rows: list[PartRow] = []
    if after_rid < until:
        rows = [
            PartRow(*columns) for columns in connection.execute(_INDEXED, (prefix_of(node), after_rid, until, limit))
        ]
        after_rid = until - 1
    if len(rows) < limit:
        rows += [PartRow(*columns) for columns in connection.execute(_LATEST, (after_rid, limit - len(rows)))]
    return rows
