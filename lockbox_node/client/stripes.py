"""One stripe of an asset, ready to be placed: sealed, coded, hidden among decoys, hashed, signed.

Everything here is synchronous and runs in a worker thread when the stripe is large. Real and decoy groups take one
path: a decoy is a segment of zeros under a throw-away master key; after the shuffle nothing tells them apart, not
even to this module. Plaintext and keys live in buffers that are wiped. Source: DESIGN, Client pipeline, Lock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lockbox_node.client.chance import fresh
from lockbox_node.core.derivation import AssetKey, root_key, segment_key_into, stripe_key
from lockbox_node.core.erasure import code
from lockbox_node.core.manifest import (
    SORT_KEY_BYTES,
    Manifest,
    SegmentPlan,
    asset_manifest,
    seal_slots,
    segment_context,
    shuffled,
    slots_chance_bytes,
)
from lockbox_node.core.sealing import KEY_BYTES, NONCE_BYTES, OVERHEAD_BYTES, SegmentContext, seal_segment, wipe
from protocol import merkle
from protocol.records import CODE_CAUCHY, HASH_SHA256, Descriptor, Group, descriptor_hash, leaf_bytes, sign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.client.source import Source
    from lockbox_node.core.tiers import Tier
    from lockbox_node.ports import Entropy
    from protocol.ids import Address, DescriptorHash
    from protocol.messages import Signed

FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all stripes of one lock share. `master` is the wallet's own buffer; it is only read."""

    master: bytearray
    asset_index: int
    asset_salt: bytes
    root: AssetKey  # of the root stripe, whose address is the asset's; whoever made it wipes it
    version: int
    tier: Tier
    plan: SegmentPlan
    label: str
    created_unix_s: int
    lease_until_unix_s: int

    @property
    def address(self) -> Address:
        """Of the asset."""
        return self.root.address

    def key(self, number: int) -> AssetKey:
        """The key of stripe `number`; the caller wipes it."""
        return key_of_stripe(self.master, self.asset_index, self.asset_salt, number) if number else self.root


@dataclass(frozen=True, slots=True)
class Stripe:
    """One signed stripe. `shards[index]` = that index of every group; `key` signs what is said about it later."""

    key: AssetKey
    tier: Tier
    version: int
    lease_until_unix_s: int
    descriptor: Signed
    descriptor_hash: DescriptorHash
    slots: tuple[bytes, ...]
    shards: Sequence[Sequence[memoryview]]

    @property
    def address(self) -> Address:
        """Where it stands."""
        return self.key.address

    def without_shards(self) -> Stripe:
        """The same, for who no longer needs the bytes."""
        return replace(self, shards=())


def key_of_stripe(master: bytearray, asset_index: int, asset_salt: bytes, number: int) -> AssetKey:
    """The key of stripe `number` of an asset, the root stripe being 0; the caller wipes it."""
    return stripe_key(master, asset_index, asset_salt, number) if number else root_key(master, asset_index)


def prepare(recipe: Recipe, number: int, source: Source, entropy: Entropy) -> Stripe:
    """Stripe `number` of the asset: read, seal, code, mix, hash, sign. The caller wipes its key in the end."""
    tier, plan = recipe.tier, recipe.plan
    segments = plan.segments_of(number)
    count = len(segments) + tier.decoys_for(len(segments))
    order = shuffled(count, bytes(fresh(count * SORT_KEY_BYTES, entropy)))
    manifest = asset_manifest(
        plan, tier, recipe.asset_salt, recipe.label, recipe.created_unix_s, number, order[: len(segments)]
    )
    throwaway = fresh(KEY_BYTES, entropy)
    plaintext = bytearray(plan.segment_bytes)
    groups: list[list[memoryview]] = [[] for _ in order]
    try:
        work = [(segment, recipe.master) for segment in segments]
        work += [(segments[0], throwaway)] * (count - len(segments))
        for place, (segment, master) in zip(order, work, strict=True):
            wanted = plan.asset_range(segment) if master is recipe.master else range(0)
            _fill(plaintext, wanted, source)
            context = segment_context(manifest, recipe.address, recipe.version, segment)
            groups[place] = code(tier.k, tier.n).encode(_sealed(master, context, plaintext, entropy))
    finally:
        wipe(plaintext)
        wipe(throwaway)
    key = recipe.key(number)
    try:
        slots = mixed_slots(manifest, recipe.master, key.address, recipe.version, tier, entropy)
        return signed_stripe(
            key, tier, recipe.version, groups, slots, recipe.created_unix_s, recipe.lease_until_unix_s, replaces=()
        )
    except BaseException:
        key.wipe()
        raise


def signed_stripe(
    key: AssetKey,
    tier: Tier,
    version: int,
    groups: Sequence[Sequence[memoryview]],
    slots: tuple[bytes, ...],
    created_unix_s: int,
    lease_until_unix_s: int,
    replaces: Sequence[bytes],
) -> Stripe:
    """Hash the shards (`groups[g][index]`), describe and sign the stripe. Without groups it carries slots only."""
    shard_bytes = len(groups[0][0]) if groups else 0
    leaf = leaf_bytes(shard_bytes)
    descriptor = Descriptor(
        public_key=key.public_key,
        version=version,
        tier=tier.number,
        code=CODE_CAUCHY,
        k=tier.k,
        n=tier.n,
        hash=HASH_SHA256,
        leaf_bytes=leaf,
        shard_bytes=shard_bytes,
        groups=[Group([merkle.root(shard, leaf) for shard in group]) for group in groups],
        slot_hashes=[hashlib.sha256(slot).digest() for slot in slots],
        created_unix_s=created_unix_s,
        lease_until_unix_s=lease_until_unix_s,
        replaces=list(replaces),
    )
    signed = sign(descriptor, key)
    shards = [[group[index] for group in groups] for index in range(tier.n)]
    return Stripe(key, tier, version, lease_until_unix_s, signed, descriptor_hash(signed), slots, shards)


def mixed_slots(
    manifest: Manifest, master: bytearray, address: Address, version: int, tier: Tier, entropy: Entropy
) -> tuple[bytes, ...]:
    """The sealed manifest among the tier's decoy slots, in random order."""
    chance = bytes(fresh(slots_chance_bytes(tier.decoy_manifests), entropy))
    return tuple(seal_slots(manifest, master, address, version, tier.decoy_manifests, chance))


def _fill(plaintext: bytearray, wanted: range, source: Source) -> None:
    """The asset's bytes `wanted` at the front, zeros behind them."""
    with memoryview(plaintext) as view:
        if wanted:
            source.read_into(wanted.start, view[: len(wanted)])
        view[len(wanted) :] = bytes(len(plaintext) - len(wanted))


def _sealed(master: bytearray, context: SegmentContext, plaintext: bytearray, entropy: Entropy) -> bytearray:
    key = bytearray(KEY_BYTES)
    sealed = bytearray(len(plaintext) + OVERHEAD_BYTES[context.suite])
    try:
        segment_key_into(
            master, context.asset_salt, context.address, context.version, context.suite, context.segment, key
        )
        seal_segment(key, bytes(fresh(NONCE_BYTES[context.suite], entropy)), context, plaintext, sealed)
    finally:
        wipe(key)
    return sealed
