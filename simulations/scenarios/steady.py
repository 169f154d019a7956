"""Nobody fails: one person locks a file of several stripes, then small ones, waits and unlocks, over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import LARGE, SIZES

if TYPE_CHECKING:
    from simulations.cluster import Cluster

PAUSE_S = 60.0


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    end = trio.current_time() + seconds
    async with a_person(cluster, 1) as person:
        rng = person.rng
        assert await person.lock(LARGE, BASIC), "nothing is in the way"
        while True:
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
            await person.unlock(rng.choice(person.kept))
            if trio.current_time() + PAUSE_S >= end:
                break
            await trio.sleep(PAUSE_S)
        await person.read_all()
    await trio.sleep(max(0.0, end - trio.current_time()))
