"""A few nodes go down and come up all the time, every few seconds to a minute; the others must not be carried away.

Together they are fewer than any tier may lose. Who stays is always believed to live by who stays, and rebuilds nothing
on account of those that are back before any hold-off is over, but what bears no further loss; when the flapping ends
all nodes agree on who lives, within AGREE_S, and every asset that was acknowledged can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.repair import Cause
from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.cluster import agreed
from simulations.people import a_person
from simulations.staging import SIZES, bring_back, until

if TYPE_CHECKING:
    from simulations.cluster import Cluster

FLAPPING = 2
PAUSE_S = 20.0  # of a person
SOON_S, LATE_S = 2.0, 45.0  # the shortest hold-off is 60 s: of what a wallet keeps for itself, at Premium
AGREE_S = 120.0
ENDINGS = ("stop", "kill", "power")


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    async with a_person(cluster, 1) as person:
        flapping = cluster.world.rng("flapping").sample(list(cluster.hosts), FLAPPING)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for name in flapping:
                    nursery.start_soon(_flap, cluster, name)
                nursery.start_soon(_watch, cluster, frozenset(flapping))
                nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
        figures = [host.life.node.healing.figures for host in cluster.living() if host.life is not None]
        # Who missed a put while it was away fetches its own part: that is no repair on its account.
        rebuilt = sum(one.done.total() - one.done[Cause.DAMAGE] - one.urgent for one in figures)
        assert not rebuilt, f"{rebuilt} repairs on account of nodes that are away for {LATE_S:g} s at most"
        await bring_back(cluster)
        await until(lambda: agreed(cluster), AGREE_S, "nodes do not agree on who lives")
        await person.read_all()


async def _flap(cluster: Cluster, name: str) -> None:
    rng = cluster.world.rng(f"flap {name}")
    while True:
        await trio.sleep(rng.uniform(SOON_S, LATE_S))
        how = rng.choice(ENDINGS)
        if how == "stop":
            await cluster.stop(name)
        else:
            cluster.crash(name, power=how == "power")
        await trio.sleep(rng.uniform(SOON_S, LATE_S))
        await cluster.start(name).ready.wait()


async def _watch(cluster: Cluster, flapping: frozenset[str]) -> None:
    steady = [host for host in cluster.hosts.values() if host.name not in flapping]
    ids = {host.id for host in steady}
    await until(lambda: agreed(cluster) or _seen(cluster, ids), AGREE_S, "the network has not come together")
    while True:
        await trio.sleep(1.0)
        assert _seen(cluster, ids), "nodes that never went are believed to be dead"


def _seen(cluster: Cluster, ids: set[bytes]) -> bool:
    """Whether each of these nodes believes that all of these live."""
    return all(
        ids <= {*host.life.node.machine.alive(), host.id}
        for host in cluster.living()
        if host.life is not None and host.id in ids
    )
