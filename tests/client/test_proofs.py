"""What a holder must show before it is believed that an address is in use."""

from __future__ import annotations

import pytest

from lockbox_node.client.proofs import sibling_of, taken_by
from lockbox_node.client.source import BytesSource
from lockbox_node.client.stripes import Stripe, prepare
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import RequestRefused
from protocol.errors import ErrorCode
from protocol.messages import Signed
from protocol.records import Tombstone, sign
from simulations.world import SeededEntropy
from tests.client.test_stripes import recipe


def stripe(seed: int = 1, index: int = 3) -> Stripe:
    return prepare(recipe(STANDARD, 5, index), 0, BytesSource(bytearray(b"hello")), SeededEntropy(seed))


def refusal(proof: object, code: ErrorCode = ErrorCode.STALE) -> RequestRefused:
    error = RequestRefused("no", "", code)
    error.proof = proof
    return error


OURS, SIBLING, STRANGER = stripe(1), stripe(2), stripe(1, index=4)


def tombstone(owner: Stripe, version: int) -> Signed:
    return sign(Tombstone(owner.key.public_key, version, 1_000, 2_000), owner.key)


def test_another_descriptor_of_our_key_and_version_is_a_sibling() -> None:
    assert sibling_of(OURS, SIBLING.descriptor)


@pytest.mark.parametrize(
    "other",
    [
        OURS.descriptor,
        STRANGER.descriptor,
        Signed(SIBLING.descriptor.body, bytes(64)),
        Signed(b"garbage", bytes(64)),
        tombstone(OURS, 1),
    ],
    ids=["our own", "of another key", "forged", "garbage", "a tombstone"],
)
def test_nothing_else_is_a_sibling(other: Signed) -> None:
    assert not sibling_of(OURS, other)


@pytest.mark.parametrize("code", [ErrorCode.STALE, ErrorCode.CONFLICT])
def test_a_tombstone_or_another_descriptor_proves_that_the_address_is_taken(code: ErrorCode) -> None:
    assert taken_by(OURS, refusal(tombstone(OURS, 1), code))
    assert taken_by(OURS, refusal(tombstone(OURS, 9), code))
    assert taken_by(OURS, refusal(SIBLING.descriptor, code))


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (None, ErrorCode.STALE),
        (b"raw", ErrorCode.STALE),
        (tombstone(STRANGER, 9), ErrorCode.STALE),
        (tombstone(OURS, 0), ErrorCode.STALE),
        (Signed(tombstone(OURS, 9).body, bytes(64)), ErrorCode.STALE),
        (OURS.descriptor, ErrorCode.CONFLICT),
        (tombstone(OURS, 9), ErrorCode.STORE_FULL),
    ],
    ids=["none", "bytes", "of another key", "of an older version", "forged", "our own", "with another code"],
)
def test_a_claim_without_proof_is_a_failed_holder_and_no_more(proof: object, code: ErrorCode) -> None:
    assert not taken_by(OURS, refusal(proof, code))
