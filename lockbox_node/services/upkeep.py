"""What a store needs while nothing happens to it: leases end, and everything is read once in a while.

One unit for the composition root: the scrub counts by the uptime that the leases keep, so they start together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.services.leases import Leases
from lockbox_node.services.scrubbing import Scrubber

if TYPE_CHECKING:
    from random import Random

    from lockbox_node.config import Config
    from lockbox_node.ports import ShardStore, WallClock
    from lockbox_node.rpc.pool import Pool


class Upkeep:
    """Leases and scrub of one store."""

    def __init__(self, store: ShardStore, pool: Pool, clock: WallClock, config: Config, rng: Random) -> None:
        self.leases = Leases(store, clock, pool.connections, pool.release, config.leases, config.clock)
        self.scrub = Scrubber(store, lambda: self.leases.uptime_s, clock, rng, config.scrub)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Both, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.leases.run)
            await nursery.start(self.scrub.run)
            task_status.started()
