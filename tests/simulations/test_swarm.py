"""Lookups over a swarm: recall, the dead, hops, colluders, and that one seed is one story."""

from __future__ import annotations

import pytest

from simulations.swarm import Swarm, summary

LOOKUPS = 30


@pytest.mark.parametrize(("count", "dead"), [(100, 0.0), (100, 0.2), (1000, 0.0), (1000, 0.2)])
def test_the_nearest_that_live_are_found_and_nobody_dead(count: int, dead: float) -> None:
    found = summary(Swarm(count, 1, dead).run(LOOKUPS))
    assert found.recall >= 0.99
    assert found.dead == 0
    assert found.hops_max <= 5
    assert found.messages_max <= 128


@pytest.mark.parametrize(("colluding", "share"), [(0.2, 0.99), (0.4, 0.95)])
def test_an_honest_holder_is_found_among_colluders(colluding: float, share: float) -> None:
    assert summary(Swarm(1000, 1, 0.0, colluding).run(LOOKUPS, retry=True)).honest >= share


def test_one_seed_is_one_story() -> None:
    assert Swarm(300, 5, 0.1, 0.1).run(10) == Swarm(300, 5, 0.1, 0.1).run(10)
    assert Swarm(300, 5).run(10) != Swarm(300, 6).run(10)


def test_the_truth_leaves_the_dead_out_and_the_colluders_in() -> None:
    swarm = Swarm(50, 3, 0.2, 0.2, k=50)
    near = swarm.nearest(bytes(32))
    assert len(near) == 40
    assert not swarm.dead & set(near)
    assert swarm.colluders <= set(near)
