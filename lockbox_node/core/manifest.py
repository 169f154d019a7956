"""The sealed table of contents of an asset; padding; how an asset is cut and laid out among decoys.

Sizes are padded (at least 1 KiB, then Padme: Nikitin et al., Reducing Metadata Leakage from Encrypted Files, PETS 2019,
section 4), cut into equal segments that fill k equal shards to the last byte, and spread over stripes. Each stripe
carries 1 + m slots of one size, one of them its manifest: salt || nonce || ciphertext || tag, AES-256-GCM, without any
mark, so that a slot of random bytes looks the same. All chance is given as bytes. SPEC.md, Manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from lockbox_node.core.derivation import slot_key_into
from lockbox_node.core.sealing import (
    ASSET_SALT_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    SUITE_AES_GCM,
    TAG_BYTES,
    SegmentContext,
    decrypt_into,
    encrypt_into,
    prefixed,
    wipe,
)
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError, UsageError
from protocol.errors import ErrorCode
from protocol.messages import GROUPS_MAX, SHARD_BYTES_MAX, U8, U32, U63, Id32, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.core.sealing import Secret
    from lockbox_node.core.tiers import Tier
    from protocol.ids import Address

KIND_ASSET = 0
KIND_WALLET_MARK = 1

PADDED_BYTES_MIN = 1024
STRIPES_MAX = 2**32 - 1
LABEL_BYTES_MAX = 128

SLOT_BYTES = 1024
SLOT_SALT_BYTES = 32
SLOT_CHANCE_BYTES = SLOT_SALT_BYTES + NONCE_BYTES[SUITE_AES_GCM]
_SLOT_PLAIN_BYTES = SLOT_BYTES - SLOT_CHANCE_BYTES - TAG_BYTES
_LENGTH_BYTES = 2
SORT_KEY_BYTES = 8  # chance per thing that is shuffled


class Manifest(Message, frozen=True):
    """What one stripe's slot says. Every stripe of an asset carries it, with its own `stripe` and `order`."""

    kind: Annotated[int, Meta(ge=KIND_ASSET, le=KIND_WALLET_MARK)]
    suite: U8
    tier: Annotated[int, Meta(ge=0, le=3)]
    size: U63  # of the asset, in bytes
    padded: U63
    segments: U63
    segment_bytes: U32  # of padded plaintext in each
    stripes: U32
    stripe: U32  # this one; 0 is the root
    asset_salt: Id32
    order: Annotated[list[U8], Meta(max_length=GROUPS_MAX)]  # group index of each of this stripe's segments
    label: Annotated[str, Meta(max_length=LABEL_BYTES_MAX)]
    created_unix_s: U63
    mark: U63 = 0  # of a wallet mark: indices below it may be in use


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """How an asset of `size` bytes is cut. Stripes hold `real_per_stripe` segments each, the last one maybe fewer."""

    suite: int
    size: int
    padded: int
    segment_bytes: int  # padded plaintext of each segment
    sealed_bytes: int  # of each sealed segment: k * shard_bytes
    shard_bytes: int
    segments: int
    stripes: int
    real_per_stripe: int

    def segments_of(self, stripe: int) -> range:
        """The numbers of the segments that `stripe` carries, in order."""
        assert 0 <= stripe < self.stripes
        first = stripe * self.real_per_stripe
        return range(first, min(first + self.real_per_stripe, self.segments))

    def asset_range(self, segment: int) -> range:
        """The asset's bytes that `segment` carries at its front; zeros fill the rest. May be empty."""
        assert 0 <= segment < self.segments
        first = min(segment * self.segment_bytes, self.size)
        return range(first, min(first + self.segment_bytes, self.size))


def padded_size(size: int) -> int:
    """At least 1 KiB, then Padme: `size` rounded up, by under 12 %, so that O(log log size) bits of it show."""
    assert size >= 0
    size = max(size, PADDED_BYTES_MIN)
    exponent = size.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (size + mask) & ~mask


