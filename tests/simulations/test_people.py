"""People of a simulated network: what they locked they get back; what they cannot do is counted and written down."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import structs

from lockbox_node.core.tiers import BASIC
from simulations.cluster import Cluster
from simulations.people import Kept, a_person
from simulations.watching import Watcher
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from simulations.people import Person


@asynccontextmanager
async def alone() -> AsyncIterator[tuple[Cluster, Person]]:
    """A person, and 7 nodes that know each other."""
    cluster = Cluster(World(1), 7)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(5)
        async with a_person(cluster, 1) as person:
            yield cluster, person
        nursery.cancel_scope.cancel()


async def test_an_asset_is_locked_unlocked_and_compared() -> None:
    async with alone() as (_, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        assert await person.unlock(kept)
        await person.read_all()
        with pytest.raises(AssertionError, match="other bytes"):
            await person.unlock(Kept(kept.asset, bytes(32), kept.tier))


async def test_what_cannot_be_read_or_locked_is_counted() -> None:
    async with alone() as (cluster, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        missing = structs.replace(kept.asset, index=kept.asset.index + 1)
        assert not await person.unlock(Kept(missing, kept.digest, kept.tier))
        for name in cluster.hosts:
            cluster.crash(name)
        assert await person.lock(1000, BASIC) is None
        with pytest.raises(AssertionError, match="1 of 1 assets cannot be read"):
            await person.read_all()
    assert (person.failed_locks, person.failed_unlocks) == (1, 2)


async def test_a_person_lives_for_ever() -> None:
    async with alone() as (_, person):
        with trio.move_on_after(300):
            await person.live(30.0, [BASIC], [100])
        assert 3 <= len(person.kept) <= 30


async def test_nobody_owes_an_asset_from_the_first_tombstone_on() -> None:
    async with alone() as (cluster, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        watcher = Watcher(cluster)
        watcher.acknowledged(kept, 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.delete, kept)
            while any(host.disk.parts.standing(kept.asset.address) for host in cluster.hosts.values()):
                await trio.sleep(0.01)
                watcher.check()
        assert person.kept == []
