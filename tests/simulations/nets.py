"""A network under watch for tests of the watcher: nine nodes, a person, one asset of hers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.config import Config
from lockbox_node.core.repair import RepairParams
from lockbox_node.core.tiers import BASIC
from simulations.cluster import Cluster
from simulations.invariants import Limits
from simulations.people import a_person
from simulations.watching import BrokenInvariant, Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lockbox_node.node import Node
    from simulations.cluster import Host
    from simulations.people import Kept, Person
    from simulations.world import World

NODES = 9
CONFIG = Config(repair=RepairParams(hold_off_s=10, sweep_s=20))
LIMITS = Limits(hold_off_s=10, repair_s=60)
AGREE_S = 30.0


@dataclass
class Net:
    """A network under watch, a person, one asset of hers."""

    cluster: Cluster
    watcher: Watcher
    person: Person
    asset: Kept

    def holders(self, address: bytes = b"") -> list[Host]:
        """Who keeps the asset's root, or what stands at `address`, on its disk."""
        hosts = self.cluster.hosts.values()
        return [host for host in hosts if host.disk.parts.standing(address or self.asset.asset.address)]  # type: ignore[arg-type]

    async def pass_by(self, seconds: int) -> None:
        """Second by second under the eye."""
        for _ in range(seconds):
            await trio.sleep(1)
            self.watcher.check()

    async def until_broken(self, words: str, seconds: int) -> None:
        """It is found within so many seconds."""
        with pytest.raises(BrokenInvariant, match=words):
            await self.pass_by(seconds)


@asynccontextmanager
async def a_net(
    world: World, spoil: Callable[[Cluster], None] = lambda _cluster: None, size: int = 1000
) -> AsyncIterator[Net]:
    """`spoil` what runs before the asset of `size` bytes is locked at Basic."""
    cluster = Cluster(world, NODES, CONFIG)
    watcher = Watcher(cluster, LIMITS)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(AGREE_S)
        spoil(cluster)
        async with a_person(cluster, 1) as person:
            asset = await person.lock(size, BASIC)
            assert asset is not None
            yield Net(cluster, watcher, person, asset)
        nursery.cancel_scope.cancel()


def nodes_of(cluster: Cluster) -> list[Node]:
    """Those that run."""
    return [host.life.node for host in cluster.living() if host.life is not None]


def paused(cluster: Cluster) -> None:
    """Nobody repairs anything."""
    for node in nodes_of(cluster):
        node.healing.pause()
