"""What one holder keeps, in few bytes: 4096 buckets of slot identities, each with a count and a sum.

Two nodes compare the buckets of what they share and exchange tables only where these differ. The sum is one of hashes
modulo 2^256, so that it changes by one addition when an identity comes or goes, in any order. It finds differences
between honest holders; who lies to a sibling about it gains nothing but repairs. Layout: SPEC.md, Held digests.
"""

from __future__ import annotations

import hashlib

BUCKETS = 4096
BUCKET_BITS = 12
DIGEST_BYTES = 32
DIGEST_MODULUS = 1 << (8 * DIGEST_BYTES)
_DOMAIN = b"lockbox held"


def bucket_of(address: bytes) -> int:
    """The bucket of an address: its first 12 bits."""
    return int.from_bytes(address[:2], "big") >> (16 - BUCKET_BITS)


def held_digest(address: bytes, version: int, descriptor_hash: bytes) -> int:
    """What one slot identity adds to the sum of its bucket."""
    hashed = hashlib.sha256(_DOMAIN + address + version.to_bytes(8, "big") + descriptor_hash)
    return int.from_bytes(hashed.digest(), "big")


def sum_bytes(total: int) -> bytes:
    """A sum of digests, of any sign and size, as it travels: modulo 2^256, big-endian."""
    return (total % DIGEST_MODULUS).to_bytes(DIGEST_BYTES, "big")
