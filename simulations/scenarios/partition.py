"""The regions fall into two sides that do not hear each other, then only one hears the other; then all is well again.

People on the larger side go on. When it has healed all nodes agree on who lives, within AGREE_S, and every asset that
was acknowledged can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.cluster import agreed
from simulations.people import a_person

if TYPE_CHECKING:
    from simulations.cluster import Cluster

PAUSE_S = 30.0
APART_S = (20.0, 300.0)  # shortest and longest
TOGETHER_S = 300.0
AGREE_S = 120.0
SIZES = (100, 5_000, 100_000)


async def play(cluster: Cluster, seconds: float) -> None:
    """Partitions until `seconds` have passed."""
    async with a_person(cluster, 1) as person:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
            await _part(cluster, trio.current_time() + seconds)
            nursery.cancel_scope.cancel()
        await person.read_all()


async def _part(cluster: Cluster, end: float) -> None:
    rng = cluster.world.rng("partitions")
    regions = sorted({host.region for host in cluster.hosts.values()})
    while True:
        small = set(rng.sample(regions, rng.randint(1, (len(regions) - 1) // 2)))
        inside = [host.name for host in cluster.hosts.values() if host.region in small]
        outside = [name for name in cluster.geography.hosts() if name not in inside]
        sides = (inside, outside) if rng.random() < 0.5 else (outside, inside)
        heal = cluster.hub.partition(*sides, one_way=rng.random() < 0.5)
        await trio.sleep(rng.uniform(*APART_S))
        heal()
        await trio.sleep(AGREE_S)
        assert agreed(cluster), f"{AGREE_S:g} s after the healing nodes do not agree on who lives"
        if trio.current_time() >= end:
            break
        await trio.sleep(TOGETHER_S)
