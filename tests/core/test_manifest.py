"""Manifest: padding, cutting, layout, slots that look like chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.derivation import slot_key_into, wallet_key
from lockbox_node.core.manifest import (
    KIND_WALLET_MARK,
    LABEL_BYTES_MAX,
    SLOT_BYTES,
    SLOT_CHANCE_BYTES,
    SORT_KEY_BYTES,
    Manifest,
    SegmentPlan,
    asset_manifest,
    checked_label,
    open_slots,
    padded_size,
    plan_of,
    plan_segments,
    seal_slot,
    seal_slots,
    segment_context,
    shuffled,
    slots_chance_bytes,
    wallet_mark,
)
from lockbox_node.core.sealing import OVERHEAD_BYTES, SUITE_AES_GCM, SUITE_XCHACHA, encrypt_into, prefixed
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError, UsageError
from protocol.errors import ErrorCode
from protocol.ids import Address
from protocol.messages import GROUPS_MAX, SHARD_BYTES_MAX

if TYPE_CHECKING:
    import random

MASTER = bytearray(range(32))
ADDRESS = Address(b"a" * 32)
SALT = b"s" * 32
each_tier = pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)


def manifest(tier: Tier = STANDARD, size: int = 5000, label: str = "letters") -> Manifest:
    """The root's manifest of an asset of one stripe."""
    plan = plan_segments(size, tier)
    order = list(range(len(plan.segments_of(0))))
    return asset_manifest(plan, tier, SALT, label, 1_800_000_000, 0, order)


def slot_of(body: bytes, length: int | None = None) -> bytes:
    """A slot that authenticates, with any content."""
    chance, key = bytes(SLOT_CHANCE_BYTES), bytearray(32)
    plaintext = bytearray(SLOT_BYTES - SLOT_CHANCE_BYTES - 16)
    plaintext[:2] = (len(body) if length is None else length).to_bytes(2, "big")
    plaintext[2 : 2 + len(body)] = body
    slot_key_into(MASTER, chance[:32], ADDRESS, 1, key)
    sealed = bytearray(len(plaintext) + 16)
    aad = prefixed(b"lockbox/1 slot", ADDRESS, (1).to_bytes(8, "big"))
    encrypt_into(SUITE_AES_GCM, key, chance[32:], plaintext, aad, sealed)
    return chance + sealed


def test_padding_is_padme_from_1_kib_on() -> None:
    sizes = (0, 1, 1024, 1025, 5000, 2**20 + 1)
    assert [padded_size(size) for size in sizes] == [
        1024,
        1024,
        1024,
        1088,
        5120,
        1081344,
    ]


@given(st.integers(0, 2**45))
def test_padding_costs_under_12_percent_and_does_not_shrink_or_move(size: int) -> None:
    padded = padded_size(size)
    assert max(size, 1024) <= padded <= max(size * 1.12, 1024)
    assert padded_size(padded) == padded


@settings(max_examples=300)
@given(st.integers(0, 2**42), st.sampled_from(TIERS), st.sampled_from([SUITE_AES_GCM, SUITE_XCHACHA]))
def test_a_plan_carries_every_byte_in_equal_segments_within_the_limits(size: int, tier: Tier, suite: int) -> None:
    plan = plan_segments(size, tier, suite)
    assert plan.sealed_bytes == plan.segment_bytes + OVERHEAD_BYTES[suite] == tier.k * plan.shard_bytes
    assert 0 < plan.shard_bytes <= SHARD_BYTES_MAX
    assert (plan.segments - 1) * plan.segment_bytes < plan.padded <= plan.segments * plan.segment_bytes
    assert (plan.stripes - 1) * plan.real_per_stripe < plan.segments <= plan.stripes * plan.real_per_stripe
    assert plan.real_per_stripe + tier.decoys_for(plan.real_per_stripe) <= GROUPS_MAX
    assert sum(map(len, map(plan.asset_range, ends(plan)))) <= size
    assert plan.asset_range(0).start == 0
    assert plan.asset_range(plan.segments - 1).stop == size
    assert len(plan.segments_of(0)) == min(plan.real_per_stripe, plan.segments)
    assert plan.segments_of(plan.stripes - 1).stop == plan.segments


