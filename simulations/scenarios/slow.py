"""Slow is not dead: a slow node, a slow disk, slow links of a whole region, each for a while, at times together.

Nobody may be declared dead for being slow. Locks and unlocks go on around what is slow, none fails, and at the end
every asset that was acknowledged can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.cluster import agreed
from simulations.people import a_person
from simulations.staging import SIZES, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulations.cluster import Cluster

PAUSE_S = 20.0
NODE_SLOW_S = 0.4  # added to each message of a slow node, either way
REGION_SLOW_S = 0.2
DISK_SLOWNESS = 500.0  # a flush takes a second
EVERY_S = 30.0  # mean, between two that turn slow
SLOW_S = 45.0  # mean
TOGETHER_S = 60.0  # until the start has brought everybody together


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    await until(lambda: agreed(cluster), TOGETHER_S, "the network has not come together")
    async with a_person(cluster, 1) as person:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for turn in (_node, _disk, _region):
                    nursery.start_soon(turn, cluster)
                nursery.start_soon(_watch, cluster)
                nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
        assert not person.failed_locks, f"{person.failed_locks} locks failed although nobody was away"
        assert not person.failed_unlocks, f"{person.failed_unlocks} unlocks failed although nobody was away"
        await person.read_all()


async def _watch(cluster: Cluster) -> None:
    while True:
        await trio.sleep(1.0)
        assert agreed(cluster), "somebody who is only slow is believed to be dead"


async def _node(cluster: Cluster) -> None:
    rng = cluster.world.rng("slow nodes")
    while True:
        await trio.sleep(rng.expovariate(1 / EVERY_S))
        await _links(cluster, [rng.choice(list(cluster.hosts))], NODE_SLOW_S, rng.expovariate(1 / SLOW_S))


async def _region(cluster: Cluster) -> None:
    rng = cluster.world.rng("slow regions")
    while True:
        await trio.sleep(rng.expovariate(1 / EVERY_S))
        region = rng.choice(sorted({host.region for host in cluster.hosts.values()}))
        inside = [host.name for host in cluster.hosts.values() if host.region == region]
        await _links(cluster, inside, REGION_SLOW_S, rng.expovariate(1 / SLOW_S))


async def _links(cluster: Cluster, names: Iterable[str], more_s: float, seconds: float) -> None:
    slow_s = cluster.geography.slow_s
    cluster.world.trace.add("slow", *names)
    for name in names:
        slow_s[name] = slow_s.get(name, 0.0) + more_s
    try:
        await trio.sleep(seconds)
    finally:
        cluster.world.trace.add("quick", *names)
        for name in names:
            slow_s[name] -= more_s


async def _disk(cluster: Cluster) -> None:
    rng = cluster.world.rng("slow disks")
    while True:
        await trio.sleep(rng.expovariate(1 / EVERY_S))
        host = rng.choice(list(cluster.hosts.values()))
        cluster.world.trace.add("slow disk", host.name)
        host.disk.slowness = DISK_SLOWNESS
        try:
            await trio.sleep(rng.expovariate(1 / SLOW_S))
        finally:
            host.disk.slowness = 1.0
            cluster.world.trace.add("quick disk", host.name)
