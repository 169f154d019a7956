"""Whole nodes that start, stop, crash at any await and come back, and what they know of each other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from protocol.documents import Revocation, Revocations
from simulations.cluster import Cluster, agreed
from simulations.people import a_person
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NODES = 7
AGREE_S = 60.0  # probes, suspicion and gossip, with a wide margin


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(1)
    world.listen()
    yield world
    logging.configure(strict=True)
    assert not world.defects


@asynccontextmanager
async def running(world: World, nodes: int = NODES) -> AsyncIterator[Cluster]:
    """A cluster whose nodes all serve and know each other."""
    cluster = Cluster(world, nodes)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(10)
        assert agreed(cluster)
        yield cluster
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["stop", "kill", "power off"])
async def test_a_node_that_is_gone_is_found_out(world: World, how: str) -> None:
    async with running(world) as cluster:
        if how == "stop":
            await cluster.stop("node3")
        else:
            cluster.crash("node3", power=how == "power off")
        assert not agreed(cluster)
        await trio.sleep(AGREE_S)
        assert agreed(cluster)


@pytest.mark.parametrize("power", [False, True])
async def test_a_node_comes_back_with_its_disk_and_its_members(world: World, power: bool) -> None:
    async with running(world) as cluster, a_person(cluster, 1) as person:
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        for name in list(cluster.hosts)[:4]:  # more than may be lost: n - k = 2
            cluster.crash(name, power=power)
        for name in list(cluster.hosts)[:4]:
            await cluster.start(name).ready.wait()
        await trio.sleep(AGREE_S)
        assert agreed(cluster)
        assert await person.unlock(kept)


async def test_who_is_revoked_is_out_for_nodes_and_people_within_10_s_and_no_crash_forgets_it(world: World) -> None:
    async with running(world, 12) as cluster, a_person(cluster, 1) as person:
        assert await person.lock(1000, BASIC) is not None
        out, teller = cluster.hosts["node5"], cluster.hosts["node2"].life
        assert teller is not None
        paper = cluster.authority.sign(Revocations(1, 0, [Revocation(out.id, 0, "test")]))
        teller.node.documents.take([paper])
        await trio.sleep(10)
        assert out.id in person.vault.rule_book.rules.revoked
        assert person.vault.members.get(out.id) is None
        for host in cluster.living():
            assert host.life is not None
            assert (host is out) or out.id not in host.life.node.machine.alive()
        names = [name for name in cluster.hosts if name != out.name]
        for name in names:
            cluster.crash(name)
        back = cluster.start(names[-1])  # with nobody to ask
        await back.ready.wait()
        assert back.node.documents.all() == [paper]
        for name in names[:-1]:
            await cluster.start(name).ready.wait()
        await trio.sleep(AGREE_S)
        assert out.id not in back.node.machine.alive()
        assert len(back.node.machine.alive()) == len(names) - 1
        await person.read_all()


async def test_a_node_comes_back_with_an_old_disk(world: World) -> None:
    async with running(world) as cluster, a_person(cluster, 1) as person:
        before = await person.lock(1000, BASIC)
        host = cluster.hosts["node4"]
        image = host.disk.snapshot()
        after = await person.lock(1000, BASIC)
        assert before is not None
        assert after is not None
        for _ in range(3):  # the image's epoch is lower than that of the last life
            cluster.crash("node4")
            await trio.sleep(AGREE_S)
            await cluster.start("node4").ready.wait()
        cluster.crash("node4")
        cluster.put_back("node4", image)
        await cluster.start("node4").ready.wait()
        await trio.sleep(AGREE_S)
        assert agreed(cluster)
        await person.read_all()


async def test_a_crash_at_any_step_leaves_nothing_running_and_hurts_nobody_else(world: World) -> None:
    rng = world.rng("steps")
    async with running(world) as cluster, a_person(cluster, 1) as person:
        for _ in range(12):
            life = cluster.hosts["node4"].life
            assert life is not None
            cluster.crash_at("node4", rng.randrange(1, 400), power=rng.random() < 0.5)
            await person.lock(1000, BASIC)
            await life.ended.wait()
            await cluster.start("node4").ready.wait()
            await trio.sleep(10)
        assert len(person.kept) >= 10
        for kept in person.kept:
            assert await person.unlock(kept)
        await trio.sleep(AGREE_S)
        assert agreed(cluster)


async def test_a_hung_host_is_taken_for_dead_and_comes_back(world: World) -> None:
    async with running(world) as cluster:
        go_on = cluster.hang("node5")
        await trio.sleep(AGREE_S)
        others = [host for host in cluster.living() if host.name != "node5"]
        assert all(
            cluster.hosts["node5"].id not in host.life.node.machine.alive() for host in others if host.life is not None
        )
        go_on()
        await trio.sleep(AGREE_S)
        assert agreed(cluster)


async def test_a_clock_that_jumps_and_drifts_costs_nobody_the_membership(world: World) -> None:
    async with running(world) as cluster:
        cluster.hosts["node1"].clock.jump(-7200)
        cluster.hosts["node2"].clock.drift(1.01)
        await trio.sleep(600)
        assert agreed(cluster)


async def test_all_that_was_begun_ends(world: World) -> None:
    async with running(world) as cluster:
        lives = [host.life for host in cluster.hosts.values() if host.life is not None]
        cluster.crash("node1")
        cluster.crash("node2", power=True)
        async with trio.open_nursery() as nursery:
            for host in cluster.living():
                nursery.start_soon(cluster.stop, host.name)
        await trio.sleep(10)
        assert cluster.leftovers() == []
        assert all(life.ended.is_set() for life in lives)


async def test_what_has_not_ended_is_told(world: World) -> None:
    async with running(world, nodes=2) as cluster:
        left = cluster.leftovers()
    assert {"node1 1 runs", "node2 1 runs", "somebody listens at node1:7420"} <= set(left)
    assert any(line.startswith("a stream from node") for line in left)
