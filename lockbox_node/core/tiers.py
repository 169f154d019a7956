"""The tier table as frozen values, and the arithmetic on it.

A tier says how an asset is coded (any k of n shards rebuild a group), how its shards spread (at most c in one region
or with one operator, at least R regions), how many decoys stand beside it, and how fast it heals. The invariant of
every row is `c < k <= n - f * c`: no region stores enough to rebuild, and f regions may vanish. SPEC.md, Tiers.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockbox_node.errors import UsageError
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import GROUPS_MAX

DAY_S = 24 * 3600
YEAR_S = 365 * DAY_S


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of the table. Durations in seconds; `decoy_ratio` = decoy groups per real group as (num, den)."""

    name: str
    number: int  # on the wire, in descriptors and manifests
    k: int  # shards that rebuild a group
    n: int  # shards of a group
    regions_min: int  # R
    shards_per_region_max: int  # c
    regions_lost_max: int  # f
    decoy_ratio: tuple[int, int]
    decoy_manifests: int  # m: slots of a stripe beside the real one
    decoy_assets: int
    verifiers: int
    quorum: int
    hold_off_s: float
    sweep_s: float
    lease_default_s: int
    lease_max_s: int
    suite: int  # of core.sealing

    @property
    def shards_per_operator_max(self) -> int:
        """c again: an operator that leaves takes no more with it than a region that burns."""
        return self.shards_per_region_max

    @property
    def slots(self) -> int:
        """Manifest slots of a stripe: the real one and m decoys."""
        return 1 + self.decoy_manifests

    @property
    def durable_min(self) -> int:
        """w: an update counts as done at n - floor((n - k) / 2) durable holders."""
        return self.n - (self.n - self.k) // 2

    @property
    def current_answers(self) -> int:
        """Holders that must have answered before a slot counts as current: n - w + 1 + floor(c / 2)."""
        return self.n - self.durable_min + 1 + self.shards_per_region_max // 2

    @property
    def real_groups_max(self) -> int:
        """The most real groups of a stripe that leave room for their decoys."""
        return max(real for real in range(1, GROUPS_MAX + 1) if real + self.decoys_for(real) <= GROUPS_MAX)

    def decoys_for(self, real: int) -> int:
        """Decoy groups that stand beside `real` real groups of one stripe, rounded up."""
        assert real >= 0
        numerator, denominator = self.decoy_ratio
        return -(-real * numerator // denominator)

    def margin(self, live: int) -> int:
        """Shards that may still be lost while `live` are left; negative when the group is lost."""
        return live - self.k


BASIC = Tier(
    name="basic",
    number=0,
    k=3,
    n=5,
    regions_min=3,
    shards_per_region_max=2,
    regions_lost_max=1,
    decoy_ratio=(1, 2),
    decoy_manifests=0,
    decoy_assets=0,
    verifiers=3,
    quorum=2,
    hold_off_s=300.0,
    sweep_s=600.0,
    lease_default_s=30 * DAY_S,
    lease_max_s=30 * DAY_S,
    suite=2,
)
STANDARD = Tier(
    name="standard",
    number=1,
    k=5,
    n=10,
    regions_min=3,
    shards_per_region_max=4,
    regions_lost_max=1,
    decoy_ratio=(1, 1),
    decoy_manifests=0,
    decoy_assets=0,
    verifiers=3,
    quorum=2,
    hold_off_s=120.0,
    sweep_s=300.0,
    lease_default_s=YEAR_S,
    lease_max_s=YEAR_S,
    suite=2,
)
PREMIUM = Tier(
    name="premium",
    number=2,
    k=6,
    n=15,
    regions_min=4,
    shards_per_region_max=4,
    regions_lost_max=2,
    decoy_ratio=(3, 2),
    decoy_manifests=1,
    decoy_assets=1,
    verifiers=3,
    quorum=2,
    hold_off_s=60.0,
    sweep_s=120.0,
    lease_default_s=YEAR_S,
    lease_max_s=5 * YEAR_S,
    suite=2,
)
ELITE = Tier(
    name="elite",
    number=3,
    k=8,
    n=20,
    regions_min=5,
    shards_per_region_max=4,
    regions_lost_max=3,
    decoy_ratio=(2, 1),
    decoy_manifests=2,
    decoy_assets=2,
    verifiers=5,
    quorum=4,
    hold_off_s=30.0,
    sweep_s=60.0,
    lease_default_s=YEAR_S,
    lease_max_s=100 * YEAR_S,
    suite=2,
)
TIERS = (BASIC, STANDARD, PREMIUM, ELITE)


def tier_named(name: str) -> Tier:
    """The tier that a person names, in any case; UsageError otherwise."""
    for tier in TIERS:
        if tier.name == name.strip().lower():
            return tier
    raise UsageError("there is no tier of that name", f"choose one of {', '.join(tier.name for tier in TIERS)}")


def tier_numbered(number: int) -> Tier:
    """The tier of a descriptor or manifest; RemoteProtocolError for a number that no tier has."""
    if not 0 <= number < len(TIERS):
        raise RemoteProtocolError(f"there is no tier {number}", ErrorCode.TIER_VIOLATION)
    return TIERS[number]
