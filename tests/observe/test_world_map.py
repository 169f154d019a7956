"""The map of the world: real coasts, and labels that stand free of one another."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.regions import BUILT_IN
from lockbox_node.observe.world_map import FRAME, Spot, label_boxes, land, world_map

LAND_BYTES_MAX = 25_000


def spot(name: str, weight: float = 0.5, words: str = "12 lost") -> Spot:
    place = BUILT_IN.regions[name]
    return Spot(place.latitude, place.longitude, weight, "good", f"{place.city}: {words}", f"{place.city} & more")


def test_the_land_is_small_and_names_its_source() -> None:
    from importlib.resources import files

    text = files("lockbox_node.observe").joinpath("land.txt").read_text(encoding="ascii")
    assert len(text) < LAND_BYTES_MAX
    assert "Natural Earth" in text
    assert "public domain" in text
    assert set(land()) <= set("Mlz-0123456789 ")


@pytest.mark.parametrize("name", ["us-east-2", "sa-east-1", "eu-central-1", "af-south-1", "ap-south-1", "us-west-2"])
def test_inland_cities_stand_on_the_land(name: str) -> None:
    """By counting the coast lines east of the place: an odd number."""
    place = BUILT_IN.regions[name]
    assert crossings(place.longitude * 10, -place.latitude * 10) % 2 == 1


@pytest.mark.parametrize(("longitude", "latitude"), [(-30, 30), (-140, 0), (80, -30), (0, 0), (-175, 75), (179, -30)])
def test_the_oceans_are_no_land(longitude: float, latitude: float) -> None:
    assert crossings(longitude * 10, -latitude * 10) % 2 == 0


def crossings(x: float, y: float) -> int:
    """How many coast lines cross the ray from (x, y) to the east."""
    count = 0
    for ring in rings():
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                count += 1
    return count


def rings() -> list[list[tuple[int, int]]]:
    found = []
    for text in land().split("M")[1:]:
        start, steps = text.rstrip("z").split("l")
        x, y = (int(word) for word in start.replace("-", " -").split())
        numbers = [int(word) for word in steps.replace("-", " -").split()]
        ring = [(x, y)]
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + dx, y + dy
            ring.append((x, y))
        found.append(ring)
    return found


def test_all_regions_at_once_have_labels_that_do_not_overlap() -> None:
    spots = [spot(name, number / len(BUILT_IN.regions)) for number, name in enumerate(BUILT_IN.regions)]
    boxes = label_boxes(spots)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].meets(pair[1])]
    assert all(box.inside(FRAME) for box in boxes)


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(sorted(BUILT_IN.regions)), unique=True, min_size=1), st.sampled_from(["0", "1,234 lost"])
)
def test_any_choice_of_regions_keeps_its_labels_apart(names: list[str], words: str) -> None:
    boxes = label_boxes([spot(name, 1.0, words) for name in names])
    assert not [pair for pair in combinations(boxes, 2) if pair[0].meets(pair[1])]


def test_a_label_that_finds_no_place_is_still_drawn() -> None:
    crowd = [Spot(0.0, 0.0, 1.0, "good", "x" * 60, "x") for _ in range(60)]
    assert len(label_boxes(crowd)) == 60


def test_the_svg_is_well_formed_and_has_a_name() -> None:
    drawn = world_map([spot("eu-west-1"), spot("eu-west-2", 0.0)], "Margins & more")
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img"
    titles = [title.text for title in root.iter("title")]
    assert titles == ["Margins & more", "Dublin & more", "London & more"]
    assert [text.text for text in root.iter("text")] == ["Dublin: 12 lost", "London: 12 lost"]


def test_the_circle_of_more_shards_is_larger() -> None:
    assert spot("eu-west-1", 1.0).radius > spot("eu-west-1", 0.2).radius > spot("eu-west-1", 0.0).radius > 0
