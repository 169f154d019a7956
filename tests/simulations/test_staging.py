"""What scenarios share, on a few nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from simulations.people import a_person
from simulations.running import Plan, config_of, run
from simulations.staging import bring_back, holdings, quick_healing, short, until, until_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulations.cluster import Cluster

PLAN = Plan("one of the test's own", 6, 1, 0.0)


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


def test_a_scenario_says_what_its_nodes_are_told() -> None:
    assert config_of("burn") == quick_healing()
    assert config_of("steady").repair.hold_off_s is None
    assert config_of(PLAN.scenario) == config_of("steady")


def test_a_stripe_is_short_while_one_of_its_holders_is_away() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        async with a_person(cluster, 1) as person:
            assert await person.lock(5_000, BASIC) is not None
            await until_whole(cluster, 5.0)
            assert {(len(live), tier) for live, tier in holdings(cluster).values()} == {(BASIC.n, BASIC)}
            holder = next(host.name for host in cluster.living() if host.disk.parts.kept())
            cluster.crash(holder)
            assert short(cluster)
            await bring_back(cluster)
            assert not short(cluster)
            key = next(iter(holdings(cluster)))
            cluster.hosts[holder].disk.parts.quarantine(cluster.hosts[holder].disk.parts.kept()[0])
            assert len(holdings(cluster)[key][0]) == BASIC.n - 1

    assert not (report := run(PLAN, play)).failure, report.failure


def test_a_stripe_for_which_there_is_no_legal_place_is_not_short() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        async with a_person(cluster, 1) as person:
            assert await person.lock(5_000, BASIC) is not None
            for host in cluster.living()[: 6 - BASIC.n + 1]:
                cluster.crash(host.name)
            assert any(len(live) < tier.n for live, tier in holdings(cluster).values())
            assert not short(cluster)

    assert not (report := run(PLAN, play)).failure, report.failure


async def test_waiting_for_what_never_comes_fails_in_words(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AssertionError, match="3 s later it has not come"):
        await until(lambda: False, 3.0, "it has not come")
    assert trio.current_time() == 3.0
