"""What a ping gives a ward that showed nothing: time, up to a limit, until it shows what it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.services.patience import PATIENCE_S, ROUND_TRIP_MAX_S, Patience
from simulations.world import SeededEntropy
from tests.fakes.healing_cluster import Cluster, View

if TYPE_CHECKING:
    import trio.testing


async def test_each_ping_that_is_answered_gives_more_time_up_to_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    judge, ward = cluster.ids[:2]
    cluster.slow_s[ward] = 0.5
    view = View(judge, cluster)
    patience = Patience(view, view.contact, SeededEntropy(1))
    assert patience.round_trip_s(ward) == 0.0
    allowed = []
    for _ in range(6):
        assert await patience.answers(ward)
        allowed.append(patience.round_trip_s(ward))
    assert allowed[:2] == [pytest.approx(0.5 + PATIENCE_S), pytest.approx(0.5 + 2 * PATIENCE_S)]
    assert allowed[-1] == ROUND_TRIP_MAX_S
    patience.forget(ward)
    assert patience.round_trip_s(ward) == 0.0


@pytest.mark.parametrize("way", ["silent", "down", "known_dead"])
async def test_who_answers_no_ping_is_given_none(way: str, autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    judge, ward = cluster.ids[:2]
    getattr(cluster, way).add(ward)
    view = View(judge, cluster)
    patience = Patience(view, view.contact, SeededEntropy(1))
    assert not await patience.answers(ward)
    assert patience.round_trip_s(ward) == 0.0
