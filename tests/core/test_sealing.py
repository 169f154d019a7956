"""Sealing: both suites, every field authenticated, nothing left behind after a failure."""

from __future__ import annotations

from dataclasses import replace

import nacl.bindings
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.sealing import (
    ASSET_SALT_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    SUITE_AES_GCM,
    SUITE_XCHACHA,
    TAG_BYTES,
    SegmentContext,
    decrypt_into,
    encrypt_into,
    open_into,
    open_segment,
    prefixed,
    seal_into,
    seal_segment,
    wipe,
)
from lockbox_node.errors import ExitCode, LockboxError
from protocol.errors import ErrorCode
from protocol.ids import Address

SUITES = (SUITE_XCHACHA, SUITE_AES_GCM)
CONTEXT = SegmentContext(SUITE_AES_GCM, 1, Address(b"a" * 32), 7, 2, 5, b"s" * ASSET_SALT_BYTES)
each_suite = pytest.mark.parametrize("suite", SUITES)


def key() -> bytearray:
    """A key that differs in every byte."""
    return bytearray(range(KEY_BYTES))


def nonce(suite: int) -> bytes:
    """A nonce of the right length."""
    return bytes(range(100, 100 + NONCE_BYTES[suite]))


def sealed(suite: int, plaintext: bytes, aad: bytes = b"aad") -> bytearray:
    """`plaintext` under `key` and `nonce`."""
    out = bytearray(len(plaintext) + OVERHEAD_BYTES[suite])
    seal_into(suite, key(), nonce(suite), bytearray(plaintext), aad, out)
    return out


@each_suite
@given(plaintext=st.binary(max_size=300), aad=st.binary(max_size=40))
def test_what_is_sealed_opens(suite: int, plaintext: bytes, aad: bytes) -> None:
    out = bytearray(len(plaintext))
    open_into(suite, key(), sealed(suite, plaintext, aad), aad, out)
    assert out == plaintext


def test_suite_2_is_what_another_library_call_makes() -> None:
    expected = AESGCM(key()).encrypt(nonce(SUITE_AES_GCM), b"plain", b"aad")
    assert sealed(SUITE_AES_GCM, b"plain") == bytes([2]) + nonce(SUITE_AES_GCM) + expected


def test_suite_1_is_what_another_library_call_makes() -> None:
    expected = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        b"plain", b"aad", nonce(SUITE_XCHACHA), bytes(key())
    )
    assert sealed(SUITE_XCHACHA, b"plain") == bytes([1]) + nonce(SUITE_XCHACHA) + expected


