"""Two hosts an ocean apart on one hub, in virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import PeerUnreachable
from lockbox_node.observe import logging
from simulations.geography import Geography
from simulations.network import Hub, MemoryNetwork
from simulations.world import World
from tests.fakes import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lockbox_node.ports import PeerStream
    from simulations.streams import MemoryStream

HERE = Path(__file__).parent
REGIONS = {"east": "us-east-1", "west": "us-west-1", "far": "ap-southeast-2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder runs in virtual time."""
    virtual_time.mark(items, HERE)


@pytest.fixture
def world(seed: int) -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(seed)
    world.listen()
    yield world
    logging.configure(strict=True)
    assert not world.defects


@dataclass
class Sea:
    """The hub with three hosts; each writes down what it hears, and how a stream ended."""

    hub: Hub
    geography: Geography
    world: World
    nursery: trio.Nursery
    heard: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in REGIONS})
    ends: list[str] = field(default_factory=list)
    accepted: list[PeerStream] = field(default_factory=list)

    def network(self, name: str) -> MemoryNetwork:
        return self.hub.network(name, name.encode)

    @asynccontextmanager
    async def serving(self, name: str) -> AsyncIterator[MemoryNetwork]:
        """`name` listens and writes down what it hears."""
        network = self.network(name)
        async with trio.open_nursery() as nursery:
            await nursery.start(network.serve, lambda stream: self.listen(name, stream))
            yield network
            nursery.cancel_scope.cancel()

    async def listen(self, name: str, stream: PeerStream) -> None:
        """Until the stream ends."""
        self.accepted.append(stream)
        buffer = memoryview(bytearray(1000))
        try:
            while count := await stream.receive_into(buffer):
                self.heard[name].append(bytes(buffer[:count]))
            self.ends.append("closed")
        except PeerUnreachable as error:
            self.ends.append(error.message)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    async def dialled(self, source: str, target: str) -> MemoryStream:
        """A stream from `source`."""
        return await self.network(source).dial(target, 7420)


@pytest.fixture
async def sea(nursery: trio.Nursery) -> Sea:
    world = World(1)
    geography = Geography(world.rng)
    for name, region in REGIONS.items():
        geography.place(name, region)
    hub = Hub(geography=geography, trace=world.trace.add)
    await nursery.start(hub.run)
    return Sea(hub, geography, world, nursery)
