"""The picture of a run, and that drawing it does not change the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import trio

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from protocol.ids import Address
from simulations.people import a_person
from simulations.plot import GOES, History, svg, watched
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
        kept = await person.lock(5_000, BASIC)
        assert kept is not None
        await trio.sleep(5.0)
        address = Address(kept.asset.address)
        crashes, rots = [host for host in cluster.living() if host.disk.parts.standing(address)][:2]
        cluster.crash(crashes.name)
        await trio.sleep(5.0)
        rots.disk.parts.standing(address)[0].flip(0, 0, 0)
        await trio.sleep(5.0)


def test_a_watched_run_has_the_trace_of_the_same_run_alone_and_its_history_tells_all() -> None:
    plan, history = Plan("one of the test's own", 6, 1, 0.0), History()
    assert run(plan, watched(play, history)).hash == run(plan, play).hash
    assert len(history.at) == len(history.margins) == len(history.repairs) == len(history.traffic)
    assert BASIC.n - BASIC.k in history.margins
    margins = [margin for margin in history.margins if not math.isnan(margin)]
    assert list(dict.fromkeys(margins)) == [BASIC.n - BASIC.k - lost for lost in (0, 1, 2)], "a crash, then rot"
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


def test_below_k_the_ground_is_red() -> None:
    above, below = History([0.0, 1.0], [2.0, 0.0]), History([0.0, 1.0], [2.0, -1.0])
    for panels in (above, below):
        panels.repairs = panels.traffic = [0.0, 0.0]
    assert f'fill="{GOES}"' not in svg(above, "")
    assert f'fill="{GOES}"' in svg(below, "")


@pytest.mark.parametrize(
    ("end", "last"), [(11.0, "10 s"), (40.0, "40 s"), (100.0, "100 s"), (861.0, "800 s"), (3600.0, "3500 s")]
)
def test_moments_are_round(end: float, last: str) -> None:
    text = svg(History([0.0, end], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]), "")
    said = [line.split(">")[1].removesuffix("</text") for line in text.splitlines() if line.endswith(" s</text>")]
    assert said[-1] == last
    assert 4 <= len(set(said)) <= 9


def test_nothing_makes_empty_panels() -> None:
    ElementTree.fromstring(svg(History(), "none"))
