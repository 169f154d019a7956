"""What the suites in virtual time share: a network that is settled, and what its disks hold."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.state_root import state_root
from simulations.cluster import Cluster
from simulations.staging import bring_back, quick_healing, until, until_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lockbox_node.node import Node
    from simulations.cluster import Host
    from simulations.world import World

NODES = 8
MERGED_S = 30.0
NOTICED_S = 60.0
HEAL_S = 300.0
COMPARED_S = 120.0
QUICK = quick_healing()
CONFIG = replace(QUICK, reconcile=replace(QUICK.reconcile, first_s=2.0, every_s=60.0))


@asynccontextmanager
async def running(world: World, seeds: int = 3, late: int = 0, nodes: int = NODES) -> AsyncIterator[Cluster]:
    """A cluster whose nodes, but for the last `late`, all serve; each was told of the first `seeds` alone."""
    cluster = Cluster(world, nodes, CONFIG, seeds=seeds)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await bring_back(cluster, list(cluster.hosts)[: nodes - late])
        await until(lambda: is_settled(cluster.living()), MERGED_S, "nodes have not found each other")
        yield cluster
        nursery.cancel_scope.cancel()


def node_of(host: Host) -> Node:
    """The node that runs there."""
    assert host.life is not None, f"{host.name} does not run"
    return host.life.node


def root_of(host: Host) -> bytes:
    """As `status` says it."""
    node = node_of(host)
    alive = [node.machine.members[one].record for one in node.machine.alive()]
    return state_root([*alive, node.announcer.record], node.documents.versions())


def is_settled(hosts: list[Host]) -> bool:
    """Whether these see each other and nobody else, and agree on what all say."""
    ids = {host.id for host in hosts}
    alike = all({*node_of(host).machine.alive(), host.id} == ids for host in hosts)
    return alike and len({root_of(host) for host in hosts}) == 1


def differing(cluster: Cluster) -> list[str]:
    """Pairs of running nodes that do not hold the same of what they share."""
    hosts = cluster.living()
    return [
        f"{one.name} and {other.name}"
        for one in hosts
        for other in hosts
        if one.name < other.name and one.disk.parts.digests(other.id) != other.disk.parts.digests(one.id)  # type: ignore[arg-type]
    ]


async def until_equal(cluster: Cluster) -> None:
    """Until all agree, no stripe misses a shard, and no two siblings differ."""
    await until(lambda: is_settled(cluster.living()), MERGED_S, "nodes do not agree")
    await until_whole(cluster, HEAL_S)
    await until(lambda: not differing(cluster), COMPARED_S, f"{differing(cluster)} differ")
