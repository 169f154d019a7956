"""The tier table: its rows, its arithmetic, the invariant of placement."""

from __future__ import annotations

import pytest

from lockbox_node.core.sealing import OVERHEAD_BYTES
from lockbox_node.core.tiers import (
    BASIC,
    DAY_S,
    ELITE,
    PREMIUM,
    STANDARD,
    TIERS,
    YEAR_S,
    Tier,
    tier_named,
    tier_numbered,
)
from lockbox_node.errors import ExitCode, UsageError
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import GROUPS_MAX, SHARDS_MAX, SLOTS_MAX

each_tier = pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)


def test_the_rows_are_those_of_the_design() -> None:
    shape = [(t.k, t.n, t.regions_min, t.shards_per_region_max, t.regions_lost_max) for t in TIERS]
    assert shape == [(3, 5, 3, 2, 1), (5, 10, 3, 4, 1), (6, 15, 4, 4, 2), (8, 20, 5, 4, 3)]
    assert [(t.verifiers, t.quorum) for t in TIERS] == [(3, 2), (3, 2), (3, 2), (5, 4)]
    assert [(t.hold_off_s, t.sweep_s) for t in TIERS] == [(300, 600), (120, 300), (60, 120), (30, 60)]
    assert [(t.decoy_manifests, t.decoy_assets) for t in TIERS] == [(0, 0), (0, 0), (1, 1), (2, 2)]
    assert [t.lease_max_s for t in TIERS] == [30 * DAY_S, YEAR_S, 5 * YEAR_S, 100 * YEAR_S]
    assert [t.lease_default_s for t in TIERS] == [30 * DAY_S, YEAR_S, YEAR_S, YEAR_S]


@each_tier
def test_no_region_can_rebuild_and_the_promised_ones_may_vanish(tier: Tier) -> None:
    c = tier.shards_per_region_max
    assert c < tier.k <= tier.n - tier.regions_lost_max * c
    assert tier.regions_min * c >= tier.n
    assert tier.shards_per_operator_max == c


@each_tier
def test_a_row_fits_the_wire(tier: Tier) -> None:
    assert tier.n <= SHARDS_MAX
    assert tier.slots <= SLOTS_MAX
    assert tier.suite in OVERHEAD_BYTES
    assert tier.lease_default_s <= tier.lease_max_s


@pytest.mark.parametrize(
    ("tier", "durable", "answers", "real"),
    [(BASIC, 4, 3, 5), (STANDARD, 8, 5, 4), (PREMIUM, 11, 7, 3), (ELITE, 14, 9, 2)],
)
def test_quorums_and_real_groups(tier: Tier, durable: int, answers: int, real: int) -> None:
    assert (tier.durable_min, tier.current_answers, tier.real_groups_max) == (durable, answers, real)
    assert real + tier.decoys_for(real) <= GROUPS_MAX < real + 1 + tier.decoys_for(real + 1)


def test_decoys_are_rounded_up() -> None:
    assert [BASIC.decoys_for(real) for real in range(6)] == [0, 1, 1, 2, 2, 3]
    assert [STANDARD.decoys_for(real) for real in (1, 4)] == [1, 4]
    assert [PREMIUM.decoys_for(real) for real in (1, 2, 3)] == [2, 3, 5]
    assert [ELITE.decoys_for(real) for real in (1, 2)] == [2, 4]


def test_margin_counts_what_may_still_be_lost() -> None:
    assert [STANDARD.margin(live) for live in (10, 5, 4)] == [5, 0, -1]


@each_tier
def test_a_tier_is_found_by_name_and_number(tier: Tier) -> None:
    assert tier_named(f" {tier.name.upper()} ") is tier
    assert tier_numbered(tier.number) is tier


def test_an_unknown_name_is_wrong_usage() -> None:
    with pytest.raises(UsageError) as caught:
        tier_named("gold")
    assert caught.value.exit_code is ExitCode.USAGE
    assert "elite" in caught.value.hint


@pytest.mark.parametrize("number", [-1, 4])
def test_an_unknown_number_is_the_peers_fault(number: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        tier_numbered(number)
    assert caught.value.code is ErrorCode.TIER_VIOLATION
