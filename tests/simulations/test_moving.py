"""Whole nodes: one comes back in another region, and what it holds moves to where it may be, byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.placement import Candidate, keeps_rules
from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.observe import logging
from simulations.cluster import Cluster, agreed
from simulations.people import a_person
from simulations.staging import holdings, quick_healing, until
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 14
MOVED_S = 300.0  # a sweep, the hold-off of the last rank, a sweep until the old holder sees it, its own hold-off
NEAR = {"us-east-1": "us-east-2", "eu-west-1": "eu-west-2"}  # 484 and 464 km


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(3)
    world.listen()
    yield world
    logging.configure(strict=True)
    assert not world.defects


def out_of_place(cluster: Cluster) -> int:
    """Stripes whose live holders break the rules of placement, by the disks of the running nodes."""
    return sum(
        not keeps_rules(tier, [Candidate(host.id, host.region, host.operator) for host in live.values()])
        for live, tier in holdings(cluster).values()
    )


async def test_what_a_node_holds_moves_when_it_comes_back_in_another_region(world: World) -> None:
    cluster = Cluster(world, NODES, quick_healing(hold_off_s=5, sweep_s=10))
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(10)
        async with a_person(cluster, 1) as person:
            for _ in range(3):
                await person.lock(1000, BASIC)
                await person.lock(1000, STANDARD)
            assert out_of_place(cluster) == 0
            moved = max(
                (host for host in cluster.living() if host.region not in NEAR),
                key=lambda host: len(list(host.disk.parts.kept())),
            )
            await cluster.stop(moved.name)
            moved.region = NEAR["us-east-1"]
            await cluster.start(moved.name).ready.wait()
            assert out_of_place(cluster) > 0
            await until(lambda: agreed(cluster), 60, "nodes do not agree on who lives")
            await until(lambda: out_of_place(cluster) == 0, MOVED_S, "stripes are out of place")
            done = [host.life.node.healing for host in cluster.living() if host.life is not None]
            assert sum(one.let_go for one in done) > 0
            assert all(len(live) == tier.n for live, tier in holdings(cluster).values())
            await person.read_all()
        nursery.cancel_scope.cancel()
