"""What a network goes through in a month, in minutes: nodes gone for good, each one rebooted, a region that is away.

LOSSES nodes die for ever, one after the other, the next when what the last one held is whole again; every other node
is rebooted once; one region goes dark for AWAY_S and comes back. Two of these never meet in what one stripe may lose.
Locks and unlocks go on meanwhile. At the end no stripe misses a shard and every asset can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import SIZES, bring_back, quick_healing, until_whole

if TYPE_CHECKING:
    from random import Random

    from simulations.cluster import Cluster

CONFIG = quick_healing()
LOSSES = 4
NODES_FOR_ALL = 28  # fewer nodes lose fewer: the tiers need their number, and one more
PAUSE_S = 20.0  # of a person
AWAY_S = 60.0  # of a region
REBOOT_S = 5.0  # one node is away
HEAL_S = 300.0


async def play(cluster: Cluster, seconds: float) -> None:
    """All of it, spread over `seconds`, or as long as it takes."""
    end = trio.current_time() + seconds
    rng = cluster.world.rng("wear")
    losses = rng.sample(sorted(cluster.hosts), max(1, LOSSES * min(len(cluster.hosts), NODES_FOR_ALL) // NODES_FOR_ALL))
    async with a_person(cluster, 1) as person:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
            events = [("lose", name) for name in losses]
            events += [("reboot", name) for name in sorted(set(cluster.hosts) - set(losses))]
            rng.shuffle(events)
            events.insert(rng.randrange(len(events) + 1), ("dark", rng.choice(sorted(_regions(cluster, losses)))))
            for number, (what, whom) in enumerate(events):
                cluster.world.trace.add("wears", what, whom)
                await _bring_about(cluster, what, whom, rng)
                await until_whole(cluster, HEAL_S)
                left_s = end - trio.current_time()
                await trio.sleep(max(0.0, left_s / (len(events) - number)))
            nursery.cancel_scope.cancel()
        await until_whole(cluster, HEAL_S)
        await person.read_all()


def _regions(cluster: Cluster, losses: list[str]) -> set[str]:
    return {host.region for host in cluster.hosts.values() if host.name not in losses}


async def _bring_about(cluster: Cluster, what: str, whom: str, rng: Random) -> None:
    if what == "lose":
        cluster.crash(whom, power=True)
    elif what == "reboot":
        await cluster.stop(whom)
        await trio.sleep(rng.uniform(0.5, 2.0) * REBOOT_S)
        await bring_back(cluster, [whom])
    else:
        dark = [host.name for host in cluster.living() if host.region == whom]
        for name in dark:
            cluster.crash(name, power=rng.random() < 0.5)
        await trio.sleep(AWAY_S)
        await bring_back(cluster, dark)
