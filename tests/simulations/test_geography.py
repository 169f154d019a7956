"""How long messages take."""

from __future__ import annotations

from simulations.geography import NEAR_S, Geography
from simulations.world import World


def placed() -> Geography:
    geography = Geography(World(1).rng)
    for host, region in (("a", "eu-west-1"), ("b", "eu-west-1"), ("c", "ap-southeast-2")):
        geography.place(host, region)
    return geography


def test_far_takes_longer_than_near_and_both_jitter_a_little() -> None:
    geography = placed()
    near = [geography.one_way_s("a", "b") for _ in range(200)]
    far = [geography.one_way_s("a", "c") for _ in range(200)]
    assert NEAR_S < min(near) < max(near) < 2 * NEAR_S
    assert 0.11 < min(far) < max(far) < 0.2  # Dublin to Sydney: 17,200 km
    assert len(set(far)) == 200


def test_the_jitter_of_one_host_is_not_moved_by_another() -> None:
    lone, crowded = placed(), placed()
    crowded.one_way_s("c", "a")
    assert lone.one_way_s("a", "c") == crowded.one_way_s("a", "c")


def test_a_slow_host_is_slow_both_ways() -> None:
    geography = placed()
    geography.slow_s["a"] = 1.0
    assert geography.one_way_s("a", "b") > 1
    assert geography.one_way_s("b", "a") > 1
    assert geography.one_way_s("b", "c") < 1


def test_only_placed_hosts_are_known() -> None:
    assert "a" in placed()
    assert "d" not in placed()
