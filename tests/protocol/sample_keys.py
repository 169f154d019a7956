"""Keys and bytes that follow from names, so that each run, and each implementation, has the same."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def digest(name: str) -> bytes:
    """32 bytes for a name."""
    return hashlib.sha256(name.encode()).digest()


def hashed(body: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(body).digest()


def stretched(name: str, size: int) -> bytes:
    """`size` bytes for a name."""
    return hashlib.shake_256(name.encode()).digest(size)


@cache
def p256(name: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key for a name."""
    return ec.derive_private_key(int.from_bytes(digest(name), "big") >> 1, ec.SECP256R1())


@cache
def ed(name: str) -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key for a name."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(digest(name))


def raw(name: str) -> bytes:
    """The raw public key of `ed(name)`."""
    return ed(name).public_key().public_bytes_raw()
