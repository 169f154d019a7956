"""Counts what a pass over the summaries of a store holds, bucket by bucket, beside what the store's books say.

The books are kept with every change; a pass counts anew. Where a bucket of the books did not change while it was
counted and the count is another, the index is damaged: a row is there that was never counted, or the reverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.held import BUCKETS, bucket_of, held_digest, sum_bytes
from protocol.messages import BucketDigest

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cells:
    """Counts and sums of the 4096 buckets."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._sums = [0] * BUCKETS

    def add(self, address: bytes, version: int, descriptor_hash: bytes) -> None:
        """One part that is held, not in trash."""
        bucket = bucket_of(address)
        self._counts[bucket] += 1
        self._sums[bucket] += held_digest(address, version, descriptor_hash)

    def digest(self, bucket: int) -> BucketDigest:
        """What was counted of a bucket."""
        return BucketDigest(bucket, self._counts[bucket], sum_bytes(self._sums[bucket]))

    def mismatches(self, before: Iterable[BucketDigest], after: Iterable[BucketDigest]) -> list[int]:
        """Buckets whose books stood still from `before` to `after` the count, and say something else."""
        then, now = ({one.bucket: one for one in books} for books in (before, after))
        empty = Cells()
        return [
            bucket
            for bucket in range(BUCKETS)
            if then.get(bucket) == now.get(bucket) and now.get(bucket, empty.digest(bucket)) != self.digest(bucket)
        ]


def start_of(bucket: int) -> bytes:
    """The key (address || descriptor hash) after which the summaries of a bucket begin."""
    return (bucket << 4).to_bytes(2, "big") + bytes(62)
