"""Suites: how bytes are sealed and opened. Keys, nonces and salts are given; nothing is drawn here.

A sealed thing is suite byte || nonce || ciphertext || tag. Plaintext and keys stand in buffers that their owner wipes:
never in `bytes`, messages or exceptions. Every fact about a segment is in its associated data, so that a wrong suite,
tier, address, version or place fails to open. Suite 1 is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), suite 2 is
AES-256-GCM (NIST SP 800-38D). SPEC.md, Sealing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]

from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.ids import ID_BYTES

if TYPE_CHECKING:
    from protocol.ids import Address

SUITE_XCHACHA = 1
SUITE_AES_GCM = 2
KEY_BYTES = 32
TAG_BYTES = 16
ASSET_SALT_BYTES = 32
NONCE_BYTES = {SUITE_XCHACHA: 24, SUITE_AES_GCM: 12}
OVERHEAD_BYTES = {suite: 1 + nonce_bytes + TAG_BYTES for suite, nonce_bytes in NONCE_BYTES.items()}

Secret = bytearray | memoryview
"""A buffer whose owner wipes it."""


@dataclass(frozen=True, slots=True)
class SegmentContext:
    """All that a segment is bound to. `address` and `version` are the asset's (its root stripe's), for every stripe."""

    suite: int
    tier: int  # its number
    address: Address
    version: int
    segment: int  # 0 to segments - 1, over the whole asset
    segments: int
    asset_salt: bytes

    def associated_data(self) -> bytes:
        """The length-prefixed encoding that is authenticated with the segment."""
        assert len(self.asset_salt) == ASSET_SALT_BYTES
        assert len(self.address) == ID_BYTES
        assert 0 <= self.segment < self.segments
        return prefixed(
            b"lockbox/1 segment",
            bytes([self.suite]),
            bytes([self.tier]),
            self.address,
            self.version.to_bytes(8, "big"),
            self.segment.to_bytes(8, "big"),
            self.segments.to_bytes(8, "big"),
            self.asset_salt,
        )


def prefixed(*fields: bytes) -> bytes:
    """Each field behind its length (u16 big-endian): no two lists of fields encode alike."""
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def wipe(buffer: Secret) -> None:
    """Overwrite the whole buffer with zeros, in place."""
    with memoryview(buffer) as view:
        view[:] = bytes(len(view))


def encrypt_into(suite: int, key: Secret, nonce: bytes, plaintext: Secret, aad: bytes, out: Secret) -> None:
    """Ciphertext and tag of `plaintext` into `out`, which has exactly TAG_BYTES more. Key and nonce are used once.

    `plaintext` may be the front of `out` with suite 2 and 1 alike.
    """
    _check_shapes(suite, key, nonce)
    assert len(out) == len(plaintext) + TAG_BYTES
    if suite == SUITE_AES_GCM:
        AESGCM(key).encrypt_into(nonce, plaintext, aad, out)
        return
    failed = lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        ffi.from_buffer("unsigned char[]", out),
        ffi.NULL,
        ffi.from_buffer("unsigned char[]", plaintext),
        len(plaintext),
        aad,
        len(aad),
        ffi.NULL,
        nonce,
        ffi.from_buffer("unsigned char[]", key),
    )
    assert failed == 0


def decrypt_into(suite: int, key: Secret, nonce: bytes, ciphertext: Secret | bytes, aad: bytes, out: Secret) -> bool:
    """Plaintext of `ciphertext` (tag at its end) into `out`, which has exactly TAG_BYTES less.

    False when it does not authenticate: `out` is wiped then, since the library leaves what it decrypted there.
    """
    _check_shapes(suite, key, nonce)
    assert len(out) == len(ciphertext) - TAG_BYTES
    if suite == SUITE_AES_GCM:
        try:
            AESGCM(key).decrypt_into(nonce, ciphertext, aad, out)
        except InvalidTag:
            wipe(out)
            return False
        return True
    failed = lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        ffi.from_buffer("unsigned char[]", out),
        ffi.NULL,
        ffi.NULL,
        ffi.from_buffer("unsigned char[]", ciphertext),
        len(ciphertext),
        aad,
        len(aad),
        nonce,
        ffi.from_buffer("unsigned char[]", key),
    )
    if failed:
        wipe(out)
    return not failed


def seal_into(suite: int, key: Secret, nonce: bytes, plaintext: Secret, aad: bytes, out: Secret) -> None:
    """Suite byte, nonce, ciphertext and tag into `out`, which has exactly OVERHEAD_BYTES[suite] more than plaintext."""
    assert len(out) == len(plaintext) + OVERHEAD_BYTES[suite]
    with memoryview(out) as view:
        head = 1 + len(nonce)
        view[0] = suite
        view[1:head] = nonce
        encrypt_into(suite, key, nonce, plaintext, aad, view[head:])


def open_into(suite: int, key: Secret, sealed: Secret | bytes, aad: bytes, out: Secret) -> None:
    """The plaintext of `sealed` into `out`; LockboxError METADATA_CORRUPT when it does not open.

    `out` has OVERHEAD_BYTES[suite] less than `sealed`, and is all zeros after a failure. `suite` is what the manifest
    names: a sealed thing of another suite is refused.
    """
    overhead = OVERHEAD_BYTES[suite]
    if len(sealed) != len(out) + overhead or sealed[0] != suite:
        wipe(out)
        raise _does_not_open()
    with memoryview(sealed) as view:
        head = 1 + NONCE_BYTES[suite]
        opened = decrypt_into(suite, key, bytes(view[1:head]), view[head:], aad, out)
    if not opened:
        raise _does_not_open()


def seal_segment(key: Secret, nonce: bytes, context: SegmentContext, plaintext: Secret, out: Secret) -> None:
    """Seal one padded segment straight into the buffer that the erasure code cuts.

    `plaintext` has SegmentPlan.segment_bytes, `out` SegmentPlan.sealed_bytes = k * shard_bytes: nothing is copied.
    """
    seal_into(context.suite, key, nonce, plaintext, context.associated_data(), out)


def open_segment(key: Secret, context: SegmentContext, sealed: Secret | bytes, out: Secret) -> None:
    """Open what `seal_segment` made; LockboxError METADATA_CORRUPT when anything about it differs."""
    open_into(context.suite, key, sealed, context.associated_data(), out)


def _check_shapes(suite: int, key: Secret, nonce: bytes) -> None:
    assert len(key) == KEY_BYTES
    assert len(nonce) == NONCE_BYTES[suite]


def _does_not_open() -> LockboxError:
    return LockboxError(
        "a sealed part of this asset does not open: it was altered, or it belongs elsewhere",
        "verify the asset; if it was locked with other words or another passphrase, use those",
        ErrorCode.METADATA_CORRUPT,
    )
