"""Likeness: what a shuffle gives passes, what favours a place does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from simulations.likeness import Likeness

if TYPE_CHECKING:
    import random


def test_shuffled_groups_tell_nothing(rng: random.Random) -> None:
    likeness = Likeness()
    for _ in range(1000):
        groups = rng.randrange(2, 20)
        likeness.add(groups, rng.sample(range(groups), rng.randrange(1, groups + 1)))
        assert likeness.told() == ""
    assert likeness.stripes == 1000


@pytest.mark.parametrize(("places", "words"), [([0], "in front too often"), ([1], "behind too often")])
def test_groups_that_always_stand_on_one_side_are_told(places: list[int], words: str) -> None:
    likeness = Likeness()
    for _ in range(36):
        likeness.add(2, places)
    assert likeness.told() == ""
    likeness.add(2, places)
    assert words in likeness.told()


def test_a_preference_shows_in_the_end(rng: random.Random) -> None:
    likeness = Likeness()
    for _ in range(1000):
        likeness.add(2, [int(rng.random() < 0.65)])
    assert "behind" in likeness.told()


def test_without_decoys_there_is_nothing_to_tell() -> None:
    likeness = Likeness()
    likeness.add(3, [0, 1, 2])
    assert likeness.told() == ""
