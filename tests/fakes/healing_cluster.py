"""Twenty-four nodes that heal: memory stores, real coded stripes, and a pool that calls the other stores directly.

A test says who is down, known to be dead, silent, lying or refusing; every request is recorded with its moment.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import trio
import trio.testing

from lockbox_node.core.erasure import code
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.placement import Candidate, neighbourhood, place
from lockbox_node.core.regions import spread_regions
from lockbox_node.core.repair import Guard, GuardParams, RepairParams
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.core.tiers import STANDARD, Tier
from lockbox_node.errors import PeerUnreachable, RequestRefused
from lockbox_node.ports import Answer, Merged, PutOutcome, SlotView, StripePart, entries_of, settled
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.healing import Healing
from lockbox_node.services.rebuilding import Rebuilder
from protocol import merkle
from protocol.errors import ErrorCode
from protocol.ids import Address, DescriptorHash, NodeId
from protocol.messages import (
    FindHolders,
    GetShards,
    Holders,
    Message,
    PutStripe,
    Shards,
    Signed,
    Stored,
    TellHolders,
    Told,
)
from protocol.records import (
    Descriptor,
    Group,
    NodeRecord,
    address_of_descriptor,
    descriptor_hash,
    leaf_bytes,
    open_descriptor,
    sign,
)
from tests.fakes.memory_store import MemoryStore
from tests.fakes.stripes import NOW_UNIX_S, OWNER, AssetSigner, FixedClock, bytes_of, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

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


class InlineWorkers:
    """Runs at once, counting."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, fn: Callable[[], T]) -> T:
        self.runs += 1
        await trio.lowlevel.checkpoint()
        return fn()


