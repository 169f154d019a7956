"""A whole region dies for good, all its hosts in one moment; what it held is rebuilt in the others.

No tier keeps enough in one region to lose anything with it. Within HEAL_S every stripe has all its shards again, on
nodes that live, unless the rules leave it no place; meanwhile and afterwards every asset can be read, and new ones can
be locked. Nobody locks while it burns: an unacknowledged lock may leave a stripe short for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import LARGE, SIZES, quick_healing, until_whole

if TYPE_CHECKING:
    from simulations.cluster import Cluster

CONFIG = quick_healing()
ASSETS = 6
HEAL_S = 300.0  # detection, the hold-offs of the first ranks, repairs


async def play(cluster: Cluster, seconds: float) -> None:
    """One region, then HEAL_S at most, then as long as `seconds` says in all."""
    end = trio.current_time() + seconds
    async with a_person(cluster, 1) as person:
        rng = cluster.world.rng("burn")
        await person.lock(LARGE, BASIC)
        for _ in range(ASSETS):
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
        region = rng.choice(sorted({host.region for host in cluster.hosts.values()}))
        cluster.world.trace.add("burns", region)
        for host in list(cluster.living()):
            if host.region == region:
                cluster.crash(host.name, power=True)
        await person.read_all()
        await until_whole(cluster, HEAL_S)
        assert await person.lock(SIZES[-1], STANDARD) is not None, "nothing can be locked where one region burned"
        await trio.sleep(max(0.0, end - trio.current_time()))
        await person.read_all()
