"""Nodes and clients on a memory hub, with real Hello, pools and servers, for the tests of this room."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import AdmissionParams
from lockbox_node.rpc.dispatch import Dispatcher, Route
from lockbox_node.rpc.pool import Contact, Pool, PoolParams
from lockbox_node.rpc.server import Server, ServerParams
from protocol.ids import NodeId
from protocol.messages import Message, Ping, Pong
from simulations.identities import FakeIdentity, FakeNetwork
from tests.fakes.memory_network import MemoryHub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer
    from simulations.streams import MemoryStream


CLIENT = FakeNetwork().client(1)


@dataclass
class Party:
    """One process of the test: a node (with `server`), or a client."""

    identity: FakeIdentity
    host: str
    pool: Pool
    server: Server | None
    dispatcher: Dispatcher
    scope: trio.CancelScope
    pinged_by: list[bytes] = field(default_factory=list)

    @property
    def contact(self) -> Contact:
        return Contact(NodeId(self.identity.id), (f"{self.host}:7420",))

    def ping(self, request: Ping, peer: Peer, answer: Answer[Message]) -> None:
        self.pinged_by.append(peer.id)
        answer(Pong(request.nonce, 1))


@dataclass
class World:
    network: FakeNetwork
    hub: MemoryHub
    nursery: trio.Nursery
    nodes: int = 0

    async def node(
        self,
        identity: FakeIdentity | None = None,
        routes: list[Route] | None = None,
        pool_params: PoolParams | None = None,
        server_params: ServerParams | None = None,
        admission: AdmissionParams | None = None,
    ) -> Party:
        self.nodes += 1
        identity = identity or self.network.node(self.nodes)
        party = self._party(identity, f"node{self.nodes}", pool_params, admission)
        party.dispatcher.add(*(routes if routes is not None else [Route(Ping, party.ping)]))
        party.server = Server(
            self.hub.network(party.host, identity.leaf),
            party.pool,
            identity,
            party.dispatcher,
            server_params or ServerParams(),
        )
        await self._start(party)
        return party

    async def client(self, identity: FakeIdentity | None = None, pool_params: PoolParams | None = None) -> Party:
        party = self._party(identity or self.network.client(1), "client", pool_params, None)
        await self._start(party)
        return party

    def _party(
        self, identity: FakeIdentity, host: str, params: PoolParams | None, admission: AdmissionParams | None
    ) -> Party:
        dispatcher = Dispatcher(admission or AdmissionParams())
        pool = Pool(self.hub.network(host, identity.leaf), identity, dispatcher, params or PoolParams())
        return Party(identity, host, pool, None, dispatcher, trio.CancelScope())

    async def _start(self, party: Party) -> None:
        ready = trio.Event()

        async def live() -> None:
            with party.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(party.pool.run)
                    if party.server is not None:
                        assert await nursery.start(party.server.run) == 7420
                    ready.set()

        self.nursery.start_soon(live)
        await ready.wait()


@asynccontextmanager
async def world(capacity: int = 256 * 1024, delay_s: float = 0.0) -> AsyncIterator[World]:
    """A network with nobody on it yet; all of it stops at the end."""
    async with trio.open_nursery() as nursery:
        yield World(FakeNetwork(), MemoryHub(capacity, delay_s), nursery)
        nursery.cancel_scope.cancel()


async def speak(w: World, first: bytes) -> tuple[MemoryStream, Party]:
    """A peer that says `first` in place of Hello to a new node."""
    node = await w.node(server_params=ServerParams(hello_timeout_s=5.0, hellos_max=1))
    stream = await w.hub.network("raw", CLIENT.leaf).dial("node1", 7420)
    if first:
        await stream.send_all(first)
    return stream, node


async def read_all(stream: MemoryStream) -> bytes:
    got, buffer = b"", memoryview(bytearray(65536))
    while count := await stream.receive_into(buffer):
        got += buffer[:count]
    return got
