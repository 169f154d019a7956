"""What an audit finds by what a holder shows: every outcome, and every way to show too little."""

from __future__ import annotations

from dataclasses import replace as replaced
from typing import TYPE_CHECKING

import msgspec
import pytest

from lockbox_node.core.audit import NONCE_BYTES, Verdict, deadline_s, judged, proof_bytes, proof_leaves, shows
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused, ShardCorrupt, ShardMissing
from protocol import merkle
from protocol.errors import ErrorCode
from protocol.messages import LeafProof, Proof
from tests.fakes.stripes import bytes_of, make_stripe

if TYPE_CHECKING:
    from tests.fakes.stripes import Stripe

NONCE = bytes_of("nonce", length=NONCE_BYTES)
SMALL, LARGE = make_stripe("small", shard_bytes=5_000), make_stripe("large", shard_bytes=200_000)


def proof_of(stripe: Stripe, index: int, nonce: bytes = NONCE) -> Proof:
    leaf_bytes, shards = stripe.descriptor.leaf_bytes, stripe.parts[index].shards
    drawn = [merkle.drawn_leaves(nonce, group, len(shard), leaf_bytes) for group, shard in enumerate(shards)]
    return Proof(index, [merkle.prove(shard, leaf_bytes, leaves) for shard, leaves in zip(shards, drawn, strict=True)])


def with_group(proof: Proof, leaves: list[LeafProof]) -> Proof:
    return msgspec.structs.replace(proof, groups=[leaves, *proof.groups[1:]])


@pytest.mark.parametrize("stripe", [SMALL, LARGE], ids=["whole shards", "drawn leaves"])
def test_a_holder_that_shows_what_the_nonce_draws_holds_its_part(stripe: Stripe) -> None:
    for index in range(stripe.descriptor.n):
        assert judged(stripe.descriptor, index, NONCE, proof_of(stripe, index)) is Verdict.HELD


def test_at_least_eight_leaves_of_a_large_shard_are_shown_and_all_of_a_small_one() -> None:
    assert [len(leaves) for leaves in proof_of(LARGE, 0).groups] == [8, 8]
    assert [len(leaves) for leaves in proof_of(SMALL, 0).groups] == [2, 2]
    assert proof_bytes(LARGE.descriptor) == 2 * 8 * 16 * 1024
    assert proof_bytes(SMALL.descriptor) == 2 * 5_000
    assert [proof_leaves(stripe.descriptor) for stripe in (LARGE, SMALL)] == [16, 4]


def test_another_index_than_the_one_that_was_asked_is_missing() -> None:
    assert judged(SMALL.descriptor, 3, NONCE, proof_of(SMALL, 4)) is Verdict.MISSING


@pytest.mark.parametrize(
    ("refusal", "verdict"),
    [
        (ShardMissing("gone", ""), Verdict.MISSING),
        (RequestRefused("gone", "", ErrorCode.NOT_FOUND), Verdict.MISSING),
        (ShardCorrupt("rotten", ""), Verdict.CORRUPT),
        (RequestRefused("rotten", "", ErrorCode.SHARD_CORRUPT), Verdict.CORRUPT),
        (PeerUnreachable("nobody there"), Verdict.SILENT),
        (RequestRefused("later", "", ErrorCode.BUSY), Verdict.SILENT),
        (RequestRefused("too often", "", ErrorCode.RATE_LIMITED), Verdict.SILENT),
        (RequestRefused("who are you", "", ErrorCode.ACCESS_DENIED), Verdict.SILENT),
    ],
)
def test_what_a_refusal_means(refusal: LockboxError, verdict: Verdict) -> None:
    assert judged(SMALL.descriptor, 3, NONCE, refusal) is verdict


def test_what_shows_too_little_is_corrupt() -> None:
    good, leaves = proof_of(LARGE, 2), proof_of(LARGE, 2).groups[0]
    flipped = msgspec.structs.replace(leaves[0], leaf=bytes([leaves[0].leaf[0] ^ 1]) + leaves[0].leaf[1:])
    bad = {
        "a flipped bit": with_group(good, [flipped, *leaves[1:]]),
        "one leaf less": with_group(good, leaves[1:]),
        "one leaf twice": with_group(good, [leaves[0], *leaves[:-1]]),
        "another order": with_group(good, leaves[::-1]),
        "no leaf": with_group(good, []),
        "one group less": msgspec.structs.replace(good, groups=good.groups[1:]),
        "groups the wrong way round": msgspec.structs.replace(good, groups=good.groups[::-1]),
        "the answer to another nonce": proof_of(LARGE, 2, bytes_of("other", length=NONCE_BYTES)),
        "another path": with_group(good, [msgspec.structs.replace(leaves[0], path=leaves[1].path), *leaves[1:]]),
    }
    assert {why: judged(LARGE.descriptor, 2, NONCE, proof) for why, proof in bad.items()} == dict.fromkeys(
        bad, Verdict.CORRUPT
    )


def test_the_shard_of_another_holder_is_not_shown_for_ours() -> None:
    other = replaced(SMALL, parts=(SMALL.parts[1], *SMALL.parts[1:]))
    assert not shows(SMALL.descriptor, NONCE, proof_of(other, 0))


def test_a_proof_beyond_n_shows_nothing() -> None:
    assert not shows(SMALL.descriptor, NONCE, msgspec.structs.replace(proof_of(SMALL, 9), index=10))


def test_the_deadline_grows_with_the_round_trip_and_the_size() -> None:
    near, far = deadline_s(SMALL.descriptor, 0.001), deadline_s(SMALL.descriptor, 0.3)
    assert far - near == pytest.approx(4 * 0.299)
    assert deadline_s(LARGE.descriptor, 0.001) - near == pytest.approx((2 * 8 * 16 * 1024 - 10_000) / 2**20)
