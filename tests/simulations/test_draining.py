"""Whole nodes: some are drained while people lock and unlock; every unlock succeeds, and nothing is left on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.observe import logging
from protocol.certificates import verify_drain
from simulations.cluster import Cluster
from simulations.people import a_person
from simulations.staging import SIZES, holdings, quick_healing, until
from simulations.watching import Watcher
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lockbox_node.services.draining import Draining
    from simulations.people import Person

NODES = 14
DRAINED = 2  # one after the other


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(5)
    world.listen()
    yield world
    logging.configure(strict=True)
    assert not world.defects


def draining_of(cluster: Cluster, name: str) -> Draining:
    life = cluster.hosts[name].life
    assert life is not None
    return life.node.draining


def emptied(cluster: Cluster, name: str) -> bool:
    draining = draining_of(cluster, name)
    return draining.figures is not None and draining.figures.receipt is not None


async def live_until(person: Person, over: trio.Event) -> None:
    """Lock and unlock, and end what was begun."""
    while not over.is_set():
        await person.lock(person.rng.choice(SIZES), person.rng.choice((BASIC, STANDARD)))
        await person.unlock(person.rng.choice(person.kept))
        await trio.sleep(1)


async def test_no_unlock_fails_while_nodes_are_drained_and_one_of_them_crashes(world: World) -> None:
    cluster = Cluster(world, NODES, quick_healing(hold_off_s=20, sweep_s=30))
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await nursery.start(Watcher(cluster).run)
        await trio.sleep(10)
        async with a_person(cluster, 1) as person:
            for size in SIZES * 2:
                await person.lock(size, STANDARD)
                await person.lock(size, BASIC)
            before = {name: len(list(host.disk.parts.kept())) for name, host in cluster.hosts.items()}
            leaving = sorted(before, key=lambda name: -before[name])[:DRAINED]
            drained = trio.Event()
            async with trio.open_nursery() as load:
                load.start_soon(live_until, person, drained)
                for number, name in enumerate(leaving):
                    await draining_of(cluster, name).begin()
                    if number == 1:  # a crash in the middle: the next life goes on
                        cluster.crash(name)
                        await trio.sleep(5)
                        await cluster.start(name).ready.wait()
                        assert draining_of(cluster, name).active
                    await until(partial(emptied, cluster, name), 120, f"{name} is not empty")
                    figures = draining_of(cluster, name).figures
                    assert figures is not None
                    assert figures.receipt is not None
                    receipt = verify_drain(cluster.authority.root, figures.receipt)
                    assert receipt.parts >= before[name] - 1
                    assert list(cluster.hosts[name].disk.parts.kept()) == []
                drained.set()
            assert person.failed_unlocks == person.failed_locks == 0
            for name in leaving:
                await cluster.stop(name)
            await trio.sleep(40)
            # Wallets' own marks are Premium; what an update of theirs left behind is no asset.
            assert all(len(live) == tier.n for live, tier in holdings(cluster).values() if tier in (BASIC, STANDARD))
            await person.read_all()
        nursery.cancel_scope.cancel()
