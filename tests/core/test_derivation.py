"""Derivation: golden vectors, independence of everything derived, keys that are gone when wiped."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest

from lockbox_node.core.derivation import (
    AssetKey,
    access,
    derive_into,
    info,
    master_key,
    root_key,
    segment_key_into,
    slot_key_into,
    state_key_into,
    stripe_key,
    wallet_key,
)
from lockbox_node.core.sealing import KEY_BYTES
from protocol.ids import Address, address_of
from protocol.records import open_access

MASTER = bytearray(range(KEY_BYTES))
ADDRESS = Address(b"a" * 32)
SALT = b"s" * 32


def hkdf(master: bytes, salt: bytes, about: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) of one block, by hand."""
    extracted = hmac.digest(salt or bytes(32), master, "sha256")
    return hmac.digest(extracted, about + b"\1", "sha256")


def test_hkdf_passes_case_1_of_the_rfc() -> None:
    # The RFC's input has 22 bytes; ours always 32, so the hand-made reference is checked with it, and it checks ours.
    about = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert hkdf(b"\x0b" * 22, bytes(range(13)), about).hex() == expected
    key = bytearray(32)
    derive_into(MASTER, bytes(range(13)), about, key)
    assert key == hkdf(bytes(MASTER), bytes(range(13)), about)


def test_info_has_one_known_encoding() -> None:
    assert info(b"segment", 2, ADDRESS, 3, 4).hex() == (
        "00096c6f636b626f782f31"
        "000102"
        "00077365676d656e74" + "0020" + "61" * 32 + "00080000000000000003"
        "00080000000000000004"
    )
    assert info(b"asset root", index=1).hex() == (
        "00096c6f636b626f782f31000100000a617373657420726f6f7400000008000000000000000000080000000000000001"
    )


def test_every_derivation_is_hkdf_of_its_info() -> None:
    key = bytearray(32)
    segment_key_into(MASTER, SALT, ADDRESS, 3, 2, 4, key)
    assert key == hkdf(bytes(MASTER), SALT, info(b"segment", 2, ADDRESS, 3, 4))
    slot_key_into(MASTER, SALT, ADDRESS, 3, key)
    assert key == hkdf(bytes(MASTER), SALT, info(b"slot", 2, ADDRESS, 3))
    state_key_into(MASTER, key)
    assert key == hkdf(bytes(MASTER), b"", info(b"wallet state", 2))


def test_golden_vectors_stay() -> None:
    segment, slot, state = bytearray(32), bytearray(32), bytearray(32)
    segment_key_into(MASTER, SALT, ADDRESS, 1, 2, 0, segment)
    slot_key_into(MASTER, SALT, ADDRESS, 1, slot)
    state_key_into(MASTER, state)
    found = {
        "root 0": root_key(MASTER, 0).address.hex(),
        "root 1": root_key(MASTER, 1).address.hex(),
        "stripe 0 1": stripe_key(MASTER, 0, SALT, 1).address.hex(),
        "wallet": wallet_key(MASTER).address.hex(),
        "segment": segment.hex(),
        "slot": slot.hex(),
        "state": state.hex(),
    }
    assert found == GOLDEN


def test_the_master_key_is_golden_and_bound_to_the_network() -> None:
    seed = bytes(range(64))
    first = master_key(bytearray(seed), b"n" * 32)
    assert first.hex() == GOLDEN_MASTER
    assert master_key(seed, b"m" * 32) != first