def test_suite_1_passes_the_vector_of_the_draft() -> None:
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it."
    )
    out = bytearray(len(text) + TAG_BYTES)
    vector_key = bytearray(range(0x80, 0xA0))
    vector_nonce = bytes(range(0x40, 0x58))
    vector_aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    encrypt_into(SUITE_XCHACHA, vector_key, vector_nonce, bytearray(text), vector_aad, out)
    assert out[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert out[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


@each_suite
def test_ciphertext_may_take_the_place_of_its_plaintext(suite: int) -> None:
    expected = bytearray(5 + TAG_BYTES)
    encrypt_into(suite, key(), nonce(suite), bytearray(b"plain"), b"", expected)
    place = bytearray(b"plain" + bytes(TAG_BYTES))
    encrypt_into(suite, key(), nonce(suite), memoryview(place)[:5], b"", place)
    assert place == expected


@each_suite
def test_each_flipped_bit_is_noticed_and_leaves_no_plaintext(suite: int) -> None:
    original = sealed(suite, b"plaintext")
    for place in range(len(original) * 8):
        altered = bytearray(original)
        altered[place // 8] ^= 1 << place % 8
        out = bytearray(b"\xff" * 9)
        with pytest.raises(LockboxError) as caught:
            open_into(suite, key(), altered, b"aad", out)
        assert caught.value.code is ErrorCode.METADATA_CORRUPT
        assert out == bytes(9)


@each_suite
def test_a_failed_decryption_leaves_zeros(suite: int) -> None:
    out = bytearray(b"\xff" * 9)
    assert not decrypt_into(suite, key(), nonce(suite), bytes(9 + TAG_BYTES), b"", out)
    assert out == bytes(9)


@each_suite
def test_another_key_data_length_or_suite_does_not_open(suite: int) -> None:
    original, out = sealed(suite, b"plaintext"), bytearray(9)
    other_suite = SUITE_XCHACHA + SUITE_AES_GCM - suite
    with pytest.raises(LockboxError):
        open_into(suite, bytearray(KEY_BYTES), original, b"aad", out)
    with pytest.raises(LockboxError):
        open_into(suite, key(), original, b"aae", out)
    with pytest.raises(LockboxError):
        open_into(suite, key(), original[:-1], b"aad", out)
    with pytest.raises(LockboxError):
        open_into(other_suite, key(), original, b"aad", out)


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, tier=2),
        replace(CONTEXT, address=Address(b"b" * 32)),
        replace(CONTEXT, version=8),
        replace(CONTEXT, segment=3),
        replace(CONTEXT, segments=6),
        replace(CONTEXT, asset_salt=b"t" * ASSET_SALT_BYTES),
        replace(CONTEXT, suite=SUITE_XCHACHA),
    ],
    ids=["tier", "address", "version", "segment", "segments", "salt", "suite"],
)
def test_a_segment_opens_only_where_it_belongs(other: SegmentContext) -> None:
    overhead = OVERHEAD_BYTES[SUITE_AES_GCM]
    place = bytearray(100 + overhead)
    seal_segment(key(), nonce(SUITE_AES_GCM), CONTEXT, bytearray(b"x" * 100), place)
    out = bytearray(100)
    open_segment(key(), CONTEXT, place, out)
    assert out == b"x" * 100
    with pytest.raises(LockboxError) as caught:
        open_segment(key(), other, place, out)
    assert caught.value.exit_code is ExitCode.CORRUPT
    assert other.associated_data() != CONTEXT.associated_data()


def test_the_associated_data_has_one_known_encoding() -> None:
    assert CONTEXT.associated_data().hex() == (
        "00116c6f636b626f782f31207365676d656e74000102000101"
        "0020"
        + "61" * 32
        + "00080000000000000007"
        + "00080000000000000002"
        + "00080000000000000005"
        + "0020"
        + "73" * 32
    )


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_no_two_lists_of_fields_encode_alike(one: list[bytes], other: list[bytes]) -> None:
    assert (prefixed(*one) == prefixed(*other)) == (one == other)


@pytest.mark.parametrize("buffer", [bytearray(b"secret"), memoryview(bytearray(b"secret"))])
def test_wiping_leaves_zeros_in_place(buffer: bytearray | memoryview) -> None:
    wipe(buffer)
    assert bytes(buffer) == bytes(6)


def test_wiping_a_view_leaves_the_rest() -> None:
    whole = bytearray(b"keep secret")
    wipe(memoryview(whole)[5:])
    assert whole == b"keep " + bytes(6)


def test_wrong_shapes_are_our_mistake() -> None:
    with pytest.raises(AssertionError):
        encrypt_into(SUITE_AES_GCM, bytearray(16), nonce(SUITE_AES_GCM), bytearray(1), b"", bytearray(17))
    with pytest.raises(AssertionError):
        encrypt_into(SUITE_AES_GCM, key(), bytes(24), bytearray(1), b"", bytearray(17))
    with pytest.raises(AssertionError):
        encrypt_into(SUITE_XCHACHA, key(), nonce(SUITE_XCHACHA), bytearray(1), b"", bytearray(16))
    with pytest.raises(AssertionError):
        decrypt_into(SUITE_XCHACHA, key(), nonce(SUITE_XCHACHA), bytes(17), b"", bytearray(2))
    with pytest.raises(AssertionError):
        seal_into(SUITE_AES_GCM, key(), nonce(SUITE_AES_GCM), bytearray(1), b"", bytearray(1))
    with pytest.raises(AssertionError):
        replace(CONTEXT, segment=5).associated_data()