def plan_segments(size: int, tier: Tier, suite: int | None = None) -> SegmentPlan:
    """Cut `size` bytes for `tier`, sealed with its suite unless another is given: as few equal segments
    as the shard limit allows, each filling k shards exactly.

    Everything in the plan follows from the padded size, so that the shape at rest tells no more than that. UsageError
    when the asset needs more stripes than there are numbers.
    """
    suite = tier.suite if suite is None else suite
    overhead = OVERHEAD_BYTES[suite]
    padded = padded_size(size)
    segments = -(-padded // (tier.k * SHARD_BYTES_MAX - overhead))
    shard_bytes = -(-(-(-padded // segments) + overhead) // tier.k)
    sealed_bytes = tier.k * shard_bytes
    stripes = -(-segments // tier.real_groups_max)
    if stripes > STRIPES_MAX:
        raise UsageError("this asset is larger than the network's format can hold", "split it and lock the parts")
    return SegmentPlan(
        suite=suite,
        size=size,
        padded=padded,
        segment_bytes=sealed_bytes - overhead,
        sealed_bytes=sealed_bytes,
        shard_bytes=shard_bytes,
        segments=segments,
        stripes=stripes,
        real_per_stripe=-(-segments // stripes),
    )


def plan_of(manifest: Manifest) -> SegmentPlan:
    """The plan by which the asset was cut; LockboxError METADATA_CORRUPT when the manifest contradicts itself."""
    plan = plan_segments(manifest.size, tier_numbered(manifest.tier), manifest.suite)
    planned = (plan.padded, plan.segments, plan.segment_bytes, plan.stripes)
    if (
        manifest.kind != KIND_ASSET
        or planned != (manifest.padded, manifest.segments, manifest.segment_bytes, manifest.stripes)
        or manifest.stripe >= plan.stripes
        or len(manifest.order) != len(plan.segments_of(manifest.stripe))
        or len(set(manifest.order)) != len(manifest.order)
    ):
        raise LockboxError(
            "the manifest of this asset does not fit together",
            "it was written by another version of the software; unlock it with that one",
            ErrorCode.METADATA_CORRUPT,
        )
    return plan


def shuffled(count: int, chance: bytes) -> list[int]:
    """A permutation of 0 to count - 1, drawn from SORT_KEY_BYTES of `chance` for each."""
    assert len(chance) >= count * SORT_KEY_BYTES
    return sorted(range(count), key=lambda at: chance[at * SORT_KEY_BYTES : (at + 1) * SORT_KEY_BYTES])


def asset_manifest(
    plan: SegmentPlan, tier: Tier, asset_salt: bytes, label: str, created_unix_s: int, stripe: int, order: list[int]
) -> Manifest:
    """The manifest that `stripe` carries. `order` gives each of its segments a group of the stripe."""
    assert len(order) == len(plan.segments_of(stripe))
    return Manifest(
        kind=KIND_ASSET,
        suite=plan.suite,
        tier=tier.number,
        size=plan.size,
        padded=plan.padded,
        segments=plan.segments,
        segment_bytes=plan.segment_bytes,
        stripes=plan.stripes,
        stripe=stripe,
        asset_salt=asset_salt,
        order=order,
        label=checked_label(label),
        created_unix_s=created_unix_s,
    )


def wallet_mark(tier: Tier, mark: int, created_unix_s: int) -> Manifest:
    """The manifest of a wallet's own stripe: asset indices below `mark` may be in use."""
    salt = bytes(ASSET_SALT_BYTES)
    return Manifest(KIND_WALLET_MARK, SUITE_AES_GCM, tier.number, 0, 0, 0, 0, 1, 0, salt, [], "", created_unix_s, mark)


def checked_label(label: str) -> str:
    """`label` itself when it fits into a manifest; UsageError otherwise."""
    if not label.isprintable():
        raise UsageError("the label holds characters that do not print", "leave out line breaks and control characters")
    if len(label.encode()) > LABEL_BYTES_MAX:
        raise UsageError("the label is too long", f"a label has at most {LABEL_BYTES_MAX} bytes in UTF-8")
    return label


def segment_context(manifest: Manifest, address: Address, version: int, segment: int) -> SegmentContext:
    """What segment number `segment` is bound to. `address` and `version` are those of the root stripe."""
    return SegmentContext(
        manifest.suite, manifest.tier, address, version, segment, manifest.segments, manifest.asset_salt
    )


def slots_chance_bytes(decoys: int) -> int:
    """Bytes of chance that `seal_slots` wants for `decoys` decoy slots."""
    return SLOT_CHANCE_BYTES + decoys * SLOT_BYTES + (1 + decoys) * SORT_KEY_BYTES


def seal_slots(
    manifest: Manifest, master: Secret, address: Address, version: int, decoys: int, chance: bytes
) -> list[bytes]:
    """The 1 + `decoys` slots of a stripe in random order: its sealed manifest among random bytes."""
    assert len(chance) == slots_chance_bytes(decoys)
    slots = [seal_slot(manifest, master, address, version, chance[:SLOT_CHANCE_BYTES])]
    last = SLOT_CHANCE_BYTES + decoys * SLOT_BYTES
    slots += [chance[at : at + SLOT_BYTES] for at in range(SLOT_CHANCE_BYTES, last, SLOT_BYTES)]
    return [slots[at] for at in shuffled(1 + decoys, chance[last:])]


def seal_slot(manifest: Manifest, master: Secret, address: Address, version: int, chance: bytes) -> bytes:
    """`manifest` as a slot of exactly SLOT_BYTES. `address` is the stripe's; `chance` = salt and nonce, used once."""
    assert len(chance) == SLOT_CHANCE_BYTES
    salt, nonce = chance[:SLOT_SALT_BYTES], chance[SLOT_SALT_BYTES:]
    body = bytearray(SLOT_BYTES)  # of full size from the start: growing would leave copies behind
    plaintext = bytearray(_SLOT_PLAIN_BYTES)
    slot = bytearray(SLOT_BYTES)
    slot[:SLOT_CHANCE_BYTES] = chance
    key = bytearray(KEY_BYTES)
    try:
        msgspec.msgpack.Encoder().encode_into(manifest, body)
        length = len(body)
        assert length <= _SLOT_PLAIN_BYTES - _LENGTH_BYTES
        plaintext[:_LENGTH_BYTES] = length.to_bytes(_LENGTH_BYTES, "big")
        plaintext[_LENGTH_BYTES : _LENGTH_BYTES + length] = body
        slot_key_into(master, salt, address, version, key)
        sealed = memoryview(slot)[SLOT_CHANCE_BYTES:]
        encrypt_into(SUITE_AES_GCM, key, nonce, plaintext, _slot_associated_data(address, version), sealed)
    finally:
        wipe(key)
        wipe(plaintext)
        wipe(body)
    return bytes(slot)


def open_slots(slots: Sequence[bytes], master: Secret, address: Address, version: int) -> Manifest:
    """The manifest among the slots of a stripe at `address`. Tries all of them, whichever opens.

    LockboxError METADATA_CORRUPT when none opens, or what opens is no manifest that this software reads.
    """
    opened = [manifest for slot in slots if (manifest := _open_slot(slot, master, address, version))]
    if not opened:
        raise LockboxError(
            "no manifest of this asset opens with this wallet",
            "check the words and the recovery passphrase, and that the asset is of this network",
            ErrorCode.METADATA_CORRUPT,
        )
    return opened[0]


def _open_slot(slot: bytes, master: Secret, address: Address, version: int) -> Manifest | None:
    if len(slot) != SLOT_BYTES:
        return None
    salt, nonce = slot[:SLOT_SALT_BYTES], slot[SLOT_SALT_BYTES:SLOT_CHANCE_BYTES]
    plaintext = bytearray(_SLOT_PLAIN_BYTES)
    key = bytearray(KEY_BYTES)
    try:
        slot_key_into(master, salt, address, version, key)
        sealed = memoryview(slot)[SLOT_CHANCE_BYTES:]
        aad = _slot_associated_data(address, version)
        if not decrypt_into(SUITE_AES_GCM, key, nonce, sealed, aad, plaintext):
            return None
        return _read(plaintext)
    finally:
        wipe(key)
        wipe(plaintext)


def _read(plaintext: bytearray) -> Manifest:
    length = int.from_bytes(plaintext[:_LENGTH_BYTES], "big")
    body = memoryview(plaintext)[_LENGTH_BYTES : _LENGTH_BYTES + length]
    try:
        manifest = msgspec.msgpack.decode(body, type=Manifest)
    except msgspec.DecodeError:
        manifest = None
    if manifest is None or manifest.suite not in OVERHEAD_BYTES:
        raise LockboxError(
            "the manifest of this asset was written by software that this one does not understand",
            "use the newest version",
            ErrorCode.UNSUPPORTED,
        )
    return manifest


def _slot_associated_data(address: Address, version: int) -> bytes:
    return prefixed(b"lockbox/1 slot", address, version.to_bytes(8, "big"))