def ends(plan: SegmentPlan) -> set[int]:
    """The first and the last segment."""
    return {0, plan.segments - 1}


@each_tier
@pytest.mark.parametrize("size", [0, 1, 1024, 3_000_000, 20_000_001])
def test_stripes_and_segments_cover_the_asset_once_and_in_order(tier: Tier, size: int) -> None:
    plan = plan_segments(size, tier)
    segments = [segment for stripe in range(plan.stripes) for segment in plan.segments_of(stripe)]
    assert segments == list(range(plan.segments))
    covered = 0
    for segment in segments:
        part = plan.asset_range(segment)
        assert part.start == covered
        assert len(part) <= plan.segment_bytes
        covered = part.stop
    assert covered == size
    assert all(plan.segments_of(stripe) for stripe in range(plan.stripes))


def test_assets_of_one_padded_size_have_one_shape() -> None:
    one, other = plan_segments(4993, BASIC), plan_segments(5120, BASIC)
    assert (one.shard_bytes, one.segments, one.stripes) == (other.shard_bytes, other.segments, other.stripes)


def test_an_asset_beyond_the_format_is_refused() -> None:
    assert plan_segments(2**40, ELITE).stripes < 2**32
    with pytest.raises(UsageError):
        plan_segments(2**62, BASIC)


@each_tier
def test_a_manifest_comes_back_from_its_slots_and_gives_its_plan(tier: Tier, rng: random.Random) -> None:
    known = manifest(tier)
    chance = rng.randbytes(slots_chance_bytes(tier.decoy_manifests))
    slots = seal_slots(known, MASTER, ADDRESS, 1, tier.decoy_manifests, chance)
    assert len(slots) == tier.slots
    assert {len(slot) for slot in slots} == {SLOT_BYTES}
    assert open_slots(slots, MASTER, ADDRESS, 1) == known
    assert plan_of(known) == plan_segments(known.size, tier)


def test_the_real_slot_takes_every_place(rng: random.Random) -> None:
    known, places = manifest(ELITE), set()
    for _ in range(60):
        chance = rng.randbytes(slots_chance_bytes(2))
        slots = seal_slots(known, MASTER, ADDRESS, 1, 2, chance)
        places.add(slots.index(seal_slot(known, MASTER, ADDRESS, 1, chance[:SLOT_CHANCE_BYTES])))
    assert places == {0, 1, 2}


def test_a_slot_shows_nothing_that_repeats(rng: random.Random) -> None:
    slots = [seal_slot(manifest(), MASTER, ADDRESS, 1, rng.randbytes(SLOT_CHANCE_BYTES)) for _ in range(40)]
    assert all(len({slot[place] for slot in slots}) > 20 for place in range(SLOT_BYTES))


