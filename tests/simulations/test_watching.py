"""The watcher sees what breaks in a whole network: each invariant is broken on purpose, and found within its time."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from lockbox_node.services.announcing import NodeState
from lockbox_node.services.lessons import LESSONS_MAX, _Lesson
from protocol.ids import NodeId
from protocol.messages import HolderTable, Signed
from simulations.disk import SimDisk
from simulations.identities import NOW_UNIX_S
from simulations.parts import MemoryParts
from simulations.watching import INNER_EVERY, BrokenInvariant
from simulations.world import World
from tests.fakes.stripes import AssetSigner
from tests.simulations.nets import CONFIG, NODES, a_net, nodes_of, paused

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    world = World(1)
    world.listen()
    yield world
    logging.configure(strict=True)


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
        (kept,) = net.holders()[0].disk.parts.standing(net.asset.asset.address)
        kept.size = CONFIG.storage.client_quota_bytes + 1
        kept.corrupt = True  # any change
        await net.until_broken("bytes of one client", 1)


async def test_each_owner_has_its_own_quota(world: World) -> None:
    async with a_net(world) as net:
        (kept,) = net.holders()[0].disk.parts.standing(net.asset.asset.address)
        kept.size = CONFIG.storage.client_quota_bytes + 1
        kept.corrupt, kept.owner = True, net.cluster.hosts["node1"].id
        await net.pass_by(1)  # what a node hands over may be more
        kept.corrupt, kept.size = False, CONFIG.storage.node_quota_bytes + 1
        await net.until_broken("bytes that one node brought", 1)


async def test_a_table_that_others_made_grow_is_found(world: World) -> None:
    async with a_net(world) as net:
        lessons = nodes_of(net.cluster)[3].rejoining.lessons
        await net.pass_by(INNER_EVERY)
        lesson = _Lesson(HolderTable(b"", 1, b"", []), Signed(b"", b""), False, NodeId(b""))
        lessons._waiting = {
            (bytes([number % 256]), bytes([number // 256])): lesson for number in range(LESSONS_MAX + 1)
        }
        await net.until_broken("node4: lessons that wait is 4097, at most 4096", INNER_EVERY)


async def test_a_part_that_was_changed_in_its_place_is_judged_anew(world: World) -> None:
    async with a_net(world) as net:
        one, other = (host.disk.parts.standing(net.asset.asset.address)[0] for host in net.holders()[:2])
        before = net.watcher.snapshot()
        assert net.watcher.snapshot().nodes[0].parts is before.nodes[0].parts
        object.__setattr__(one.part, "shards", other.part.shards)
        await net.until_broken("not what their owner signed", 1)


async def test_a_part_whose_descriptor_was_changed_is_judged_anew(world: World) -> None:
    async with a_net(world) as net:
        second = await net.person.lock(1000, BASIC)
        assert second is not None
        await net.pass_by(1)
        mine = net.holders()[0].disk.parts.standing(net.asset.asset.address)[0]
        others = net.holders(second.asset.address)[0].disk.parts.standing(second.asset.address)[0]
        object.__setattr__(mine.part, "descriptor", others.part.descriptor)
        await net.until_broken("not what their owner signed", 1)


async def test_who_drains_takes_nothing_and_who_is_full_neither(world: World) -> None:
    async with a_net(world) as net:
        assert all(node.eligible for node in net.watcher.snapshot().nodes)
        nodes_of(net.cluster)[1].membership.set_state(NodeState.DRAINING)
        net.cluster.hosts["node4"].disk.fill()
        await trio.sleep(1)
        assert [node.name for node in net.watcher.snapshot().nodes if not node.eligible] == ["node2", "node4"]


async def test_a_deletion_that_is_undone_over_a_restart_is_found(world: World) -> None:
    async with a_net(world) as net:
        signer, host = AssetSigner(1), net.cluster.hosts["node4"]
        until = int(NOW_UNIX_S) + 10_000
        host.disk.parts.delete(signer.tombstone(3), signer.address, 3, until)
        await net.pass_by(2)
        net.cluster.crash("node4")
        await net.pass_by(2)
        (seen,) = [node for node in net.watcher.snapshot().nodes if node.name == "node4"]
        assert seen.tombstones == {signer.address: (3, until - NOW_UNIX_S)}
        host.disk.parts._tombs.clear()
        net.cluster.start("node4")
        await net.until_broken("node4 forgot a deletion", 1)


async def test_wrong_bytes_that_a_store_hands_out_are_found(world: World) -> None:
    async with a_net(world) as net:
        part = net.holders()[0].disk.parts.standing(net.asset.asset.address)[0].part
        net.watcher.read(part)
        await net.pass_by(1)
        net.watcher.read(replace(part, shards=(bytes(len(part.shards[0])), *part.shards[1:])))
        await net.until_broken("1 parts were handed out with other bytes", 1)


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
