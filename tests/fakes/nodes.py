"""Members and whole Nodes on one memory hub: real rpc, real certificates, stores in memory.

`Member` is the membership of a node alone, with its server and pool; `Town.node` makes a Node. Both are named by a
number: node 3 stands at node3:7420. Time is trio's test clock, wall time moves with it.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config, NodeSettings
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from lockbox_node.core.routing_table import RoutingParams, RoutingTable
from lockbox_node.errors import PeerUnreachable
from lockbox_node.node import Node, Ports
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.pool import Contact, Pool
from lockbox_node.rpc.server import Server
from lockbox_node.services.announcing import Announcer, NodeState, Standing
from lockbox_node.services.discovery import Discovery
from lockbox_node.services.membership import MembershipService
from simulations.identities import NOW_UNIX_S, FakeNetwork, Papers
from simulations.journal import MemoryJournal
from simulations.network import MemoryNetwork
from simulations.world import InlineWorkers, SeededEntropy
from tests.fakes.cluster import FixedClock
from tests.fakes.memory_network import MemoryHub
from tests.fakes.memory_store import BreakingStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from lockbox_node.ports import WallClock
    from protocol.messages import Signed, SignedDocument
    from simulations.identities import FakeIdentity
    from simulations.streams import MemoryStream

SOFTWARE = bytes(32)
GIB = 1 << 30
INSTANCE = b"the first of all"


class TownClock(FixedClock):
    """Wall time that moves with trio's, and jumps when a test raises `ahead_s`."""


class CutNetwork(MemoryNetwork):
    """A host that is down reaches nobody either."""

    async def dial(self, host: str, port: int) -> MemoryStream:
        if self.host in self.hub.down:
            raise PeerUnreachable("the cable is cut")
        return await super().dial(host, port)


class StoppedClock:
    """Wall time that stands still."""

    def now_unix_s(self) -> float:
        return NOW_UNIX_S


def announcer_of(papers: Papers, address: str, clock: WallClock, epoch: int = 1) -> Announcer:
    standing = Standing((address,), "eu-central", 16 * GIB, SOFTWARE, epoch, INSTANCE)
    return Announcer(papers, papers.identity.root, standing, clock, lambda: 10)


@dataclass
class Town:
    """The hub and the authority of one test."""

    authority: FakeNetwork = field(default_factory=FakeNetwork)
    hub: MemoryHub = field(default_factory=MemoryHub)
    clock: TownClock = field(default_factory=TownClock)

    @property
    def root_key(self) -> ec.EllipticCurvePrivateKey:
        """What the authority signs documents with."""
        return self.authority._key

    def papers(self, number: int) -> Papers:
        return Papers(self.authority.node(number))

    def record(self, number: int, state: NodeState = NodeState.ACTIVE, address: str = "") -> Signed:
        """A genuine record of node `number`, signed now."""
        announcer = announcer_of(self.papers(number), address or f"node{number}:7420", self.clock)
        announcer.state = state
        return announcer.renew()[0]

    def node(
        self,
        number: int,
        bootstrap: Iterable[int] = (),
        remembered: Sequence[Signed] = (),
        *,
        store: BreakingStore | None = None,
        base: Config | None = None,
        region: str = "eu-central-1",
        host: str = "",
        epoch: int = 1,
        seed: int = 0,
        clock: TownClock | None = None,
        documents: Sequence[SignedDocument] = (),
        journal: MemoryJournal | None = None,
    ) -> Node:
        """Node `number`. Another `host` and `seed` make another process of the same node."""
        papers, host, clock = self.papers(number), host or f"node{number}", clock or self.clock
        addresses = tuple(f"node{other}:7420" for other in bootstrap)
        base = base or Config()
        listen, advertise = f"{host}:7420", base.node.advertise
        settings = NodeSettings(listen=listen, advertise=advertise, region=region, bootstrap=addresses)
        config = replace(base, node=settings)
        ports = Ports(
            CutNetwork(self.hub, host, 7420, papers.leaf),
            store or BreakingStore(config.store, clock),
            InlineWorkers(),
            SeededEntropy(number + seed),
            clock,
            journal or MemoryJournal(),
        )
        root, rng = self.authority.root, random.Random(number)
        return Node(config, ports, papers, root, SOFTWARE, rng, remembered, epoch, documents)

    def forward(self, address: str, number: int) -> None:
        """What comes to `address` goes to node `number` from now on: a port forward."""
        host, _, port = address.rpartition(":")
        self.hub.listeners[host, int(port)] = self.hub.listeners[f"node{number}", 7420]

    def cut(self, number: int) -> None:
        """The node's cables are pulled: its connections break, nobody reaches it, it reaches nobody."""
        host = f"node{number}"
        self.hub.down.add(host)
        for ours, theirs in self.hub.streams:
            if host in (ours.peer_host, theirs.peer_host):
                ours.lose()

    @asynccontextmanager
    async def asker(self, identity: FakeIdentity) -> AsyncIterator[Pool]:
        """The pool of somebody who only asks."""
        pool = Pool(self.hub.network("asker", identity.leaf), identity)
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            yield pool
            nursery.cancel_scope.cancel()


class Member:
    """The membership of node `number`, without storage and healing."""

    def __init__(
        self,
        town: Town,
        number: int,
        bootstrap: Iterable[int] = (),
        remembered: Sequence[Signed] = (),
        params: MembershipParams | None = None,
        changes_max: int = 1000,
        serves: bool = True,
        address: str = "",
    ) -> None:
        """`address` is what it advertises, if others reach it elsewhere than where it listens."""
        self.number, self.papers = number, town.papers(number)
        self.announcer = announcer_of(self.papers, address or f"node{number}:7420", town.clock)
        network = CutNetwork(town.hub, f"node{number}", 7420, self.papers.leaf)
        self.id = self.papers.node_id
        self.machine = Membership(self.id, params or MembershipParams(), random.Random(number))
        self.table = RoutingTable(self.id, RoutingParams())
        self.discovery = Discovery(self.announcer, self.machine, self.table)
        dispatcher = Dispatcher()
        self.pool = Pool(network, self.announcer, dispatcher)
        send, self.changes = trio.open_memory_channel[MemberDead | MemberAlive](changes_max)
        self.joins = 0
        self.service = MembershipService(
            self.machine,
            self.announcer,
            self.discovery,
            self.pool,
            [(f"node{other}", 7420) for other in bootstrap],
            send,
            town.clock.now_unix_s,
            self._joined,
            remembered,
        )
        self.pool.on_lost = self.service.connection_lost
        self.pool.on_same = self.service.met_same
        if serves:  # else it refuses whatever it is asked
            dispatcher.add(*self.service.routes(), *self.discovery.routes())
        self._server = Server(network, self.pool, self.announcer, dispatcher)

    @property
    def contact(self) -> Contact:
        return Contact(self.id, (f"node{self.number}:7420",))

    def published(self) -> list[MemberDead | MemberAlive]:
        """What `changes` has brought since the last look."""
        found = []
        while self.changes.statistics().current_buffer_used:
            found.append(self.changes.receive_nowait())
        return found

    def _joined(self) -> None:
        self.joins += 1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pool.run)
            await nursery.start(self._server.run)
            await nursery.start(self.service.run)
            self.service.set_state(NodeState.ACTIVE)
            task_status.started()
