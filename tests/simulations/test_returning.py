"""Whole nodes: one that was replaced comes back, and in the end each index is on one disk, an asset deleted on none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.observe import logging
from simulations.cluster import Cluster
from simulations.people import a_person
from simulations.staging import keepers, quick_healing, until, until_whole
from simulations.watching import Watcher
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 14
HOLD_S = 40.0
TRIMMED_S = 300.0  # both sides hear of each other, the time that a copy stays, and a look


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(11)
    world.listen()
    yield world
    logging.configure(strict=True)
    assert not world.defects


def copies_too_many(cluster: Cluster) -> int:
    """On disks, of any stripe."""
    return sum(len(kept) - len({index for index, _ in kept}) for kept in keepers(cluster).values())


async def test_a_returning_holder_gives_up_what_others_took_over_and_deleted_assets_stay_deleted(world: World) -> None:
    cluster = Cluster(world, NODES, quick_healing(hold_off_s=5, sweep_s=10, return_hold_s=HOLD_S))
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await nursery.start(Watcher(cluster).run)
        await trio.sleep(10)
        async with a_person(cluster, 1) as person:
            for tier in (BASIC, STANDARD) * 3:
                await person.lock(1000, tier)
            away = max(cluster.living(), key=lambda host: len(list(host.disk.parts.kept())))
            cluster.crash(away.name)
            deleted = person.kept[0].asset.address
            await trio.sleep(30)
            await until_whole(cluster, 120)
            await person.delete(person.kept[0])
            await cluster.start(away.name).ready.wait()
            assert copies_too_many(cluster) > 0
            await until(lambda: copies_too_many(cluster) == 0, TRIMMED_S, "there are copies too many")
            await until_whole(cluster, 60)
            assert deleted not in [address for address, _ in keepers(cluster)]
            lives = [host.life for host in cluster.living() if host.life is not None]
            assert sum(life.node.rejoining.trimming.trimmed for life in lives if life.node.rejoining.trimming) > 0
            await person.read_all()
        nursery.cancel_scope.cancel()
