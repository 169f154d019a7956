"""Nobody fails: one person locks, waits and unlocks, over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person

if TYPE_CHECKING:
    from simulations.cluster import Cluster

PAUSE_S = 60.0
SIZES = (100, 5_000, 100_000)


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    end = trio.current_time() + seconds
    async with a_person(cluster, 1) as person:
        rng = person.rng
        while True:
            await person.lock(rng.choice(SIZES), rng.choice((BASIC, STANDARD)))
            await person.unlock(rng.choice(person.kept))
            if trio.current_time() + PAUSE_S >= end:
                break
            await trio.sleep(PAUSE_S)
    await trio.sleep(max(0.0, end - trio.current_time()))
