"""The books of a shard store: counters, usage by owner, digests by bucket, kept in the transaction of the rows.

Counters are one row. Usage is a row per owner, written once per transaction. The 4096 digests stay in memory; what a
transaction changes of them goes into one row of `digest_news`, which is folded into `digest` at checkpoints and in
quiet moments: 32 puts would otherwise touch as many pages. `mark` and `back_to` undo what a refused request did;
`saved` makes the committed state the one to go on from.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_files import HEADER_BYTES
from protocol.held import BUCKETS, DIGEST_BYTES, bucket_of, held_digest, sum_bytes
from protocol.messages import BucketDigest

if TYPE_CHECKING:
    import apsw

    from lockbox_node.adapters.store_rows import PartRow

_NEWS = struct.Struct(">Hb32s")  # bucket, parts that came (negative: went), what to add to the sum
OWNERS_MAX = 10_000  # remembered at once
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
_counters = attrgetter(*TALLY)  # dataclasses.astuple copies deeply: 40 us a put
_SAVE_TALLY = f"UPDATE meta SET next_rid = ?, {', '.join(f'{name} = ?' for name in TALLY)}"  # noqa: S608  # our names

Mark = tuple[tuple[int, ...], int, int]


class Books:
    """What the rows add up to. Every method runs inside the writer's transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._news: list[tuple[int, int, int]] = []  # of this transaction: bucket, parts, addend
        self._used: list[tuple[bytes, int, int]] = []  # of this transaction: owner, bytes, parts
        self._using: dict[bytes, int] = {}  # its bytes by owner
        self._owners: dict[bytes, int] = {}  # bytes of owners that were asked for, as committed
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
        tally.big_bytes += _file_bytes(row)
        self._use(row.owner, row.logical_bytes, 1)
        self._digest(row, 1)

    def went(self, row: PartRow) -> None:
        """A part is gone for good."""
        tally = self.tally
        tally.stripes -= 1
        tally.shards -= row.shards
        tally.logical_bytes -= row.logical_bytes
        tally.big_bytes -= _file_bytes(row)
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
        found = self._owners.get(owner)
        if found is None:
            row = self._connection.execute("SELECT bytes FROM usage WHERE owner = ?", (owner,)).get
            if len(self._owners) >= OWNERS_MAX:
                self._owners.clear()
            found = self._owners[owner] = int(row or 0)
        return found + self._using.get(owner, 0)

    def _use(self, owner: bytes, size: int, parts: int) -> None:
        self._used.append((owner, size, parts))
        self._using[owner] = self._using.get(owner, 0) + size

    def _save_usage(self) -> None:
        parts: dict[bytes, int] = dict.fromkeys(self._using, 0)
        for owner, _, count in self._used:
            parts[owner] += count
        rows = [(owner, size, parts[owner]) for owner, size in self._using.items()]
        self._connection.executemany(_USE, rows)
        if any(count < 0 for _, _, count in rows):
            self._connection.execute("DELETE FROM usage WHERE parts = 0")

    def _digest(self, row: PartRow, sign: int) -> None:
        addend = sign * held_digest(row.address, row.version, row.hash)
        self._news.append((bucket_of(row.address), sign, addend))

    # Transactions

    def mark(self) -> Mark:
        """To come back to, when the request that follows is refused."""
        return _counters(self.tally), len(self._news), len(self._used)

    def back_to(self, mark: Mark) -> None:
        """Forget what was counted since; a refused request wrote no row."""
        counters, news, used = mark
        self.tally = Tally(*counters)
        del self._news[news:], self._used[used:]
        self._using.clear()
        for owner, size, _ in self._used:
            self._using[owner] = self._using.get(owner, 0) + size

    def save(self) -> None:
        """Write the books, before the commit."""
        self._connection.execute(_SAVE_TALLY, (self.next_rid, *_counters(self.tally)))
        if self._used:
            self._save_usage()
        if self._news:
            packed = b"".join(_NEWS.pack(bucket, parts, sum_bytes(addend)) for bucket, parts, addend in self._news)
            self._connection.execute("INSERT INTO digest_news(changes) VALUES (?)", (packed,))

    def saved(self) -> None:
        """The commit is done."""
        self._news_rows += bool(self._news)
        for bucket, parts, addend in self._news:
            self._add(bucket, parts, addend)
        self._news.clear()
        for owner, size in self._using.items():
            if owner in self._owners:
                self._owners[owner] += size
        self._used.clear()
        self._using.clear()

    def _add(self, bucket: int, parts: int, addend: int) -> None:
        self._parts[bucket] += parts
        self._sums[bucket] += addend
        self._unfolded.add(bucket)

    # Digests

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


def _file_bytes(row: PartRow) -> int:
    return HEADER_BYTES + row.shards * row.shard_bytes if row.big else 0


assert _NEWS.size == 2 + 1 + DIGEST_BYTES
