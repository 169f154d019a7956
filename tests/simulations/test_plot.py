"""The picture of a run, and that drawing it does not change the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import trio

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from simulations.people import a_person
from simulations.plot import History, svg, watched
from simulations.running import Plan, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulations.cluster import Cluster


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


async def play(cluster: Cluster, seconds: float) -> None:
    async with a_person(cluster, 1) as person:
        assert await person.lock(5_000, BASIC) is not None
        await trio.sleep(5.0)
        cluster.crash(next(host.name for host in cluster.living() if host.disk.parts.kept()))
        await trio.sleep(5.0)


def test_a_watched_run_has_the_trace_of_the_same_run_alone_and_its_history_tells_of_the_crash() -> None:
    plan, history = Plan("one of the test's own", 6, 1, 0.0), History()
    assert run(plan, watched(play, history)).hash == run(plan, play).hash
    assert len(history.at) == len(history.margins) == len(history.repairs) == len(history.traffic)
    assert BASIC.n - BASIC.k in history.margins
    assert history.margins[-1] == BASIC.n - BASIC.k - 1
    assert max(history.traffic) > 5_000
    assert next(kind for _, kind in history.marks) == "crash"


def test_the_picture_is_well_formed_and_marks_events() -> None:
    history = History(
        [0.0, 1.0, 2.0], [math.nan, 5.0, 3.0], [0.0, 0.0, 1.0], [0.0, 9e6, 5.0], [(1.5, "crash"), (1.6, "start")]
    )
    text = svg(history, "seed 1: a < b")
    ElementTree.fromstring(text)
    assert "crash (1)" in text
    assert "a &lt; b" in text
    assert "nan" not in text


def test_nothing_makes_empty_panels() -> None:
    ElementTree.fromstring(svg(History(), "none"))
