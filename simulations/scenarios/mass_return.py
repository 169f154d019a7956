"""A third of all nodes goes at once, and later all come back, OLD of them with an old image of their disk.

More went in one moment than a network may believe: all who stay doubt their view, and nobody repairs anything. When
all are back they trust it again by themselves. What the old images lack is rebuilt; within HEAL_S every stripe has all
its shards, and every asset can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.cluster import agreed
from simulations.people import a_person
from simulations.staging import SIZES, bring_back, quick_healing, until, until_whole

if TYPE_CHECKING:
    from simulations.cluster import Cluster

QUIET_S = 150.0  # without another loss, until a doubted view is trusted again
CONFIG = quick_healing(quiet_s=QUIET_S)
ASSETS = 3  # before the images are taken, and after
OLD = 2
AWAY_S = 60.0  # at the least; at most AWAY_MAX_S, as a view that stays as it is is trusted after QUIET_S
AWAY_MAX_S = 100.0
DOUBT_S = 40.0
AGREE_S = 120.0
HEAL_S = 400.0


async def play(cluster: Cluster, seconds: float) -> None:
    """They are away as long as `seconds` says, within bounds."""
    async with a_person(cluster, 1) as person:
        rng = cluster.world.rng("mass return")
        away = rng.sample(list(cluster.hosts), len(cluster.hosts) // 3 + 1)
        for _ in range(ASSETS):
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
        images = {name: cluster.hosts[name].disk.snapshot() for name in away[:OLD]}
        for _ in range(ASSETS):
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
        for name in away:
            cluster.crash(name, power=rng.random() < 0.5)
        await until(lambda: not any(_trusting(cluster)), DOUBT_S, "a node trusts a view that lost a third at once")
        repaired = _repaired(cluster)
        await trio.sleep(min(max(AWAY_S, seconds), AWAY_MAX_S))
        assert not any(_trusting(cluster)), "a node trusts its view while a third is away"
        assert _repaired(cluster) == repaired, "somebody repaired though nobody trusts his view"
        for name, image in images.items():
            cluster.put_back(name, image)
        await bring_back(cluster)
        await until(lambda: agreed(cluster), AGREE_S, "nodes do not agree on who lives")
        await until(lambda: all(_trusting(cluster)), HEAL_S, "a node doubts its view though all are back")
        await until_whole(cluster, HEAL_S)
        await person.read_all()


def _trusting(cluster: Cluster) -> list[bool]:
    return [host.life.node.guard.trusted for host in cluster.living() if host.life is not None]


def _repaired(cluster: Cluster) -> int:
    return sum(host.life.node.healing.repairs_done for host in cluster.living() if host.life is not None)
