"""Runs and what they report: scenarios that raise, defects that the product survived, what is left at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from lockbox_node.observe import logging
from simulations.running import Plan, names, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulations.cluster import Cluster

PLAN = Plan("one of the test's own", 3, 1, 0.01)


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


def test_the_scenarios_have_names() -> None:
    assert {"steady", "churn", "partition"} <= set(names())


def test_a_run_that_goes_well_says_how_long_it_was() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        assert len(cluster.living()) == 3
        await trio.sleep(seconds)

    report = run(PLAN, play)
    assert not report.failure
    assert 36 < report.virtual_s < 80
    assert len(report.hash) == 64
    assert report.events > 100


def test_a_scenario_that_raises_fails_the_run_and_the_last_events_are_told() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        cluster.crash("node2")
        raise AssertionError("nothing holds")

    report = run(PLAN, play)
    assert "AssertionError: nothing holds" in report.failure
    assert any("crash node2" in line for line in report.last_events)


def test_an_exception_that_the_product_survived_fails_the_run() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        try:
            raise ZeroDivisionError("of ours")
        except ZeroDivisionError:
            structlog.get_logger().exception("connection_failed")

    assert "ZeroDivisionError: of ours" in run(PLAN, play).failure


def test_a_stream_that_nobody_closed_fails_the_run() -> None:
    async def play(cluster: Cluster, seconds: float) -> None:
        cluster.geography.place("somebody", "eu-west-1")
        await cluster.hub.network("somebody", lambda: b"").dial("node1", 7420)

    assert "a stream from somebody to node1" in run(PLAN, play).failure
