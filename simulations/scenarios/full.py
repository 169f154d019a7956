"""Disks fill, one after the other, until none has room: locks are refused, deletes and reads work, nothing breaks.

When all are full a lock is refused by name, and a delete is confirmed by every holder. When there is room again locks
go through. Every asset that was acknowledged and not deleted can be read, then and at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import SIZES

if TYPE_CHECKING:
    from simulations.cluster import Cluster

ASSETS = 5
FILLING_S = 60.0  # at the least, from the first full disk to the last
EMPTIED_S = 30.0  # until nodes have told that they have room


async def play(cluster: Cluster, seconds: float) -> None:
    """Filling takes as long as `seconds` says."""
    async with a_person(cluster, 1) as person:
        rng = cluster.world.rng("full")
        for _ in range(ASSETS):
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
        order = rng.sample(list(cluster.hosts.values()), len(cluster.hosts))
        pause_s = max(FILLING_S, seconds) / len(order)
        for number, host in enumerate(order):
            cluster.world.trace.add("full", host.name)
            host.disk.fill()
            if number % 5 == 4:
                await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
            await trio.sleep(pause_s)
        for size in SIZES:
            assert await person.lock(size, STANDARD) is None, "a lock succeeded though no disk has room"
        await person.read_all()
        missing = await person.delete(rng.choice(person.kept))
        assert missing == 0, f"{missing} holders whose disk is full did not confirm a delete"
        for host in order:
            cluster.world.trace.add("room", host.name)
            host.disk.fill(full=False)
        await trio.sleep(EMPTIED_S)
        assert await person.lock(SIZES[-1], STANDARD) is not None, "nothing can be locked though there is room again"
        await person.read_all()
