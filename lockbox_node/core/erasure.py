"""Erasure coding of one group: encode, decode, rebuild.

A systematic Cauchy Reed-Solomon code over GF(2^8): shards 0 to k-1 are the data itself, any k of n give it back, and
shards rebuilt from any k of the others are byte for byte the old ones (SPEC.md, Erasure; Bloemer et al., An XOR-based
erasure-resilient coding scheme, 1995). Only ciphertext passes here, so nothing is wiped. Real and decoy groups take
this one path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lockbox_node.errors import NotEnoughShards, ShardCorrupt
from lockbox_node.isal import ISAL, Buf, Tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARDS_CODED_MAX = 256  # the field has no room for more
_TABLES_CACHED_MAX = 1024  # per code: up to 3 KiB each for 12 lost of (8, 20)


class Code:
    """The (k, n) code. Immutable; safe to use from worker threads. Take it from `code`, which caches."""

    def __init__(self, k: int, n: int) -> None:
        assert 1 <= k < n <= SHARDS_CODED_MAX
        self.k = k
        self.n = n
        self._rows = ISAL.cauchy(k, n)
        self._parity = ISAL.tables(self._rows[k:])
        self._tables = lru_cache(_TABLES_CACHED_MAX)(self._solve)

    def shard_bytes(self, length: int) -> int:
        """Bytes of each shard of a group of `length` bytes; at least 1."""
        return max(1, -(-length // self.k))

    def encode(self, data: Buf) -> list[memoryview]:
        """The n equal shards of `data`: k views of its own bytes, then the parity.

        The views are of `data` itself when k divides its length (so the caller leaves it as it is); otherwise of a
        copy padded with zeros.
        """
        size = self.shard_bytes(len(data))
        if len(data) != size * self.k:
            data = bytes(data) + bytes(size * self.k - len(data))
        shards = cut(data, size)
        parity = cut(bytearray(size * (self.n - self.k)), size)
        ISAL.combine(self._parity, shards, parity)
        return shards + parity

    def decode(self, shards: Mapping[int, Buf], length: int) -> memoryview:
        """The first `length` bytes of the data, from any k shards (index -> verified bytes), in a new buffer.

        More than k may be given: the lowest indices are used, data before parity. Raises NotEnoughShards below k,
        ShardCorrupt when lengths or indices cannot be of one group.
        """
        have, size = self._chosen(shards)
        if not 0 <= length <= size * self.k:
            raise ShardCorrupt("the shards of this group are too short for it", "fetch others and verify the asset")
        whole = bytearray(size * self.k)
        parts = cut(whole, size)
        for index in have:
            if index < self.k:
                parts[index][:] = shards[index]
        lost = tuple(index for index in range(self.k) if index not in shards)
        if lost:
            ISAL.combine(self._tables(have, lost), [shards[index] for index in have], [parts[i] for i in lost])
        return memoryview(whole)[:length]

    def rebuild(self, present: Mapping[int, Buf], missing: Sequence[int]) -> list[bytearray]:
        """The shards `missing`, in that order, from any k of the others.

        `present` maps index to bytes, all of one length; exactly k are used, lowest index first, so that the work is
        the same everywhere. Raises NotEnoughShards below k, ShardCorrupt as `decode` does.
        """
        assert all(0 <= index < self.n for index in missing)
        have, size = self._chosen(present)
        rebuilt = [bytearray(size) for _ in missing]
        if rebuilt:
            ISAL.combine(self._tables(have, tuple(missing)), [present[index] for index in have], rebuilt)
        return rebuilt

    def _chosen(self, shards: Mapping[int, Buf]) -> tuple[tuple[int, ...], int]:
        if len(shards) < self.k:
            raise NotEnoughShards(
                f"{len(shards)} good shards of a group, {self.k} are needed",
                "try again when more holders are reachable",
            )
        sizes = {len(shard) for shard in shards.values()}
        if len(sizes) != 1 or 0 in sizes or not all(0 <= index < self.n for index in shards):
            raise ShardCorrupt(
                "these shards cannot be of one group: lengths or indices differ", "fetch others and verify the asset"
            )
        return tuple(sorted(shards)[: self.k]), sizes.pop()

    def _solve(self, have: tuple[int, ...], wanted: tuple[int, ...]) -> Tables:
        """Tables that make the shards `wanted` from the k shards `have`: rows(wanted) times inverse of rows(have)."""
        inverse = ISAL.invert([self._rows[index] for index in have])
        rows = [bytearray(self.k) for _ in wanted]
        ISAL.combine(ISAL.tables([self._rows[index] for index in wanted]), inverse, rows)
        return ISAL.tables([bytes(row) for row in rows])


@lru_cache(64)
def code(k: int, n: int) -> Code:
    """The (k, n) code, made once."""
    return Code(k, n)


def cut(data: Buf, size: int) -> list[memoryview]:
    """Views of `size` bytes each; the last may be shorter."""
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(view), size)]
