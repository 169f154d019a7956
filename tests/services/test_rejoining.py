"""The services of a node that comes right again run together and end together."""

from __future__ import annotations

import random
from functools import partial

import trio
import trio.testing

from lockbox_node.config import Config
from lockbox_node.ports import settled
from lockbox_node.services.reconciling import RESTORED
from lockbox_node.services.rejoining import Rejoining
from tests.fakes.healing_cluster import Cluster, View


async def test_a_restored_node_is_confirmed_once_its_services_run(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    own = cluster.ids[0]
    store, view = cluster.stores[own], View(own, cluster)
    await settled(partial(store.note, RESTORED, b"\x80"))
    rejoining = Rejoining(store, view, view, cluster.workers, cluster.clock, Config(), random.Random(1))
    assert rejoining.unconfirmed()
    async with trio.open_nursery() as nursery:
        await nursery.start(rejoining.run)
        await trio.sleep(60)
        assert not rejoining.unconfirmed()
        nursery.cancel_scope.cancel()