def test_the_largest_manifest_fits_a_slot() -> None:
    largest = Manifest(
        1, 255, 3, 2**63 - 1, 2**63 - 1, 2**63 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, SALT, [255] * GROUPS_MAX,
        "\N{SNOWMAN}" * (LABEL_BYTES_MAX // 3), 2**63 - 1, 2**63 - 1,
    )  # fmt: skip
    assert len(seal_slot(largest, MASTER, ADDRESS, 2**63 - 1, bytes(SLOT_CHANCE_BYTES))) == SLOT_BYTES


@pytest.mark.parametrize(
    ("master", "address", "version"),
    [(bytearray(32), ADDRESS, 1), (MASTER, Address(b"b" * 32), 1), (MASTER, ADDRESS, 2)],
    ids=["wallet", "address", "version"],
)
def test_a_slot_opens_only_where_it_belongs(master: bytearray, address: Address, version: int) -> None:
    slot = seal_slot(manifest(), MASTER, ADDRESS, 1, bytes(SLOT_CHANCE_BYTES))
    with pytest.raises(LockboxError) as caught:
        open_slots([slot, bytes(SLOT_BYTES), b"short"], master, address, version)
    assert caught.value.code is ErrorCode.METADATA_CORRUPT


@pytest.mark.parametrize(
    "slot",
    [
        slot_of(b"\xc1"),
        slot_of(b""),
        slot_of(msgspec.msgpack.encode(manifest()), length=2000),
        slot_of(msgspec.msgpack.encode(msgspec.structs.replace(manifest(), suite=9))),
    ],
    ids=["garbage", "empty", "length beyond the slot", "unknown suite"],
)
def test_a_slot_of_other_software_says_so(slot: bytes) -> None:
    with pytest.raises(LockboxError) as caught:
        open_slots([slot], MASTER, ADDRESS, 1)
    assert caught.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    "change",
    [
        {"kind": KIND_WALLET_MARK}, {"padded": 1024}, {"segments": 2}, {"segment_bytes": 9}, {"stripes": 2},
        {"stripe": 1}, {"order": []}, {"order": [0, 1]}, {"suite": SUITE_XCHACHA}, {"tier": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_gives_no_plan(change: dict[str, object]) -> None:
    with pytest.raises(LockboxError) as caught:
        plan_of(msgspec.structs.replace(manifest(), **change))
    assert caught.value.code is ErrorCode.METADATA_CORRUPT


def test_two_segments_in_one_group_give_no_plan() -> None:
    known = manifest(STANDARD, 2_000_000)
    assert len(known.order) == 2
    with pytest.raises(LockboxError):
        plan_of(msgspec.structs.replace(known, order=[1, 1]))


def test_a_wallet_mark_comes_back() -> None:
    known = wallet_mark(STANDARD, 32, 1_800_000_000)
    with wallet_key(MASTER) as owner:
        slot = seal_slot(known, MASTER, owner.address, 3, bytes(SLOT_CHANCE_BYTES))
        opened = open_slots([slot], MASTER, owner.address, 3)
    assert (opened.kind, opened.mark, opened.tier) == (KIND_WALLET_MARK, 32, STANDARD.number)


def test_a_segment_is_bound_to_what_the_manifest_says() -> None:
    known = manifest()
    context = segment_context(known, ADDRESS, 4, 0)
    assert (context.suite, context.tier, context.segments) == (known.suite, known.tier, known.segments)
    assert (context.address, context.version, context.segment, context.asset_salt) == (ADDRESS, 4, 0, SALT)


@given(st.integers(0, 8), st.randoms(use_true_random=False))
def test_a_shuffle_is_a_permutation(count: int, rng: random.Random) -> None:
    assert sorted(shuffled(count, rng.randbytes(count * SORT_KEY_BYTES))) == list(range(count))


def test_a_shuffle_reaches_every_order(rng: random.Random) -> None:
    assert len({tuple(shuffled(3, rng.randbytes(3 * SORT_KEY_BYTES))) for _ in range(200)}) == 6


@pytest.mark.parametrize("label", ["", "x" * LABEL_BYTES_MAX, "\N{SNOWMAN}" * 42, "Gr\u00fc\u00dfe"])
def test_a_label_that_fits_stays_as_it_is(label: str) -> None:
    assert checked_label(label) == label


@pytest.mark.parametrize("label", ["x" * 129, "\N{SNOWMAN}" * 43, "two\nlines", "\x1b[31m", "\udc80"])
def test_a_label_that_does_not_fit_is_wrong_usage(label: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_label(label)
    assert caught.value.hint


def test_wrong_shapes_are_our_mistake() -> None:
    plan = plan_segments(0, STANDARD)
    with pytest.raises(AssertionError):
        padded_size(-1)
    with pytest.raises(AssertionError):
        plan.segments_of(1)
    with pytest.raises(AssertionError):
        plan.asset_range(1)
    with pytest.raises(AssertionError):
        asset_manifest(plan, STANDARD, SALT, "", 0, 0, [0, 1])
    with pytest.raises(AssertionError):
        seal_slot(manifest(), MASTER, ADDRESS, 1, b"short")
    with pytest.raises(AssertionError):
        seal_slots(manifest(), MASTER, ADDRESS, 1, 2, b"short")
    with pytest.raises(AssertionError):
        shuffled(2, bytes(SORT_KEY_BYTES))
