"""Real signed stripes for tests: everything from one seed, nothing invented that a holder would refuse."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nacl.bindings

from lockbox_node.core.erasure import code
from lockbox_node.core.tiers import STANDARD
from lockbox_node.ports import Owner, StripePart, entries_of
from protocol import merkle
from protocol.ids import Address, address_of
from protocol.messages import HolderTable, Signed
from protocol.records import (
    CODE_CAUCHY,
    HASH_SHA256,
    AccessClaim,
    Descriptor,
    Group,
    Renewal,
    Tombstone,
    descriptor_hash,
    leaf_bytes,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.core.tiers import Tier

NOW_UNIX_S = 1_800_000_000
DAY_S = 86_400


OWNER = Owner(bytes(32), 2**60)  # for tests that are not about who is charged


def bytes_of(*seed: object, length: int = 32) -> bytes:
    """`length` bytes that depend on the seed alone."""
    return hashlib.shake_256(repr(seed).encode()).digest(length)


def node_of(number: int) -> bytes:
    """The id of a node of the test."""
    return bytes_of("node", number)


class AssetSigner:
    """An asset key from a seed."""

    def __init__(self, seed: object) -> None:
        self.public_key, self._secret = nacl.bindings.crypto_sign_seed_keypair(bytes_of("asset", seed))

    @property
    def address(self) -> Address:
        """Where what it signs stands."""
        return address_of(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature."""
        return nacl.bindings.crypto_sign(data, self._secret)[:64]

    def tombstone(self, version: int, lease_until_unix_s: int = NOW_UNIX_S + 30 * DAY_S) -> Signed:
        """A signed tombstone."""
        return sign(Tombstone(self.public_key, version, NOW_UNIX_S, lease_until_unix_s), self)

    def renewal(self, version: int, descriptor_hash: bytes, lease_until_unix_s: int) -> Signed:
        """A signed renewal."""
        return sign(Renewal(self.public_key, version, descriptor_hash, lease_until_unix_s, NOW_UNIX_S), self)

    def access(self, operation: int, requester: bytes, time_unix_s: int = NOW_UNIX_S) -> Signed:
        """A signed access claim."""
        nonce = bytes_of("nonce", operation, requester, length=16)
        return sign(AccessClaim(self.public_key, operation, requester, nonce, time_unix_s), self)


@dataclass(frozen=True)
class Stripe:
    """A whole stripe: one part per index."""

    signer: AssetSigner
    descriptor: Descriptor
    signed: Signed
    parts: tuple[StripePart, ...]

    @property
    def table(self) -> HolderTable:
        """The planned holder table."""
        part = self.parts[0]
        return HolderTable(part.address, part.version, part.descriptor_hash, list(part.entries))


def make_stripe(
    seed: object,
    *,
    version: int = 1,
    salt: object = 0,
    groups: int = 2,
    shard_bytes: int = 300,
    tier: tuple[int, int, int] = (1, 5, 10),
    slots: int = 1,
    holders: Sequence[int] | None = None,
    replaces: Sequence[bytes] = (),
    lease_s: int = 30 * DAY_S,
) -> Stripe:
    """A stripe of the asset `seed`; `salt` tells siblings apart; `tier` = (number, k, n); `holders` = node numbers."""
    signer = AssetSigner(seed)
    number, k, n = tier
    shards = [
        [bytes_of(seed, version, salt, group, index, length=shard_bytes) for index in range(n)]
        for group in range(groups)
    ]
    leaf = leaf_bytes(shard_bytes if groups else 0)
    slot_bytes = tuple(bytes_of("slot", seed, version, salt, slot, length=1024) for slot in range(slots))
    descriptor = Descriptor(
        signer.public_key,
        version,
        number,
        CODE_CAUCHY,
        k,
        n,
        HASH_SHA256,
        leaf,
        shard_bytes if groups else 0,
        [Group([merkle.root(shard, leaf) for shard in group]) for group in shards],
        [hashlib.sha256(slot).digest() for slot in slot_bytes],
        NOW_UNIX_S,
        NOW_UNIX_S + lease_s,
        list(replaces),
    )
    signed = sign(descriptor, signer)
    entries = entries_of(((index, node_of(node)) for index, node in enumerate(holders or range(n))), version)
    parts = tuple(
        StripePart(
            signer.address,
            version,
            descriptor_hash(signed),
            signed,
            number,
            descriptor.lease_until_unix_s,
            slot_bytes,
            index,
            tuple(group[index] for group in shards),
            entries,
        )
        for index in range(n)
    )
    return Stripe(signer, descriptor, signed, parts)


def coded_parts(
    seed: object,
    holders: Sequence[bytes],
    tier: Tier = STANDARD,
    shard_bytes: int = 300,
    groups: int = 2,
    *,
    version: int = 1,
    replaces: Sequence[bytes] = (),
    created_unix_s: int = NOW_UNIX_S,
    lease_s: int = DAY_S,
) -> list[StripePart]:
    """A stripe whose shards are truly coded, so that any k rebuild the others: one part per holder, by index."""
    signer = AssetSigner(seed)
    coder = code(tier.k, tier.n)
    data = [bytes_of(seed, version, group, length=shard_bytes * tier.k) for group in range(groups)]
    shards = [[bytes(shard) for shard in coder.encode(group)] for group in data]
    leaf = leaf_bytes(shard_bytes)
    slot = bytes_of("slot", seed, version, length=1024)
    descriptor = Descriptor(
        signer.public_key, version, tier.number, CODE_CAUCHY, tier.k, tier.n, HASH_SHA256, leaf, shard_bytes,
        [Group([merkle.root(shard, leaf) for shard in group]) for group in shards],
        [hashlib.sha256(slot).digest()], created_unix_s, created_unix_s + lease_s, list(replaces),
    )  # fmt: skip
    signed = sign(descriptor, signer)
    entries = entries_of(enumerate(holders), version)
    return [
        StripePart(
            signer.address, version, descriptor_hash(signed), signed, tier.number, descriptor.lease_until_unix_s,
            (slot,), index, tuple(group[index] for group in shards), entries,
        )
        for index in range(tier.n)
    ]  # fmt: skip


class FixedClock:
    """A wall clock that stands until it is moved."""

    def __init__(self, now: float = NOW_UNIX_S) -> None:
        self.now = now

    def now_unix_s(self) -> float:
        """Its time."""
        return self.now
