"""A table without a region empties it in a network of whole nodes, and every invariant holds meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.regions import BUILT_IN, MICRODEGREES
from lockbox_node.core.tiers import STANDARD, TIERS
from lockbox_node.observe import logging
from protocol.documents import Place, Regions
from simulations.people import a_person
from simulations.running import Plan, run
from simulations.staging import quick_healing, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulations.cluster import Cluster

GONE = "eu-west-1"


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


def short_outside(cluster: Cluster) -> int:
    """Shards that nobody holds outside the region."""
    wanted: dict[object, int] = {}
    held: dict[object, set[int]] = {}
    for host in cluster.living():
        for kept in host.disk.parts.kept():
            wanted[kept.key] = TIERS[kept.part.tier].n
            if host.region != GONE:
                held.setdefault(kept.key, set()).add(kept.part.index)
    return sum(count - len(held.get(key, ())) for key, count in wanted.items())


def test_a_region_that_the_table_names_no_longer_is_emptied() -> None:
    async def play(cluster: Cluster, _seconds: float) -> None:
        async with a_person(cluster, 1) as person:
            for _ in range(3):
                await person.lock(5000, STANDARD)
            assert short_outside(cluster) > 0
            places = [
                Place(name, round(one.latitude * MICRODEGREES), round(one.longitude * MICRODEGREES))
                for name, one in sorted(BUILT_IN.without(GONE).regions.items())
            ]
            told = cluster.living()[0].life
            assert told is not None
            told.node.documents.take([cluster.authority.sign(Regions(1, 0, places))])
            await until(lambda: short_outside(cluster) == 0, 300.0, "some shards stand in no region still")
            await trio.sleep(60)
            await person.read_all()

    report = run(Plan("one of the test's own", 14, 1, 0.1), play, quick_healing())
    assert not report.failure
