"""The books of a shard store: counters, usage by owner, digests by bucket, kept in the transaction of the rows.

Counters are one row. Usage is a row per owner. The 4096 digests stay in memory; what a transaction changes of them goes
into one row of `digest_news`, which is folded into `digest` in quiet moments: 32 puts would otherwise touch as many
pages. `mark` and `back_to` undo what a refused request did; `saved` makes the committed state the one to go on from.
"""

from __future__ import annotations

import struct
from copy import copy
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from protocol.held import BUCKETS, DIGEST_BYTES, bucket_of, held_digest, sum_bytes
from protocol.messages import BucketDigest

if TYPE_CHECKING:
    import apsw

    from lockbox_node.adapters.store_rows import PartRow

_NEWS = struct.Struct(">Hb32s")  # bucket, parts that came (negative: went), what to add to the sum
NEWS_ROWS_MAX = 10_000  # unfolded transactions, whatever the load: a start reads them all
_USE = (
    "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (owner) DO UPDATE "
    "SET bytes = bytes + excluded.bytes, parts = parts + excluded.parts"
)


@dataclass(slots=True)
class Tally:
    """The counters of the meta row. logical_bytes and stripes count trash too; figures() takes it apart."""

    stripes: int = 0
    shards: int = 0
    logical_bytes: int = 0
    big_bytes: int = 0
    corrupt: int = 0
    pointers: int = 0
    tombstones: int = 0
    trash_stripes: int = 0
    trash_bytes: int = 0


TALLY = tuple(item.name for item in fields(Tally))
_SAVE_TALLY = f"UPDATE meta SET next_rid = ?, {', '.join(f'{name} = ?' for name in TALLY)}"  # noqa: S608  # our names

Mark = tuple[Tally, int]


class Books:
    """What the rows add up to. Every method runs inside the writer's transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._news: list[tuple[int, int, int]] = []  # of this transaction: bucket, parts, addend
        self._parts = [0] * BUCKETS
        self._sums = [0] * BUCKETS
        self._news_rows = 0
        self._unfolded: set[int] = set()
        row = connection.execute(f"SELECT next_rid, {', '.join(TALLY)} FROM meta").get  # noqa: S608  # our names
        self.next_rid = int(row[0])
        self.tally = Tally(*row[1:])
        for bucket, parts, total in connection.execute("SELECT bucket, parts, sum FROM digest"):
            self._parts[bucket] = parts
            self._sums[bucket] = int.from_bytes(total, "big")
        self._unfolded.clear()
        for (changes,) in connection.execute("SELECT changes FROM digest_news"):
            self._news_rows += 1
            for bucket, parts, addend in _NEWS.iter_unpack(changes):
                self._add(bucket, parts, int.from_bytes(addend, "big"))

    # What a request does

    def came(self, row: PartRow) -> None:
        """A part is stored."""
        tally = self.tally
        tally.stripes += 1
        tally.shards += row.shards
        tally.logical_bytes += row.logical_bytes
        tally.big_bytes += row.shards * row.shard_bytes if row.big else 0
        self._use(row.owner, row.logical_bytes, 1)
        self._digest(row, 1)

    def went(self, row: PartRow) -> None:
        """A part is gone for good."""
        tally = self.tally
        tally.stripes -= 1
        tally.shards -= row.shards
        tally.logical_bytes -= row.logical_bytes
        tally.big_bytes -= row.shards * row.shard_bytes if row.big else 0
        tally.corrupt -= bool(row.corrupt)
        self._use(row.owner, -row.logical_bytes, -1)
        if row.trashed >= 0:
            tally.trash_stripes -= 1
            tally.trash_bytes -= row.logical_bytes
        else:
            self._digest(row, -1)

    def trashed(self, row: PartRow) -> None:
        """A live part went to trash."""
        self.tally.trash_stripes += 1
        self.tally.trash_bytes += row.logical_bytes
        self._digest(row, -1)

    def recovered(self, row: PartRow) -> None:
        """A part came out of trash."""
        self.tally.trash_stripes -= 1
        self.tally.trash_bytes -= row.logical_bytes
        self._digest(row, 1)

    def used_bytes(self, owner: bytes) -> int:
        """What an owner keeps here."""
        found = self._connection.execute("SELECT bytes FROM usage WHERE owner = ?", (owner,)).get
        return int(found or 0)

    def _use(self, owner: bytes, size: int, parts: int) -> None:
        self._connection.execute(_USE, (owner, size, parts))
        if parts < 0:
            self._connection.execute("DELETE FROM usage WHERE owner = ? AND parts = 0", (owner,))

    def _digest(self, row: PartRow, sign: int) -> None:
        addend = sign * held_digest(row.address, row.version, row.hash)
        self._news.append((bucket_of(row.address), sign, addend))

    # Transactions

    def mark(self) -> Mark:
        """To come back to, when the request that follows is refused."""
        return copy(self.tally), len(self._news)

    def back_to(self, mark: Mark) -> None:
        """Forget what was counted since; the rows are the savepoint's."""
        self.tally, kept = copy(mark[0]), mark[1]
        del self._news[kept:]

    def save(self) -> None:
        """Write the books, before the commit."""
        self._connection.execute(_SAVE_TALLY, (self.next_rid, *astuple(self.tally)))
        if self._news:
            packed = b"".join(_NEWS.pack(bucket, parts, sum_bytes(addend)) for bucket, parts, addend in self._news)
            self._connection.execute("INSERT INTO digest_news(changes) VALUES (?)", (packed,))

    def saved(self) -> None:
        """The commit is done."""
        self._news_rows += bool(self._news)
        for bucket, parts, addend in self._news:
            self._add(bucket, parts, addend)
        self._news.clear()

    def _add(self, bucket: int, parts: int, addend: int) -> None:
        self._parts[bucket] += parts
        self._sums[bucket] += addend
        self._unfolded.add(bucket)

    # Digests

    @property
    def crowded(self) -> bool:
        """Whether so much is unfolded that it should not wait for a quiet moment."""
        return self._news_rows >= NEWS_ROWS_MAX

    def fold(self) -> None:
        """Write the digests themselves, in a transaction of its own."""
        if not self._news_rows:
            return
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO digest VALUES (?, ?, ?)",
            [(bucket, self._parts[bucket], sum_bytes(self._sums[bucket])) for bucket in sorted(self._unfolded)],
        )
        execute("DELETE FROM digest_news")
        execute("COMMIT")
        self._news_rows = 0
        self._unfolded.clear()

    def digests(self) -> list[BucketDigest]:
        """Every bucket that is not empty, in order."""
        return [
            BucketDigest(bucket, self._parts[bucket], sum_bytes(self._sums[bucket]))
            for bucket in range(BUCKETS)
            if self._parts[bucket]
        ]


assert _NEWS.size == 2 + 1 + DIGEST_BYTES