@dataclass
class Cluster:
    """24 nodes; `down` do not answer, `known_dead` are what every view has noticed."""

    params: RepairParams = QUICK
    down: set[bytes] = field(default_factory=set)
    known_dead: set[bytes] = field(default_factory=set)
    refusing: set[bytes] = field(default_factory=set)  # take no shards
    silent: set[bytes] = field(default_factory=set)  # never answer
    forged: dict[bytes, Signed] = field(default_factory=dict)  # tombstones that they show
    lying: set[bytes] = field(default_factory=set)  # serve damaged shards
    requests: list[tuple[float, bytes, Message]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.ids = [NodeId(node_of(number)) for number in range(NODES)]
        self.records = {node: record_of(node, number) for number, node in enumerate(self.ids)}
        params = StoreParams()
        self.stores = {node: MemoryStore(params, FixedClock()) for node in self.ids}
        self.healings: dict[NodeId, Healing] = {}
        self.changes: dict[NodeId, trio.MemorySendChannel[MemberDead | MemberAlive]] = {}
        self.workers = InlineWorkers()

    def candidate(self, node: bytes) -> Candidate:
        record = self.records[NodeId(node)]
        return Candidate(record.node, record.region, record.operator)

    async def lock(self, seed: object, tier: Tier = STANDARD, shard_bytes: int = 300, groups: int = 2) -> StripePart:
        """Place a real coded stripe on its holders; the part of index 0."""
        signer = AssetSigner(seed)
        coder = code(tier.k, tier.n)
        data = [bytes_of(seed, group, length=shard_bytes * tier.k) for group in range(groups)]
        shards = [[bytes(shard) for shard in coder.encode(group)] for group in data]
        leaf = leaf_bytes(shard_bytes)
        slot = bytes_of("slot", seed, length=1024)
        descriptor = Descriptor(
            signer.public_key, 1, tier.number, 1, tier.k, tier.n, 1, leaf, shard_bytes,
            [Group([merkle.root(shard, leaf) for shard in group]) for group in shards],
            [hashlib.sha256(slot).digest()], NOW_UNIX_S, NOW_UNIX_S + 86_400, [],
        )  # fmt: skip
        signed = sign(descriptor, signer)
        holders = place(tier, signer.address, [self.candidate(node) for node in self.ids])
        entries = entries_of(((index, holder.node) for index, holder in holders.items()), 1)
        parts = {}
        for index, holder in holders.items():
            parts[index] = StripePart(
                signer.address, 1, descriptor_hash(signed), signed, tier.number, descriptor.lease_until_unix_s, (slot,),
                index, tuple(group[index] for group in shards), entries,
            )  # fmt: skip
            await self.put(NodeId(holder.node), parts[index])
        return parts[0]

    async def put(self, node: NodeId, part: StripePart) -> None:
        _: PutOutcome = await settled(lambda answer: self.stores[node].put(part, (), OWNER, answer))

    async def holders(self, part: StripePart, view_of: NodeId) -> dict[int, Candidate]:
        """The live holders by the table of one of them, each checked to serve genuine shards."""
        table = (await self.part_at(view_of, part)).entries
        found = {}
        for entry in table:
            if entry.node not in self.down:
                assert (await self.part_at(NodeId(entry.node), part)).index == entry.index
                found[entry.index] = self.candidate(entry.node)
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

    def sum(self, name: str) -> int:
        return sum(getattr(healing, name) for node, healing in self.healings.items() if node not in self.down)

    def puts(self) -> list[tuple[float, bytes]]:
        return [(when, asker) for when, asker, message in self.requests if isinstance(message, PutStripe)]


@dataclass
class View:
    """MembersView and Requests of one node."""

    own: NodeId
    cluster: Cluster

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        dead = self.cluster.known_dead - {self.own}
        return {node: record for node, record in self.cluster.records.items() if node not in dead}

    def contact(self, node: NodeId) -> Contact | None:
        return None if node in self.cluster.known_dead else Contact(node, ("127.0.0.1:1",))

    def candidates(self) -> list[Candidate]:
        return [self.cluster.candidate(node) for node in self.alive()]

    async def request(self, contact: Contact, message: Message) -> Message:
        cluster = self.cluster
        if self.own in cluster.down:
            raise PeerUnreachable("we are down")
        cluster.requests.append((trio.current_time(), self.own, message))
        cluster.under_way += 1
        cluster.most_under_way = max(cluster.most_under_way, cluster.under_way)
        try:
            await trio.sleep(0.01)
            if contact.node in cluster.silent:
                await trio.sleep_forever()
            if contact.node in cluster.down:
                raise PeerUnreachable("it is down")
            return await self._serve(contact.node, message)
        finally:
            cluster.under_way -= 1

    async def _serve(self, node: NodeId, message: Message) -> Message:
        store = self.cluster.stores[node]
        match message:
            case GetShards(address=address, descriptor_hash=descriptor):
                part: StripePart = await settled(
                    lambda answer: store.get(Address(address), DescriptorHash(descriptor), answer)
                )
                shards = [bytes(len(shard)) for shard in part.shards] if node in self.cluster.lying else part.shards
                return Shards(part.descriptor, list(part.slots), part.index, list(shards))
            case PutStripe(descriptor=signed, slots=slots, index=index, shards=shards, holders=holders):
                if node in self.cluster.refusing:
                    raise RequestRefused("full", code=ErrorCode.STORE_FULL)
                descriptor_read = open_descriptor(signed)
                part = StripePart(
                    address_of_descriptor(descriptor_read), 1, descriptor_hash(signed), signed, descriptor_read.tier,
                    NOW_UNIX_S, tuple(slots), index, tuple(shards), tuple(holders),
                )  # fmt: skip
                await self.cluster.put(node, part)
                return Stored([])
            case FindHolders(address=where):
                view = await look(store, Address(where))
                return Holders(list(view.tables), self.cluster.forged.get(node, view.tombstone), [])
            case TellHolders(tables=tables):

                def merge(answer: Answer[Merged]) -> None:
                    store.merge(tables, (), answer)

                await settled(merge)
                return Told([], [], [])
        raise AssertionError(message)


async def look(store: MemoryStore, address: Address) -> SlotView:
    view: SlotView = await settled(lambda answer: store.look(address, answer))
    return view


async def delete(store: MemoryStore, tombstone: Signed, part: StripePart) -> None:
    def start(answer: Answer[None]) -> None:
        store.delete(tombstone, part.address, 1, 2**40, answer)

    await settled(start)


@asynccontextmanager
async def running(cluster: Cluster, guard: GuardParams | None = None) -> AsyncIterator[Cluster]:
    """Healing on every node."""
    async with trio.open_nursery() as nursery:
        for node in cluster.ids:
            view = View(node, cluster)
            store = cluster.stores[node]
            send, receive = trio.open_memory_channel[MemberDead | MemberAlive](64)
            rebuilder = Rebuilder(store, view, view, cluster.workers, cluster.params)
            made = Healing(store, view, rebuilder, cluster.params, Guard(guard or GuardParams()), receive)
            cluster.healings[node] = made
            cluster.changes[node] = send
            await nursery.start(made.run)
        yield cluster
        nursery.cancel_scope.cancel()
