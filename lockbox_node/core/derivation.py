"""From words to keys: the master key, and everything derived from it.

The BIP-39 seed of the words goes through Argon2id (RFC 9106) to a 32-byte master key. All else is HKDF-SHA256 (RFC
5869) of it, with info = length-prefixed (domain, suite, purpose, address, version, index) and, where one lock must
never repeat another's keys, a random salt. Keys stand in bytearrays that their owner wipes. SPEC.md, Derivation.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]

from lockbox_node.core.sealing import ASSET_SALT_BYTES, KEY_BYTES, SUITE_AES_GCM, Secret, prefixed, wipe
from lockbox_node.errors import LockboxError
from protocol import records
from protocol.ids import ID_BYTES, Address, address_of

if TYPE_CHECKING:
    from types import TracebackType

    from protocol.messages import Signed

DOMAIN = b"lockbox/1"
SEED_BYTES = 64  # of BIP-39
ARGON2_MEMORY_KIB = 64 * 1024
ARGON2_ITERATIONS = 4
ARGON2_LANES = 1

NO_SUITE = 0
NO_ADDRESS = Address(b"")


class AssetKey:
    """The Ed25519 key pair that owns one address. Takes over `seed` (32 bytes) and wipes it.

    Use it in a `with`, or call `wipe`: the private key then leaves memory.
    """

    def __init__(self, seed: bytearray) -> None:
        assert len(seed) == KEY_BYTES
        self._private: Ed25519PrivateKey | None = Ed25519PrivateKey.from_private_bytes(seed)
        wipe(seed)
        self.public_key: bytes = self._private.public_key().public_bytes_raw()
        self.address: Address = address_of(self.public_key)

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte signature of `data`."""
        assert self._private is not None, "this key was wiped"
        return self._private.sign(data)

    def wipe(self) -> None:
        """Drop the private key; OpenSSL clears it as it frees it. The public key and address stay."""
        self._private = None

    def __enter__(self) -> AssetKey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wipe()


def info(
    purpose: bytes, suite: int = NO_SUITE, address: Address = NO_ADDRESS, version: int = 0, index: int = 0
) -> bytes:
    """The info of HKDF: domain, suite (u8), purpose, address (32 bytes or none), version (u64), index (u64).

    Each field stands behind its length (u16); all numbers are big-endian.
    """
    assert len(address) in (0, ID_BYTES)
    return prefixed(DOMAIN, bytes([suite]), purpose, address, version.to_bytes(8, "big"), index.to_bytes(8, "big"))


def derive_into(master: Secret, salt: bytes | None, info: bytes, key: bytearray) -> None:
    """HKDF-SHA256 of `master` over the whole of `key`."""
    assert len(master) == KEY_BYTES
    HKDF(SHA256(), len(key), salt, info).derive_into(master, key)


def argon2_into(
    secret: Secret | bytes, salt: bytes, memory_kib: int, iterations: int, lanes: int, key: bytearray
) -> None:
    """Argon2id of `secret` over the whole of `key`. Takes about 0.1 s at the parameters of the master key.

    By libsodium, whose vector code takes half the time of OpenSSL's. It has one lane and salts of 16 bytes.
    """
    assert lanes == 1
    assert len(salt) == lib.crypto_pwhash_saltbytes()
    failed = lib.crypto_pwhash(
        ffi.from_buffer(key),
        len(key),
        ffi.from_buffer(secret),
        len(secret),
        salt,
        iterations,
        memory_kib * 1024,
        lib.crypto_pwhash_alg_argon2id13(),
    )
    if failed:
        raise LockboxError("there is too little memory to derive the key", f"free {memory_kib >> 10} MiB, try again")


def master_key(words_seed: Secret | bytes, network_id: bytes) -> bytearray:
    """The master key of one wallet in one network, from the 64-byte BIP-39 seed; 0.2 s. The caller wipes both."""
    assert len(words_seed) == SEED_BYTES
    salt = hashlib.sha256(b"lockbox" + network_id).digest()[:16]
    key = bytearray(KEY_BYTES)
    argon2_into(words_seed, salt, ARGON2_MEMORY_KIB, ARGON2_ITERATIONS, ARGON2_LANES, key)
    return key


def root_key(master: Secret, asset_index: int) -> AssetKey:
    """The key of the root stripe of asset `asset_index`: its address is the asset's."""
    return _asset_key(master, None, info(b"asset root", index=asset_index))


def stripe_key(master: Secret, asset_index: int, asset_salt: bytes, stripe: int) -> AssetKey:
    """The key of stripe number `stripe` >= 1 of one lock of an asset (stripe 0 is the root).

    The purpose carries the asset index, the index the stripe; `asset_salt` (32 bytes, drawn for each lock) makes the
    addresses of two locks of one asset differ.
    """
    assert stripe >= 1
    assert len(asset_salt) == ASSET_SALT_BYTES
    purpose = prefixed(b"asset stripe", asset_index.to_bytes(8, "big"))
    return _asset_key(master, asset_salt, info(purpose, index=stripe))


def wallet_key(master: Secret) -> AssetKey:
    """The key of the wallet's own stripe, which holds the high-water mark of indices."""
    return _asset_key(master, None, info(b"wallet mark"))


def segment_key_into(
    master: Secret, asset_salt: bytes, address: Address, version: int, suite: int, segment: int, key: bytearray
) -> None:
    """The key of one segment of one lock. `address` and `version` are the asset's, `segment` counts over the asset."""
    assert len(asset_salt) == ASSET_SALT_BYTES
    derive_into(master, asset_salt, info(b"segment", suite, address, version, segment), key)


def slot_key_into(master: Secret, slot_salt: bytes, address: Address, version: int, key: bytearray) -> None:
    """The key of one manifest slot. `address` is the stripe's that carries it."""
    derive_into(master, slot_salt, info(b"slot", SUITE_AES_GCM, address, version), key)


def state_key_into(master: Secret, key: bytearray) -> None:
    """The key of the wallet's own files on this machine."""
    derive_into(master, None, info(b"wallet state", SUITE_AES_GCM), key)


def access(key: AssetKey, operation: int, requester: bytes, nonce: bytes, time_unix_s: int) -> Signed:
    """Leave for `requester` (node or client id) to do the request numbered `operation` now, signed by the asset key."""
    return records.sign(records.AccessClaim(key.public_key, operation, requester, nonce, time_unix_s), key)


def _asset_key(master: Secret, salt: bytes | None, info: bytes) -> AssetKey:
    seed = bytearray(KEY_BYTES)
    derive_into(master, salt, info, seed)
    return AssetKey(seed)
