"""The watcher sees what breaks in a whole network: each invariant is broken on purpose, and found within its time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.config import Config
from lockbox_node.core.repair import RepairParams
from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from simulations.cluster import Cluster
from simulations.disk import SimDisk
from simulations.invariants import Limits
from simulations.parts import MemoryParts
from simulations.people import a_person
from simulations.watching import BrokenInvariant, Watcher
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from simulations.cluster import Host
    from simulations.people import Kept, Person

NODES = 9
CONFIG = Config(repair=RepairParams(hold_off_s=10, sweep_s=20))
LIMITS = Limits(hold_off_s=10, repair_s=60)
AGREE_S = 30.0


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    world = World(1)
    world.listen()
    yield world
    logging.configure(strict=True)


class Net:
    """A network under watch, a person, one asset of hers."""

    def __init__(self, cluster: Cluster, watcher: Watcher, person: Person, asset: Kept) -> None:
        self.cluster, self.watcher, self.person, self.asset = cluster, watcher, person, asset

    def holders(self) -> list[Host]:
        """Who keeps the asset on its disk."""
        hosts = self.cluster.hosts.values()
        return [host for host in hosts if host.disk.parts.standing(self.asset.asset.address)]

    async def pass_by(self, seconds: int) -> None:
        """Second by second under the eye."""
        for _ in range(seconds):
            await trio.sleep(1)
            self.watcher.check()

    async def until_broken(self, words: str, seconds: int) -> None:
        """It is found within so many seconds."""
        with pytest.raises(BrokenInvariant, match=words):
            await self.pass_by(seconds)


@asynccontextmanager
async def a_net(world: World, spoil: Callable[[Cluster], None] = lambda _cluster: None) -> AsyncIterator[Net]:
    cluster = Cluster(world, NODES, CONFIG)
    watcher = Watcher(cluster, LIMITS)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(AGREE_S)
        spoil(cluster)
        async with a_person(cluster, 1) as person:
            asset = await person.lock(1000, BASIC)
            assert asset is not None
            yield Net(cluster, watcher, person, asset)
        nursery.cancel_scope.cancel()


def paused(cluster: Cluster) -> None:
    for host in cluster.living():
        assert host.life is not None
        host.life.node.healing.pause()


async def test_a_death_that_is_healed_breaks_nothing(world: World) -> None:
    async with a_net(world) as net:
        net.watcher.check()
        net.cluster.crash(net.holders()[0].name)
        await net.pass_by(200)
        assert len(net.holders()) == BASIC.n + 1  # the disk of the dead one too
        assert net.watcher.seconds == 201


async def test_a_death_that_nobody_heals_is_found(world: World) -> None:
    async with a_net(world, paused) as net:
        net.cluster.crash(net.holders()[0].name)
        await net.until_broken("4 of 5 live shards, one is missing", 200)


async def test_a_disk_that_lost_what_its_node_acknowledged_is_found_at_once(world: World) -> None:
    async with a_net(world) as net:
        await net.pass_by(2)
        host = net.holders()[0]
        net.cluster.crash(host.name)
        host.disk.parts = MemoryParts(CONFIG.store, host.clock)
        await net.until_broken("acknowledged a shard that is on no disk", 1)


async def test_a_node_that_is_given_an_old_disk_need_not_have_what_it_acknowledged(world: World) -> None:
    async with a_net(world, paused) as net:
        holder = net.holders()[0]
        net.cluster.crash(holder.name)
        net.cluster.put_back(holder.name, SimDisk(CONFIG.store, holder.clock, Random(1), epoch=holder.disk.epoch))
        net.cluster.start(holder.name)
        await net.pass_by(3)
        assert holder not in net.holders()


async def test_a_lock_that_claims_more_than_the_disks_have_is_found_in_that_step(world: World) -> None:
    async with a_net(world) as net:
        host = net.holders()[0]
        net.cluster.crash(host.name)
        net.cluster.put_back(host.name, SimDisk(CONFIG.store, host.clock, Random(1)))
        with pytest.raises(BrokenInvariant, match="5 parts of an asset were acknowledged, 4 are on disks"):
            net.watcher.acknowledged(net.asset, BASIC.n)


async def test_bytes_that_the_owner_never_signed_are_found(world: World) -> None:
    async with a_net(world) as net:
        (kept,) = net.holders()[0].disk.parts.standing(net.asset.asset.address)
        kept.flip(0, 0, 0)
        await net.pass_by(1)  # rot of a disk is no fault of a node
        kept.harmed = False
        kept.flip(0, 1, 0)
        kept.harmed = False
        await net.until_broken("not what their owner signed", 1)


async def test_a_view_that_does_not_follow_a_death_is_found(world: World) -> None:
    async with a_net(world) as net:
        await net.pass_by(1)
        gone = net.cluster.hosts["node5"]
        net.cluster.crash("node5")
        deaf = net.cluster.hosts["node2"].life
        assert deaf is not None
        alive = deaf.node.machine.alive
        deaf.node.machine.alive = lambda: [*alive(), gone.id]  # type: ignore[method-assign, list-item]
        await net.until_broken("node2 is wrong about node5", 120)


async def test_a_fuller_store_than_its_owner_may_fill_is_found(world: World) -> None:
    async with a_net(world) as net:
        parts = net.holders()[0].disk.parts
        parts._used[b"somebody"] = CONFIG.storage.node_quota_bytes + 1
        await net.until_broken("bytes of one owner", 1)


async def test_what_is_left_at_the_end_is_found(world: World) -> None:
    async with a_net(world) as net:
        with pytest.raises(BrokenInvariant, match="node1 1 runs"):
            net.watcher.check_end()


async def test_a_node_without_a_network_is_not_up_and_two_halves_are_a_partition(world: World) -> None:
    async with a_net(world) as net:
        go_on = net.cluster.hang("node3")
        seen = net.watcher.snapshot()
        assert [node.name for node in seen.nodes if not node.up] == ["node3"]
        assert not seen.partitioned
        go_on()
        heal = net.cluster.hub.partition(["node1", "node2"], [f"node{number}" for number in range(3, NODES + 1)])
        seen = net.watcher.snapshot()
        assert seen.partitioned
        assert all(node.up for node in seen.nodes)
        heal()
        assert not net.watcher.snapshot().partitioned
