"""The tree against the recursive definition of RFC 9162, and proofs that cannot be bent."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.merkle import LEAVES_DRAWN, check, drawn_leaves, leaf_count, prove, root
from protocol.messages import LeafProof
from tests.protocol.samples import stretched

shards = st.binary(min_size=1, max_size=600)
leaf_sizes = st.integers(1, 64)


def defined(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:split]) + defined(leaves[split:])).digest()


def leaves_of(shard: bytes, leaf_bytes: int) -> list[bytes]:
    """The leaves."""
    return [shard[at : at + leaf_bytes] for at in range(0, len(shard), leaf_bytes)]


def test_one_leaf_is_its_own_root() -> None:
    assert root(b"x", 4096) == hashlib.sha256(b"\x00x").digest()
    (proof,) = prove(b"x", 4096, [0])
    assert proof == LeafProof(0, b"x", [])


def test_two_leaves_make_one_node() -> None:
    left, right = (hashlib.sha256(b"\x00" + leaf).digest() for leaf in (b"ab", b"c"))
    assert root(memoryview(b"abc"), 2) == hashlib.sha256(b"\x01" + left + right).digest()


def test_no_shard_is_empty() -> None:
    with pytest.raises(AssertionError):
        root(b"", 4096)


@given(shards, leaf_sizes)
def test_the_root_is_that_of_the_definition(shard: bytes, leaf_bytes: int) -> None:
    leaves = leaves_of(shard, leaf_bytes)
    assert len(leaves) == leaf_count(len(shard), leaf_bytes)
    assert root(bytearray(shard), leaf_bytes) == defined(leaves)


@given(shards, leaf_sizes)
def test_every_leaf_is_proven(shard: bytes, leaf_bytes: int) -> None:
    shard_id, leaves = root(shard, leaf_bytes), leaves_of(shard, leaf_bytes)
    for index, proof in enumerate(prove(shard, leaf_bytes, range(len(leaves)))):
        assert (proof.leaf_index, proof.leaf) == (index, leaves[index])
        assert check(shard_id, len(shard), leaf_bytes, proof)


@given(shards, leaf_sizes, st.data())
def test_a_bent_proof_fails(shard: bytes, leaf_bytes: int, data: st.DataObject) -> None:
    shard_id, count = root(shard, leaf_bytes), leaf_count(len(shard), leaf_bytes)
    index = data.draw(st.integers(0, count - 1))
    (proof,) = prove(shard, leaf_bytes, [index])
    other_index = data.draw(st.integers(0, 2 * count).filter(lambda other: other != index))
    bent = [
        msgspec.structs.replace(proof, leaf=bytes([proof.leaf[0] ^ 1]) + proof.leaf[1:]),
        msgspec.structs.replace(proof, leaf=proof.leaf + b"\x00"),
        msgspec.structs.replace(proof, leaf=proof.leaf[:-1]),
        msgspec.structs.replace(proof, path=[*proof.path, bytes(32)]),
        msgspec.structs.replace(proof, leaf_index=count),
    ]
    if proof.path:
        bent.append(msgspec.structs.replace(proof, path=proof.path[:-1]))
        bent.append(msgspec.structs.replace(proof, path=[*proof.path[:-1], bytes(32)]))
        bent.append(msgspec.structs.replace(proof, path=[*proof.path[:-1], proof.path[-1][:-1]]))
    for wrong in bent:
        assert not check(shard_id, len(shard), leaf_bytes, wrong)
    assert not check(bytes(32), len(shard), leaf_bytes, proof)
    if check(shard_id, len(shard), leaf_bytes, msgspec.structs.replace(proof, leaf_index=other_index)):
        assert leaves_of(shard, leaf_bytes)[other_index] == proof.leaf  # equal leaves may stand for one another


def test_a_node_cannot_pass_as_a_leaf() -> None:
    shard = bytes(range(128))
    children = b"".join(hashlib.sha256(b"\x00" + shard[at : at + 32]).digest() for at in (0, 32))
    (right,) = prove(shard, 64, [1])
    assert not check(root(shard, 32), 128, 64, LeafProof(0, children, right.path))


def test_a_small_shard_proves_every_leaf() -> None:
    assert drawn_leaves(bytes(16), 0, 64 * 1024, 4096) == list(range(16))
    assert drawn_leaves(bytes(16), 0, 1, 4096) == [0]
    assert drawn_leaves(bytes(16), 0, 64 * 1024 + 1, 16 * 1024) == list(range(5))


def test_the_draw_follows_the_nonce_and_the_group() -> None:
    nonce = stretched("nonce", 16)
    draws = {tuple(drawn_leaves(nonce, group, 256 * 1024, 16 * 1024)) for group in range(8)}
    assert len(draws) > 4
    assert tuple(drawn_leaves(bytes(16), 0, 256 * 1024, 16 * 1024)) not in draws


@given(st.binary(min_size=16, max_size=16), st.integers(0, 7), st.integers(131073, 262144))
def test_a_large_shard_proves_distinct_drawn_leaves(nonce: bytes, group: int, size: int) -> None:
    drawn = drawn_leaves(nonce, group, size, 16 * 1024)
    assert len(drawn) == len(set(drawn)) == LEAVES_DRAWN
    assert drawn == sorted(drawn)
    assert 0 <= drawn[0] <= drawn[-1] < leaf_count(size, 16 * 1024)
