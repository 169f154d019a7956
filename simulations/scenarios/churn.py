"""Nodes die and come back all the time, a few at once; people lock and unlock meanwhile; nothing acknowledged is lost.

At most AWAY_MAX nodes are away together, in one region or many: fewer than any tier may lose. Each goes by one of the
ways in which real ones go, and is away for a while that is sometimes shorter, sometimes longer than the hold-off of
its assets. At the end all are back, and every asset must be readable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person

if TYPE_CHECKING:
    from random import Random

    from simulations.cluster import Cluster

EVERY_S = 60.0  # mean, between two that go
AWAY_S = 180.0  # mean
AWAY_MAX = 2
PAUSE_S = 30.0  # of a person
BREAK_EVERY_S = 20.0  # mean, between two connections that break
STEPS_MAX = 2000  # of a node that crashes in the middle of something
SETTLE_S = 120.0
SIZES = (100, 5_000, 100_000)
ENDINGS = ("stop", "kill", "power", "step", "hang")


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed, and SETTLE_S more."""
    async with a_person(cluster, 1) as person:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_churn, cluster, nursery)
                nursery.start_soon(_break, cluster)
                nursery.start_soon(person.live, PAUSE_S, (BASIC, STANDARD), SIZES)
        for host in cluster.hosts.values():
            if host.life is None:
                await cluster.start(host.name).ready.wait()
        await trio.sleep(SETTLE_S)
        await person.read_all()


async def _break(cluster: Cluster) -> None:
    rng = cluster.world.rng("breaks")
    while True:
        await trio.sleep(rng.expovariate(1 / BREAK_EVERY_S))
        cluster.hub.break_some(rng, 1, silently=rng.random() < 0.3)


async def _churn(cluster: Cluster, nursery: trio.Nursery) -> None:
    rng = cluster.world.rng("churn")
    away: set[str] = set()
    while True:
        await trio.sleep(rng.expovariate(1 / EVERY_S))
        here = [name for name in cluster.hosts if name not in away]
        if len(away) < AWAY_MAX:
            name = rng.choice(here)
            away.add(name)
            nursery.start_soon(_go_and_come, cluster, name, rng, away)


async def _go_and_come(cluster: Cluster, name: str, rng: Random, away: set[str]) -> None:
    how, away_s = rng.choice(ENDINGS), rng.expovariate(1 / AWAY_S)
    cluster.world.trace.add("goes", name, how, round(away_s, 3))
    if how == "hang":
        go_on = cluster.hang(name)
        try:
            await trio.sleep(away_s)
        finally:
            go_on()
    else:
        await _end(cluster, name, how, rng)
        await trio.sleep(away_s)
        await cluster.start(name).ready.wait()
    away.discard(name)


async def _end(cluster: Cluster, name: str, how: str, rng: Random) -> None:
    if how == "stop":
        await cluster.stop(name)
    elif how == "step":
        life = cluster.hosts[name].life
        assert life is not None
        call_off = cluster.crash_at(name, rng.randrange(1, STEPS_MAX), power=rng.random() < 0.5)
        try:
            await life.ended.wait()
        finally:
            call_off()
    else:
        cluster.crash(name, power=how == "power")
