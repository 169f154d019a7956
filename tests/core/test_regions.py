"""The region table: distances, the 1000 km border, and a spread that is always the same."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.regions import (
    BUILT_IN,
    EARTH_RADIUS_KM,
    SPREAD_MAX,
    Region,
    RegionTable,
    distance_km,
    far_enough,
    spread_regions,
)
from lockbox_node.errors import ConfigError
from protocol.documents import REGIONS_MAX, Place

if TYPE_CHECKING:
    from collections.abc import Callable


def at_km(kilometres: float) -> tuple[Region, Region]:
    """Two places on one meridian, that far apart."""
    return Region("a", "A", 0, 0), Region("b", "B", math.degrees(kilometres / EARTH_RADIUS_KM), 0)


@pytest.mark.parametrize(("kilometres", "enough"), [(999.999, False), (1000.0, True), (1000.001, True), (0.0, False)])
def test_the_border_is_at_exactly_1000_km(kilometres: float, enough: bool) -> None:
    assert far_enough(*at_km(kilometres)) is enough


def test_there_are_22_regions() -> None:
    assert len(BUILT_IN.regions) == 22


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
    assert distance_km(BUILT_IN.regions[a], BUILT_IN.regions[b]) == pytest.approx(kilometres, abs=0.05)
    assert distance_km(BUILT_IN.regions[b], BUILT_IN.regions[a]) == distance_km(
        BUILT_IN.regions[a], BUILT_IN.regions[b]
    )
    assert (b in BUILT_IN.near[a]) is (kilometres < 1000)


@pytest.mark.parametrize(
    ("a", "b", "kilometres"),
    [
        ((0.0, 179.9), (0.0, -179.9), 22.239),  # across the antimeridian
        ((60.0, 180.0), (60.0, -180.0), 0.0),  # one place by two names
        ((90.0, 0.0), (90.0, 137.0), 0.0),  # so is a pole
        ((89.0, 0.0), (89.0, 180.0), 222.390),  # across it
        ((-90.0, 0.0), (90.0, 0.0), math.pi * EARTH_RADIUS_KM),
        ((12.5, 34.5), (12.5, 34.5), 0.0),
    ],
)
def test_where_the_coordinates_meet(a: tuple[float, float], b: tuple[float, float], kilometres: float) -> None:
    here, there = Region("a", "A", *a), Region("b", "B", *b)
    assert distance_km(here, there) == pytest.approx(kilometres, abs=0.001)
    assert ("b" in RegionTable.of([here, there]).near["a"]) is (kilometres < 1000)


def test_antipodes_are_half_a_circumference_apart() -> None:
    assert distance_km(Region("a", "A", 0, 0), Region("b", "B", 0, 180)) == pytest.approx(math.pi * EARTH_RADIUS_KM)


def test_every_spread_is_pairwise_far_enough_and_always_the_same() -> None:
    assert len(spread_regions()) == 7
    assert spread_regions(7) == spread_regions(SPREAD_MAX)[:7]
    for a, b in itertools.combinations(spread_regions(SPREAD_MAX), 2):
        assert far_enough(BUILT_IN.regions[a], BUILT_IN.regions[b])


@pytest.mark.parametrize("count", [0, -1, SPREAD_MAX + 1])
def test_a_spread_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="cannot be had"):
        spread_regions(count)


def test_an_unknown_region_is_refused_by_name() -> None:
    assert BUILT_IN.named("eu-west-1").city == "Dublin"
    with pytest.raises(ConfigError, match="atlantis-1"):
        BUILT_IN.named("atlantis-1")


places = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@settings(max_examples=60, deadline=None)
@given(st.lists(places, min_size=1, max_size=25))
def test_the_near_pairs_of_a_table_are_those_that_are_not_far_enough(found: list[tuple[float, float]]) -> None:
    regions = [Region(f"r{number}", "", *place) for number, place in enumerate(found)]
    table = RegionTable.of(regions)
    for here in regions:
        assert table.near[here.name] == {one.name for one in regions if one is not here and not far_enough(here, one)}


@pytest.mark.parametrize(("kilometres", "enough"), [(999.999, False), (1000.0, True)])
def test_the_border_holds_in_a_table_along_a_meridian_where_latitude_alone_decides(
    kilometres: float, enough: bool
) -> None:
    assert ("b" not in RegionTable.of(at_km(kilometres)).near["a"]) is enough


def test_a_table_never_changes_and_is_equal_to_one_of_the_same_regions() -> None:
    lisbon = Region("lisbon", "Lisbon", 38.72, -9.14)
    more = BUILT_IN.with_region(lisbon)
    assert "lisbon" in more
    assert "lisbon" not in BUILT_IN
    assert more.near["lisbon"] == frozenset()
    assert more != BUILT_IN
    assert more.without("lisbon") == BUILT_IN
    moved = more.with_region(Region("lisbon", "Lisbon", 48.0, 2.0))
    assert "lisbon" in moved.near["eu-west-3"]
    with pytest.raises(TypeError):
        more.regions["x"] = lisbon  # type: ignore[index]


def test_a_table_is_read_from_the_document_that_says_it() -> None:
    written = [Place(one.name, round(one.latitude * 1e6), round(one.longitude * 1e6)) for one in by_name()]
    assert RegionTable.of_places(written) == BUILT_IN
    assert RegionTable.of_places([Place("lisbon", 38_720_000, -9_140_000)]).named("lisbon").latitude == 38.72


def by_name() -> list[Region]:
    return [BUILT_IN.regions[name] for name in sorted(BUILT_IN.regions)]


@pytest.mark.parametrize(
    ("name", "latitude", "longitude", "words"),
    [
        ("a", 90.000001, 0.0, "latitude 90.000001 is not on Earth"),
        ("a", math.nan, 0.0, "latitude nan"),
        ("a", 0.0, -180.5, "longitude -180.5"),
        ("a", 0.0, math.inf, "longitude inf"),
        ("", 0.0, 0.0, "'' cannot name"),
        ("Lisbon", 0.0, 0.0, "'Lisbon' cannot name"),
        ("a--b", 0.0, 0.0, "cannot name"),
        ("a\n", 0.0, 0.0, "cannot name"),
        ("a" * 65, 0.0, 0.0, "cannot name"),
    ],
)
def test_a_place_that_cannot_be_is_refused(name: str, latitude: float, longitude: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Region(name, "", latitude, longitude)


def test_a_table_that_is_empty_too_long_or_names_a_region_twice_is_refused() -> None:
    many = [Region(f"r{number}", "", 0.0, number / 3) for number in range(REGIONS_MAX)]
    full = RegionTable.of(many)
    cases: list[tuple[Callable[[], RegionTable], str]] = [
        (lambda: RegionTable.of([]), "0 regions"),
        (lambda: full.with_region(Region("one-more", "", 1.0, 1.0)), f"{REGIONS_MAX + 1} regions"),
        (lambda: RegionTable.of([many[0], many[0]]), "r0 is in the table twice"),
        (lambda: full.without("atlantis-1"), "no region 'atlantis-1'"),
        (lambda: RegionTable.of([many[0]]).without("r0"), "0 regions"),
    ]
    for bad, words in cases:
        with pytest.raises(ConfigError, match=words):
            bad()
