"""Leases and scrub as one: they start with a node, count one uptime, and go on after a restart."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config
from lockbox_node.rpc.pool import Pool
from lockbox_node.services.leases import UPTIME_NOTE
from lockbox_node.services.scrubbing import SCRUB_NOTE
from lockbox_node.services.upkeep import Upkeep
from simulations.identities import FakeNetwork
from simulations.memory_store import MemoryStore
from tests.fakes.memory_network import MemoryHub
from tests.fakes.nodes import TownClock

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_the_scrub_counts_by_the_uptime_of_all_starts(autojump_clock: MockClock) -> None:
    config, clock, client = Config(), TownClock(), FakeNetwork().client(1)
    store = MemoryStore(config.store, clock)
    pool = Pool(MemoryHub().network("host", client.leaf), client)
    due_in_s = []
    for _ in range(2):
        upkeep = Upkeep(store, pool, clock, config, Random(1))
        async with trio.open_nursery() as nursery:
            await nursery.start(upkeep.run)
            await trio.sleep(3601)
            due_in_s.append(upkeep.scrub.due_in_s)
            nursery.cancel_scope.cancel()
        await trio.sleep(24 * 3600)
    assert due_in_s[0] - due_in_s[1] == 3600, "the day between was no uptime, nor the second after the last note"
    assert set(store.notes) >= {UPTIME_NOTE, SCRUB_NOTE}
