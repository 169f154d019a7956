"""Wall clocks drift on every node, and jump on a few, by seconds or by years, forward and back.

Nothing but signatures and leases goes by them: views stay as they are, no lease ends by a clock that is wrong, and
every asset that was acknowledged can be read. At most JUMPED_MAX nodes show another year at once, fewer than any tier
may lose; they are set right after a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.cluster import agreed
from simulations.people import a_person
from simulations.staging import SIZES, until

if TYPE_CHECKING:
    from random import Random

    from simulations.cluster import Cluster

PAUSE_S = 20.0
DRIFT_MAX = 200e-6  # a bad crystal: seconds a second
EVERY_S = 30.0  # mean, between two jumps
WRONG_S = 60.0  # mean
JUMPED_MAX = 2
JUMPS_S = (-2 * 365 * 86400.0, -7200.0, -90.0, -1.0, 1.0, 90.0, 7200.0, 2 * 365 * 86400.0)
AGREE_S = 120.0


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    async with a_person(cluster, 1) as person:
        rng = cluster.world.rng("skew")
        for host in cluster.hosts.values():
            host.clock.drift(1 + rng.uniform(-DRIFT_MAX, DRIFT_MAX))
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
                nursery.start_soon(_jump, cluster, nursery, rng)
        await until(lambda: agreed(cluster), AGREE_S, "nodes do not agree on who lives")
        assert person.kept, "nothing could be locked while clocks were wrong"
        await person.read_all()


async def _jump(cluster: Cluster, nursery: trio.Nursery, rng: Random) -> None:
    wrong: set[str] = set()
    while True:
        await trio.sleep(rng.expovariate(1 / EVERY_S))
        right = [name for name in cluster.hosts if name not in wrong]
        if len(wrong) < JUMPED_MAX:
            name = rng.choice(right)
            wrong.add(name)
            nursery.start_soon(_jump_and_back, cluster, name, rng, wrong)


async def _jump_and_back(cluster: Cluster, name: str, rng: Random, wrong: set[str]) -> None:
    jump_s, wrong_s = rng.choice(JUMPS_S), rng.expovariate(1 / WRONG_S)
    clock = cluster.hosts[name].clock
    cluster.world.trace.add("jumps", name, jump_s)
    clock.jump(jump_s)
    try:
        await trio.sleep(wrong_s)
    finally:
        cluster.world.trace.add("jumps", name, -jump_s)
        clock.jump(-jump_s)
    wrong.discard(name)
