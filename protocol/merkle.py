"""The SHA-256 Merkle tree over a shard: its root is the shard id, its paths prove single leaves.

Leaves are the shard's bytes in pieces of `leaf_bytes`, the last one shorter, and the tree is that of RFC 9162
section 2.1: H(0x00 || leaf), H(0x01 || left || right), a left subtree as large a power of two as fits. Which leaves a
challenge asks for follows from its nonce. Source: SPEC.md, Merkle.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from protocol.ids import ID_BYTES, ShardId
from protocol.messages import LEAVES_MAX, LeafProof

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAVES_DRAWN = 8  # of a shard above WHOLE_SHARD_BYTES
WHOLE_SHARD_BYTES = 64 * 1024  # up to here every leaf is proven
_LEAF = b"\x00"
_NODE = b"\x01"

Buffer = bytes | bytearray | memoryview


def leaf_count(shard_bytes: int, leaf_bytes: int) -> int:
    """How many leaves a shard of `shard_bytes` (at least 1) has."""
    assert shard_bytes > 0 < leaf_bytes
    return -(-shard_bytes // leaf_bytes)


def root(shard: Buffer, leaf_bytes: int) -> ShardId:
    """The shard id."""
    return ShardId(_levels(shard, leaf_bytes)[-1][0])


def prove(shard: Buffer, leaf_bytes: int, leaf_indices: Iterable[int]) -> list[LeafProof]:
    """One proof per index, in the order given; the tree is built once. Indices must exist."""
    levels = _levels(shard, leaf_bytes)
    view = memoryview(shard)
    return [
        LeafProof(index, bytes(view[index * leaf_bytes : (index + 1) * leaf_bytes]), _path(levels, index))
        for index in leaf_indices
    ]


def check(shard_id: bytes, shard_bytes: int, leaf_bytes: int, proof: LeafProof) -> bool:
    """Whether `proof` shows its leaf at its place in the shard of that id and length: RFC 9162, 2.1.3.2."""
    count = leaf_count(shard_bytes, leaf_bytes)
    index = proof.leaf_index
    if index >= count or len(proof.leaf) != min(leaf_bytes, shard_bytes - index * leaf_bytes):
        return False
    digest = hashlib.sha256(_LEAF + proof.leaf).digest()
    last = count - 1
    for sibling in proof.path:
        if last == 0 or len(sibling) != ID_BYTES:
            return False
        if index & 1 or index == last:
            digest = hashlib.sha256(_NODE + sibling + digest).digest()
            while not index & 1:  # promoted through levels where it had no sibling
                index >>= 1
                last >>= 1
        else:
            digest = hashlib.sha256(_NODE + digest + sibling).digest()
        index >>= 1
        last >>= 1
    return last == 0 and digest == shard_id


def drawn_leaves(nonce: bytes, group: int, shard_bytes: int, leaf_bytes: int) -> list[int]:
    """The leaf indices, ascending, that a challenge with `nonce` (16 bytes) asks of the shard of group `group`.

    All of them up to WHOLE_SHARD_BYTES; else LEAVES_DRAWN distinct ones: SHA-256("lockbox leaves" || nonce ||
    u8 group || u32 counter), first 8 bytes big-endian modulo the count, counter from 0, repeats skipped.
    """
    count = leaf_count(shard_bytes, leaf_bytes)
    if shard_bytes <= WHOLE_SHARD_BYTES or count <= LEAVES_DRAWN:
        assert count <= LEAVES_MAX
        return list(range(count))
    seed = b"lockbox leaves" + nonce + group.to_bytes(1, "big")
    drawn: set[int] = set()
    counter = 0
    while len(drawn) < LEAVES_DRAWN:
        digest = hashlib.sha256(seed + counter.to_bytes(4, "big")).digest()
        drawn.add(int.from_bytes(digest[:8], "big") % count)
        counter += 1
    return sorted(drawn)


def _levels(shard: Buffer, leaf_bytes: int) -> list[list[bytes]]:
    """All hashes, leaves first, the root last. Pairing neighbours and promoting the odd one is RFC 9162's tree."""
    view = memoryview(shard)
    leaf_count(len(view), leaf_bytes)
    sha256 = hashlib.sha256
    level = [sha256(_LEAF + view[at : at + leaf_bytes]).digest() for at in range(0, len(view), leaf_bytes)]
    levels = [level]
    while len(level) > 1:
        above = [sha256(_NODE + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        if len(level) & 1:
            above.append(level[-1])
        levels.append(above)
        level = above
    return levels


def _path(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """The siblings from the leaf up."""
    path = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path
