"""How many nodes and whole regions may still vanish."""

from __future__ import annotations

import pytest

from lockbox_node.client.margins import Margin, least, margin


@pytest.mark.parametrize(
    ("k", "regions", "expected"),
    [
        (5, "aaaabbbbcc", Margin(5, 1)),
        (5, "aabbccddee", Margin(5, 2)),
        (3, "aabbc", Margin(2, 1)),
        (3, "aab", Margin(0, 0)),
        (3, "aa", Margin(-1, 0)),
        (3, "", Margin(-3, 0)),
    ],
)
def test_the_fullest_regions_vanish_first(k: int, regions: str, expected: Margin) -> None:
    assert margin(k, regions) == expected


def test_an_asset_is_as_safe_as_its_worst_stripe() -> None:
    assert least([Margin(5, 1), Margin(2, 2)]) == Margin(2, 1)
