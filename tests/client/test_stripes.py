"""One stripe before it is placed: shape, signatures, decoys that nothing tells from the real ones, wiped keys."""

from __future__ import annotations

import hashlib

import pytest

from lockbox_node.client.source import BytesSource
from lockbox_node.client.stripes import Recipe, Stripe, key_of_stripe, prepare
from lockbox_node.core.derivation import segment_key_into
from lockbox_node.core.erasure import code
from lockbox_node.core.manifest import open_slots, plan_segments, segment_context
from lockbox_node.core.sealing import KEY_BYTES, OVERHEAD_BYTES, open_segment
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol import merkle
from protocol.records import open_descriptor
from simulations.identities import NOW_UNIX_S
from simulations.world import SeededEntropy

NOW = int(NOW_UNIX_S)
MASTER = bytearray(range(32))
SALT = bytes(32)


def recipe(tier: Tier, size: int, index: int = 3) -> Recipe:
    root = key_of_stripe(MASTER, index, SALT, 0)
    return Recipe(MASTER, index, SALT, root, 1, tier, plan_segments(size, tier), "a label", NOW, NOW + 86_400)


def made(tier: Tier, content: bytes, number: int = 0, seed: int = 1) -> tuple[Recipe, Stripe]:
    one = recipe(tier, len(content))
    return one, prepare(one, number, BytesSource(bytearray(content)), SeededEntropy(seed))


def opened(one: Recipe, stripe: Stripe, number: int) -> bytes:
    """The plaintext of a stripe, from any k shards of each group."""
    tier, plan = one.tier, one.plan
    manifest = open_slots(stripe.slots, MASTER, stripe.address, 1)
    content = b""
    for segment, group in zip(plan.segments_of(number), manifest.order, strict=True):
        present = {index: stripe.shards[index][group] for index in range(tier.n - tier.k, tier.n)}
        sealed = code(tier.k, tier.n).decode(present, plan.sealed_bytes)
        key, piece = bytearray(KEY_BYTES), bytearray(plan.sealed_bytes - OVERHEAD_BYTES[manifest.suite])
        segment_key_into(MASTER, SALT, one.address, 1, manifest.suite, segment, key)
        open_segment(key, segment_context(manifest, one.address, 1, segment), sealed, piece)
        content += piece[: len(plan.asset_range(segment))]
    return content


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
@pytest.mark.parametrize("size", [0, 1, 5_000])
def test_any_k_shards_and_the_words_give_back_the_content(tier: Tier, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    one, stripe = made(tier, content[:size])
    assert opened(one, stripe, 0) == content[:size]


def test_every_stripe_of_a_large_asset_stands_at_its_own_address() -> None:
    content = bytes(range(251)) * 24_000
    one, first = made(STANDARD, content, 0)
    _, second = made(STANDARD, content, 1)
    assert one.plan.stripes == 2
    assert opened(one, first, 0) + opened(one, second, 1) == content
    assert first.address == one.address != second.address


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_the_descriptor_signs_every_shard_and_slot(tier: Tier) -> None:
    _, stripe = made(tier, b"secret")
    descriptor = open_descriptor(stripe.descriptor)
    assert descriptor.public_key == stripe.key.public_key
    assert descriptor.slot_hashes == [hashlib.sha256(slot).digest() for slot in stripe.slots]
    for index in range(tier.n):
        for group, shard in zip(descriptor.groups, stripe.shards[index], strict=True):
            assert merkle.root(shard, descriptor.leaf_bytes) == group.shard_ids[index]


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_decoys_are_as_many_as_the_tier_asks_and_of_the_same_size(tier: Tier) -> None:
    _, stripe = made(tier, b"secret")
    descriptor = open_descriptor(stripe.descriptor)
    assert len(descriptor.groups) == 1 + tier.decoys_for(1)
    assert len(stripe.slots) == 1 + tier.decoy_manifests
    assert {len(shard) for part in stripe.shards for shard in part} == {descriptor.shard_bytes}
    assert len({len(slot) for slot in stripe.slots}) == 1


def test_a_real_group_stands_at_any_place_and_a_decoy_begins_as_it_does() -> None:
    places: set[int] = set()
    fronts: set[int] = set()
    for seed in range(20):
        _, stripe = made(ELITE, b"secret", seed=seed)
        places.update(open_slots(stripe.slots, MASTER, stripe.address, 1).order)
        fronts.update(bytes(shard)[0] for shard in stripe.shards[0])
    assert places == {0, 1, 2}
    assert len(fronts) == 1  # the suite byte: the same for real and decoy groups


def test_decoy_groups_open_with_none_of_our_keys() -> None:
    one, stripe = made(STANDARD, b"secret")
    manifest = open_slots(stripe.slots, MASTER, stripe.address, 1)
    decoy = next(group for group in range(2) if group not in manifest.order)
    sealed = code(5, 10).decode({index: stripe.shards[index][decoy] for index in range(5)}, one.plan.sealed_bytes)
    key, piece = bytearray(KEY_BYTES), bytearray(one.plan.sealed_bytes - OVERHEAD_BYTES[manifest.suite])
    segment_key_into(MASTER, SALT, one.address, 1, manifest.suite, 0, key)
    with pytest.raises(LockboxError):
        open_segment(key, segment_context(manifest, one.address, 1, 0), sealed, piece)
    assert piece == bytes(len(piece))


def test_the_same_content_locked_twice_shares_no_shard_and_no_slot() -> None:
    _, first = made(STANDARD, b"secret", seed=1)
    _, second = made(STANDARD, b"secret", seed=2)
    assert not {bytes(shard) for part in first.shards for shard in part} & {
        bytes(shard) for part in second.shards for shard in part
    }
    assert not set(first.slots) & set(second.slots)


class Torn(BytesSource):
    """A source that breaks off."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Half of it."""
        buffer[:3] = b"sec"
        raise LockboxError("the disk broke", "use another")


class Watched(SeededEntropy):
    """Entropy that remembers the buffers it filled."""

    def __init__(self) -> None:
        super().__init__(1)
        self.filled: list[bytearray | memoryview] = []

    def fill(self, buffer: bytearray | memoryview) -> None:
        """See the port."""
        super().fill(buffer)
        self.filled.append(buffer)


@pytest.mark.parametrize("source", [BytesSource(bytearray(b"secret")), Torn(bytearray(b"secret"))])
def test_the_throwaway_key_is_wiped_whether_it_goes_well_or_not(source: BytesSource) -> None:
    entropy = Watched()
    try:
        prepare(recipe(STANDARD, 6), 0, source, entropy)
    except LockboxError as error:
        assert error.message == "the disk broke"  # noqa: PT017 - only one of the two raises
    keys = [buffer for buffer in entropy.filled if len(buffer) == KEY_BYTES]
    assert keys
    assert any(bytes(key) == bytes(KEY_BYTES) for key in keys)
