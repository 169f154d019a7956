"""The region table: distances, the 1000 km border, and a spread that is always the same."""

from __future__ import annotations

import itertools
import math

import pytest

from lockbox_node.core.regions import (
    EARTH_RADIUS_KM,
    NEAR,
    REGIONS,
    SPREAD_MAX,
    Region,
    distance_km,
    far_enough,
    region_named,
    spread_regions,
)
from lockbox_node.errors import ConfigError


def at_km(kilometres: float) -> tuple[Region, Region]:
    """Two places on one meridian, that far apart."""
    return Region("a", "A", 0, 0), Region("b", "B", math.degrees(kilometres / EARTH_RADIUS_KM), 0)


@pytest.mark.parametrize(("kilometres", "enough"), [(999.999, False), (1000.0, True), (1000.001, True), (0.0, False)])
def test_the_border_is_at_exactly_1000_km(kilometres: float, enough: bool) -> None:
    assert far_enough(*at_km(kilometres)) is enough


def test_there_are_22_regions() -> None:
    assert len(REGIONS) == 22


@pytest.mark.parametrize(
    ("a", "b", "kilometres"),
    [
        ("us-east-1", "us-east-2", 483.6),
        ("eu-west-1", "eu-west-2", 463.0),
        ("ap-southeast-1", "ap-southeast-3", 905.4),
        ("eu-west-2", "eu-south-1", 960.1),
        ("us-west-1", "us-west-2", 962.4),
        ("eu-west-1", "eu-central-1", 1087.7),
        ("ap-northeast-1", "ap-northeast-2", 1152.6),
        ("eu-central-1", "eu-north-1", 1186.9),
    ],
)
def test_distances_of_known_pairs(a: str, b: str, kilometres: float) -> None:
    assert distance_km(REGIONS[a], REGIONS[b]) == pytest.approx(kilometres, abs=0.05)
    assert distance_km(REGIONS[b], REGIONS[a]) == distance_km(REGIONS[a], REGIONS[b])
    assert (b in NEAR[a]) is (kilometres < 1000)


def test_antipodes_are_half_a_circumference_apart() -> None:
    assert distance_km(Region("a", "A", 0, 0), Region("b", "B", 0, 180)) == pytest.approx(math.pi * EARTH_RADIUS_KM)


def test_every_spread_is_pairwise_far_enough_and_always_the_same() -> None:
    assert len(spread_regions()) == 7
    assert spread_regions(7) == spread_regions(SPREAD_MAX)[:7]
    for a, b in itertools.combinations(spread_regions(SPREAD_MAX), 2):
        assert far_enough(REGIONS[a], REGIONS[b])


@pytest.mark.parametrize("count", [0, -1, SPREAD_MAX + 1])
def test_a_spread_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="cannot be had"):
        spread_regions(count)


def test_an_unknown_region_is_refused_by_name() -> None:
    assert region_named("eu-west-1").city == "Dublin"
    with pytest.raises(ConfigError, match="atlantis-1"):
        region_named("atlantis-1")
