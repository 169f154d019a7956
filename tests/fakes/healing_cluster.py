"""Twenty-four nodes that heal: memory stores, real coded stripes, and a pool that calls the other stores directly.

A test says who is down, known to be dead, silent, lying or refusing; every request is recorded with its moment.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio
import trio.testing
from msgspec.structs import replace

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.placement import Candidate, neighbourhood, place
from lockbox_node.core.regions import BUILT_IN, RegionTable, spread_regions
from lockbox_node.core.repair import Guard, GuardParams, RepairParams, current_indices
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.core.tiers import STANDARD, Tier
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.ports import Answer, PutOutcome, SlotView, StripePart, settled
from lockbox_node.rpc.hello import Peer
from lockbox_node.rpc.pool import Contact
from lockbox_node.rpc.refusals import busy
from lockbox_node.services.audit_rounds import AuditRounds
from lockbox_node.services.comparing import Comparing
from lockbox_node.services.healing import Healing
from lockbox_node.services.mending import Mender
from lockbox_node.services.rebuilding import Rebuilder
from lockbox_node.services.redeeming import Redeeming
from lockbox_node.services.sources import Sources
from lockbox_node.services.storage import Storage
from protocol.certificates import Role
from protocol.errors import ErrorCode
from protocol.ids import Address, DescriptorHash, NodeId, distance
from protocol.messages import (
    NO_INDEX,
    GetShards,
    Holders,
    HolderTable,
    Message,
    Ping,
    Pong,
    Proof,
    Prove,
    PutStripe,
    Shards,
    Signed,
)
from protocol.records import (
    NodeRecord,
)
from simulations.journal import MemoryJournal
from simulations.world import SeededEntropy
from tests.fakes.granting import around, network
from tests.fakes.inline_workers import InlineWorkers
from tests.fakes.memory_store import BreakingStore
from tests.fakes.stripes import OWNER, AssetSigner, FixedClock, coded_parts, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lockbox_node.core.audit_pace import AuditParams
    from lockbox_node.rpc.connection import Connection
    from simulations.memory_store import MemoryStore

T = TypeVar("T")
NODES = 24
REGIONS = spread_regions(7)
QUICK = RepairParams(hold_off_s=4, sweep_s=20, request_timeout_s=1)


def record_of(node: bytes, number: int) -> NodeRecord:
    region = REGIONS[number % len(REGIONS)]
    return NodeRecord(
        node,
        1,
        2**40,
        [f"127.0.0.1:{number + 1}"],
        region,
        f"op {number}",
        1,
        9,
        [1],
        bytes(32),
        1,
        0,
        1,
        bytes(16),
        [b"x"],
    )


@dataclass
class Cluster:
    """24 nodes; `down` do not answer, `known_dead` are what every view has noticed."""

    params: RepairParams = QUICK
    down: set[bytes] = field(default_factory=set)
    known_dead: set[bytes] = field(default_factory=set)
    refusing: set[bytes] = field(default_factory=set)  # take no shards
    silent: set[bytes] = field(default_factory=set)  # never answer
    forged: dict[bytes, Signed] = field(default_factory=dict)  # tombstones that they show
    failing: set[bytes] = field(default_factory=set)  # say that they will not be there for long
    unwell: dict[bytes, int] = field(default_factory=dict)  # who doubts itself, and how far
    lying: set[bytes] = field(default_factory=set)  # serve damaged shards, and prove them
    mute: set[bytes] = field(default_factory=set)  # say nothing to challenges
    excuses: dict[bytes, ErrorCode] = field(default_factory=dict)  # refuse challenges so
    suspected: set[bytes] = field(default_factory=set)  # membership does not hear them
    slow_s: dict[bytes, float] = field(default_factory=dict)  # how long their way takes
    cut: set[frozenset[bytes]] = field(default_factory=set)  # pairs with no way between them
    crowded: set[bytes] = field(default_factory=set)  # have no room for one more connection
    full: set[bytes] = field(default_factory=set)  # say that they have no room
    fetched_from: list[bytes] = field(default_factory=list)
    requests: list[tuple[float, bytes, Message]] = field(default_factory=list)
    regions: RegionTable = BUILT_IN
    under_way: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.ids = [NodeId(node_of(number)) for number in range(NODES)]
        self.records = {node: record_of(node, number) for number, node in enumerate(self.ids)}
        self.clock = FixedClock()
        self.stores = {node: BreakingStore(StoreParams(), self.clock) for node in self.ids}
        self.handlers = {node: self._handlers(node) for node in self.ids}
        self.healings: dict[NodeId, Healing] = {}
        self.menders: dict[NodeId, Mender] = {}
        self.rounds: dict[NodeId, AuditRounds] = {}
        self.changes: dict[NodeId, trio.MemorySendChannel[MemberDead | MemberAlive]] = {}
        self.workers = InlineWorkers()

    def _handlers(self, node: NodeId) -> dict[type[Message], object]:
        """What a node answers with: the real services over its store."""
        store = self.stores[node]

        def nearest(target: bytes, count: int) -> list[NodeId]:
            return sorted(self.ids, key=lambda one: distance(one, target))[:count]

        redeeming = Redeeming(network().root, lambda: around(node, []), self.clock, MemoryJournal())

        def gives_away(address: bytes, wanted: bytes) -> bool:
            return node in self.menders and self.menders[node].gives_away(address, wanted)

        storage = Storage(
            store,
            node,
            self.clock,
            lambda _target, _count: [],
            nearest,
            lambda _table: None,
            redeeming,
            gives_away=gives_away,
        )
        comparing = Comparing(store, node, self.clock, nearest, Ears(self, node))
        return {route.request: route.handler for route in [*storage.routes(), *comparing.routes()]}

    def candidate(self, node: bytes) -> Candidate:
        record = self.records[NodeId(node)]
        return Candidate(record.node, record.region, record.operator)

    async def lock(self, seed: object, tier: Tier = STANDARD, shard_bytes: int = 300, groups: int = 2) -> StripePart:
        """Place a real coded stripe on its holders; the part of index 0."""
        address = AssetSigner(seed).address
        holders = place(tier, address, [self.candidate(node) for node in self.ids])
        parts = coded_parts(seed, [holders[index].node for index in range(tier.n)], tier, shard_bytes, groups)
        for part in parts:
            await self.put(NodeId(holders[part.index].node), part)
        return parts[0]

    async def put(self, node: NodeId, part: StripePart) -> None:
        _: PutOutcome = await settled(lambda answer: self.stores[node].put(part, (), OWNER, answer))

    async def holders(self, part: StripePart, view_of: NodeId) -> dict[int, Candidate]:
        """The live holders by the table of one of them, each checked to serve genuine shards."""
        table = (await self.part_at(view_of, part)).entries
        found = {}
        for node, index in current_indices(table).items():
            if node not in self.down | self.failing and index != NO_INDEX:
                assert (await self.part_at(NodeId(node), part)).index == index
                found[index] = self.candidate(node)
        return found

    async def part_at(self, node: NodeId, part: StripePart) -> StripePart:
        store = self.stores[node]
        found: StripePart = await settled(lambda answer: store.get(part.address, part.descriptor_hash, answer))
        return found

    def nearest_first(self, part: StripePart) -> list[NodeId]:
        holders = [self.candidate(entry.node) for entry in part.entries]
        return [NodeId(holder.node) for holder in neighbourhood(part.address, holders)]

    def kill(self, *nodes: NodeId, noticed: bool = True) -> None:
        """The nodes stop; their own healing hears nothing any more."""
        self.down |= set(nodes)
        for node in nodes:
            self.healings[node].pause()
        if noticed:
            self.notice(*nodes)

    def notice(self, *nodes: NodeId) -> None:
        self.known_dead |= set(nodes)
        for dead in nodes:
            for node, channel in self.changes.items():
                if node not in self.down:
                    channel.send_nowait(MemberDead(dead))

    def come_back(self, *nodes: NodeId) -> None:
        """The nodes speak again, with a new record."""
        self.known_dead -= set(nodes)
        self.down -= set(nodes)
        for back in nodes:
            for channel in self.changes.values():
                channel.send_nowait(MemberAlive(back))

    def sum(self, name: str) -> int:
        return sum(getattr(healing, name) for node, healing in self.healings.items() if node not in self.down)

    def puts(self) -> list[tuple[float, bytes]]:
        return [(when, asker) for when, asker, message in self.requests if isinstance(message, PutStripe)]


@dataclass
class Ears:
    """What a node hears of its siblings goes to its healing, when that runs."""

    cluster: Cluster
    node: NodeId

    def on_missing(self, table: HolderTable) -> None:
        if self.node in self.cluster.healings:
            self.cluster.healings[self.node].missing(table)

    def on_differing(self, node: NodeId) -> None:
        """Nobody compares here."""


@dataclass
class View:
    """MembersView and Requests of one node."""

    own: NodeId
    cluster: Cluster

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        dead = self.cluster.known_dead - {self.own}
        return {node: record for node, record in self.cluster.records.items() if node not in dead}

    @property
    def regions(self) -> RegionTable:
        return self.cluster.regions

    def failing(self) -> frozenset[NodeId]:
        return frozenset(NodeId(node) for node in self.cluster.failing if node != self.own)

    def failing_at(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        rounds = self.cluster.rounds.get(self.own)
        return self.failing() | (rounds.findings.at(address, descriptor_hash) if rounds else frozenset())

    def known(self, node: NodeId) -> NodeRecord | None:
        return self.cluster.records.get(node)

    def health(self) -> int:
        return self.cluster.unwell.get(self.own, 0)

    def contact(self, node: NodeId) -> Contact | None:
        return None if node in self.cluster.known_dead else Contact(node, ("127.0.0.1:1",))

    def candidates(self) -> list[Candidate]:
        return [
            self.cluster.candidate(node)
            for node in self.alive()
            if node not in self.cluster.failing | self.cluster.full
        ]

    def suspected(self, node: NodeId) -> bool:
        return node in self.cluster.suspected | self.cluster.known_dead

    def nearest_nodes(self, target: bytes, count: int) -> list[NodeId]:
        return sorted(self.alive(), key=lambda node: distance(node, target))[:count]

    async def connection(self, contact: Contact) -> Connection:
        await trio.lowlevel.checkpoint()
        if self.own in self.cluster.crowded:
            raise busy("all connections are in use")
        if frozenset({self.own, contact.node}) in self.cluster.cut:
            raise PeerUnreachable("no way")
        return cast("Connection", Talk(self, contact))

    async def request(self, contact: Contact, message: Message) -> Message:
        cluster = self.cluster
        if self.own in cluster.down:
            raise PeerUnreachable("we are down")
        cluster.requests.append((trio.current_time(), self.own, message))
        if isinstance(message, GetShards):
            cluster.fetched_from.append(contact.node)
        cluster.under_way += 1
        cluster.most_under_way = max(cluster.most_under_way, cluster.under_way)
        try:
            await trio.sleep(cluster.slow_s.get(contact.node, 0.01))
            if contact.node in cluster.silent or (isinstance(message, Prove) and contact.node in cluster.mute):
                await trio.sleep_forever()
            if contact.node in cluster.down:
                raise PeerUnreachable("it is down")
            return await self._serve(contact.node, message)
        finally:
            cluster.under_way -= 1

    async def _serve(self, node: NodeId, message: Message) -> Message:
        cluster = self.cluster
        if isinstance(message, PutStripe) and node in cluster.refusing:
            raise RequestRefused("full", code=ErrorCode.STORE_FULL)
        if isinstance(message, Prove) and node in cluster.excuses:
            raise RequestRefused("an excuse", code=cluster.excuses[node])
        if isinstance(message, Ping):
            return Pong(message.nonce, 1)
        handler: Any = cluster.handlers[node][type(message)]
        try:
            reply: Message = await settled(partial(handler, message, peer_of(self.own)))
        except LockboxError as error:
            raise RequestRefused(error.message, code=error.code) from None
        if isinstance(reply, Shards) and node in cluster.lying:
            return replace(reply, shards=[bytes(len(shard)) for shard in reply.shards])
        if isinstance(reply, Proof) and node in cluster.lying:
            return replace(reply, groups=[[replace(leaf, leaf=b"?") for leaf in leaves] for leaves in reply.groups])
        if isinstance(reply, Holders) and node in cluster.forged:
            return replace(reply, tombstone=cluster.forged[node])
        return reply


@dataclass
class Talk:
    """A connection of one node to another."""

    view: View
    contact: Contact

    async def request(self, message: Message) -> Message:
        return await self.view.request(self.contact, message)


def peer_of(node: bytes) -> Peer:
    """A node that asks."""
    return Peer(node, Role.NODE, "op1", "127.0.0.1", Downgrade.NONE, None, b"", 0.0)


async def tell(sources: Sources, node: NodeId, table: HolderTable) -> None:
    """As `services.rejoining` does, without what is learned."""
    await sources.tell([node], table)


def on_damage(mender: Mender, healing: Healing, address: Address, descriptor_hash: DescriptorHash) -> None:
    """As `services.rejoining` does."""
    mender.report(address, descriptor_hash)
    healing.sweep_soon()


async def look(store: MemoryStore, address: Address) -> SlotView:
    view: SlotView = await settled(lambda answer: store.look(address, answer))
    return view


async def delete(store: MemoryStore, tombstone: Signed, part: StripePart) -> None:
    def start(answer: Answer[None]) -> None:
        store.delete(tombstone, part.address, 1, 2**40, answer)

    await settled(start)


@asynccontextmanager
async def running(
    cluster: Cluster, guard: GuardParams | None = None, audit: AuditParams | None = None
) -> AsyncIterator[Cluster]:
    """Healing on every node, and audits if there are parameters for them."""
    async with trio.open_nursery() as nursery:
        for node in cluster.ids:
            view = View(node, cluster)
            store = cluster.stores[node]
            send, receive = trio.open_memory_channel[MemberDead | MemberAlive](64)
            sources = Sources(view, view, cluster.workers, cluster.params)
            mender = Mender(store, sources, cluster.clock)
            rebuilder = Rebuilder(store, sources, cluster.clock)
            made = Healing(store, view, rebuilder, mender, cluster.params, Guard(guard or GuardParams()), receive)
            cluster.healings[node] = made
            cluster.menders[node] = mender
            cluster.changes[node] = send
            await nursery.start(mender.run)
            await nursery.start(made.run)
            if audit is not None:
                store.on_corrupt = partial(on_damage, mender, made)
                entropy, clock = SeededEntropy(len(cluster.healings)), cluster.clock
                parts = (store, view, view, partial(tell, sources), entropy, clock.now_unix_s, made)
                cluster.rounds[node] = AuditRounds(*parts, lambda: False, node[0] / 256, audit)
                await nursery.start(cluster.rounds[node].run)
        yield cluster
        nursery.cancel_scope.cancel()