def test_everything_derived_differs() -> None:
    keys = [bytearray(32) for _ in range(8)]
    segment_key_into(MASTER, SALT, ADDRESS, 1, 2, 0, keys[0])
    segment_key_into(MASTER, SALT, ADDRESS, 1, 2, 1, keys[1])
    segment_key_into(MASTER, SALT, ADDRESS, 2, 2, 0, keys[2])
    segment_key_into(MASTER, SALT, ADDRESS, 1, 1, 0, keys[3])
    segment_key_into(MASTER, b"t" * 32, ADDRESS, 1, 2, 0, keys[4])
    segment_key_into(MASTER, SALT, Address(b"b" * 32), 1, 2, 0, keys[5])
    slot_key_into(MASTER, SALT, ADDRESS, 1, keys[6])
    state_key_into(MASTER, keys[7])
    assert all(one != other for one, other in combinations(keys, 2))


def test_every_address_differs() -> None:
    owners = [root_key(MASTER, 0), root_key(MASTER, 1), root_key(bytearray(32), 0), wallet_key(MASTER)]
    owners += [stripe_key(MASTER, 0, SALT, 1), stripe_key(MASTER, 0, SALT, 2), stripe_key(MASTER, 1, SALT, 1)]
    owners += [stripe_key(MASTER, 0, b"t" * 32, 1)]
    assert len({owner.address for owner in owners}) == len(owners)


def test_an_asset_key_takes_over_its_seed_and_is_gone_when_wiped() -> None:
    seed = bytearray(range(32))
    with AssetKey(seed) as owner:
        assert seed == bytes(32)
        assert len(owner.sign(b"data")) == 64
        assert owner.address == address_of(owner.public_key) == hashlib.sha256(owner.public_key).digest()
    with pytest.raises(AssertionError):
        owner.sign(b"data")
    assert owner.public_key


def test_an_access_claim_verifies_and_says_what_was_asked() -> None:
    with root_key(MASTER, 5) as owner:
        claim = open_access(access(owner, 8, b"r" * 32, b"n" * 16, 1_800_000_000))
    assert claim.public_key == owner.public_key
    assert (claim.operation, claim.requester, claim.nonce, claim.time_unix_s) == (
        8,
        b"r" * 32,
        b"n" * 16,
        1_800_000_000,
    )


def test_wrong_shapes_are_our_mistake() -> None:
    with pytest.raises(AssertionError):
        AssetKey(bytearray(31))
    with pytest.raises(AssertionError):
        derive_into(bytearray(31), None, b"", bytearray(32))
    with pytest.raises(AssertionError):
        master_key(bytes(32), b"n" * 32)
    with pytest.raises(AssertionError):
        stripe_key(MASTER, 0, SALT, 0)
    with pytest.raises(AssertionError):
        stripe_key(MASTER, 0, b"short", 1)
    with pytest.raises(AssertionError):
        segment_key_into(MASTER, b"short", ADDRESS, 1, 2, 0, bytearray(32))
    with pytest.raises(AssertionError):
        info(b"segment", address=Address(b"short"))


# Master key 00 01 .. 1f, salt 32 x 's', address 32 x 'a', version 1, suite 2, segment 0.
GOLDEN = {
    "root 0": "01208251a859837b1632506935e960d3ee61ef830bc9af762c443f404a93b7ae",
    "root 1": "b3f8338ec77a722b2e57319dd0b1081c1a43156e4f4e069e4cd4e1d90b7a900f",
    "stripe 0 1": "3520f4f9760a64d0b8faf661adfe18b1281d90c6232e71e22d8b7a247fed560d",
    "wallet": "c0100b4c9b9ac92edfd0c6e3746423c79eb251e9cbadb4cb8e3c800724994d66",
    "segment": "cf98f58985fa16e72b4bfce29e72152b0102ad43545a1719c5216f5b87ed9d40",
    "slot": "093d8327321a7b767f2880ce3fa0758e71be517e9070471585973da051b8e582",
    "state": "5d74f7030e54d40e4ecc987c9164a6f511b4340186397d2c4f5533261e4468d5",
}
# BIP-39 seed 00 01 .. 3f, network id 32 x 'n'.
GOLDEN_MASTER = "3cf199834fe54784f54643f2cbfbfc7f5c382eb12c87acc05fc957a9b798c509"
