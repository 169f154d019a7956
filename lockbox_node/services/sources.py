"""What repairs need of other nodes: ask one in bounded time, fetch verified parts, rebuild missing ones.

Nothing is trusted: fetched and rebuilt shards must hash to the ids that the owner signed. Small work is done in place,
large work in a worker. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog
import trio

from lockbox_node.core.erasure import code
from lockbox_node.core.leaving import View
from lockbox_node.core.source_order import Speeds, source_order
from lockbox_node.errors import LockboxError, NotEnoughShards, PeerUnreachable, ShardCorrupt
from protocol.errors import RemoteProtocolError
from protocol.merkle import root
from protocol.messages import GetShards, Message, Shards, TellHolders
from protocol.records import Descriptor, descriptor_hash, shard_ids_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.repair import RepairParams
    from lockbox_node.ports import StripeSummary, Workers
    from lockbox_node.rpc.pool import Contact
    from protocol.ids import Address, DescriptorHash, NodeId
    from protocol.messages import HolderTable
    from protocol.records import NodeRecord

INLINE_BYTES_MAX = 64 * 1024  # hashing and coding up to here take less than a thread's round trip

log = structlog.get_logger()
T = TypeVar("T")

Parts = dict[int, list[bytes]]
"""Shard index -> its shard of every group."""


class Requests(Protocol):
    """What repair needs of the pool."""

    async def request(self, contact: Contact, message: Message) -> Message:
        """The reply. PeerUnreachable, RequestRefused."""
        ...


class MembersView(Protocol):
    """What repair needs to know about the members; `services.discovery` gives it."""

    @property
    def own(self) -> NodeId:
        """Our node id."""
        ...

    @property
    def regions(self) -> RegionTable:
        """The network's region table."""
        ...

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Records of everybody believed alive, ourselves included."""
        ...

    def failing(self) -> frozenset[NodeId]:
        """Those of them, ourselves left out, that drain, leave or say that their store is broken."""
        ...

    def failing_at(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        """Those, and who failed to prove to us that it still has its part of this slot identity."""
        ...

    def known(self, node: NodeId) -> NodeRecord | None:
        """The record of a node, dead or alive; None when it was never heard of, or dead for too long."""
        ...

    def health(self) -> int:
        """How far we doubt ourselves: the local health multiplier of membership."""
        ...

    def contact(self, node: NodeId) -> Contact | None:
        """How to reach a member."""
        ...

    def candidates(self) -> list[Candidate]:
        """Where shards may be placed now."""
        ...


def view_of(members: MembersView, stripe: StripeSummary) -> View:
    """What is to be judged of one stripe by."""
    failing = members.failing_at(stripe.address, stripe.descriptor_hash)
    return View(members.own, members.alive(), failing, members.regions)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The slot identity whose shards are fetched."""

    address: Address
    descriptor_hash: DescriptorHash
    descriptor: Descriptor


class Sources:
    """Asks other nodes; remembers how fast they were."""

    def __init__(self, pool: Requests, members: MembersView, workers: Workers, params: RepairParams) -> None:
        self.members = members
        self.params = params
        self._pool = pool
        self._workers = workers
        self._speeds = Speeds()

    async def ask(self, node: NodeId, message: Message) -> Message:
        """The reply within the time of a request. LockboxError."""
        contact = self.members.contact(node)
        if contact is None:
            raise PeerUnreachable("this holder is no longer among the members")
        with trio.move_on_after(self.params.request_timeout_s):
            return await self._pool.request(contact, message)
        raise PeerUnreachable(f"no answer within {self.params.request_timeout_s} s")

    async def tell(self, nodes: Iterable[NodeId], table: HolderTable) -> None:
        """A table to all of these nodes but ourselves; silence is no obstacle."""
        async with trio.open_nursery() as nursery:
            for node in nodes:
                if node != self.members.own:
                    nursery.start_soon(self._tell_one, node, TellHolders([table], None))

    async def _tell_one(self, node: NodeId, message: TellHolders) -> None:
        try:
            await self.ask(node, message)
        except (LockboxError, RemoteProtocolError) as error:
            log.info("repair.tell_failed", node=node.hex()[:8], reason=str(error.code))

    async def fetch(self, wanted: Wanted, have: Parts, sources: Sequence[tuple[int, NodeId]]) -> Parts:
        """`have`, filled up to k verified parts from `sources`, the best first. NotEnoughShards."""
        k = wanted.descriptor.k
        going = self.members.failing_at(wanted.address, wanted.descriptor_hash)
        sources = source_order(sources, going, self._speeds, self._region_of)
        while len(have) < k:
            open_sources = [(index, node) for index, node in sources if index not in have]
            asked = open_sources[: k - len(have)]
            if not asked:
                raise NotEnoughShards(f"{len(have)} of {k} shards could be fetched for a repair")
            sources = [source for source in open_sources if source not in asked]
            async with trio.open_nursery() as nursery:
                for _, node in asked:
                    nursery.start_soon(self.fetch_one, wanted, node, have)
        return have

    def _region_of(self, node: NodeId) -> str:
        record = self.members.alive().get(node)
        return "" if record is None else record.region

    async def fetch_one(self, wanted: Wanted, node: NodeId, have: Parts) -> None:
        """What a holder serves into `have`, if it is what the owner signed."""
        self._speeds.begins(node)
        began, took_s = trio.current_time(), self.params.request_timeout_s  # what is no use counts as no answer
        try:
            reply = await self.ask(node, GetShards(wanted.address, wanted.descriptor_hash, None))
            answered_s = trio.current_time() - began
            assert isinstance(reply, Shards), "the codec checked the type of the reply"
            if await self._is_wanted(wanted, node, reply):
                have[reply.index], took_s = reply.shards, answered_s
        except (LockboxError, RemoteProtocolError) as error:
            log.info("repair.fetch_failed", node=node.hex()[:8], reason=str(error.code))
        finally:
            self._speeds.ended(node, took_s)

    async def _is_wanted(self, wanted: Wanted, node: NodeId, reply: Shards) -> bool:
        if descriptor_hash(reply.descriptor) != wanted.descriptor_hash or reply.index >= wanted.descriptor.n:
            log.warning("repair.wrong_reply", node=node.hex()[:8])
            return False
        if await self._compute(lambda: is_genuine(wanted.descriptor, reply.index, reply.shards), wanted.descriptor):
            return True
        log.warning("repair.bad_shards", node=node.hex()[:8])
        return False

    def unproven(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        """Who failed to prove to us that it still has its part."""
        return self.members.failing_at(address, descriptor_hash) - self.members.failing()

    async def rebuild(self, descriptor: Descriptor, have: Parts, missing: Sequence[int]) -> Parts:
        """The missing parts from k verified ones, verified again: ShardCorrupt when the owner's own ids disagree."""
        return await self._compute(lambda: _rebuild(descriptor, have, missing), descriptor)

    async def _compute(self, work: Callable[[], T], descriptor: Descriptor) -> T:
        """In a worker when it takes longer than getting there."""
        if descriptor.shard_bytes * len(descriptor.groups) <= INLINE_BYTES_MAX:
            return work()
        return await self._workers.run(work)


def is_genuine(descriptor: Descriptor, index: int, shards: Sequence[bytes]) -> bool:
    """Whether these are the shards that the owner signed for `index`, one of every group."""
    ids = shard_ids_at(descriptor, index)
    return len(ids) == len(shards) and all(
        root(shard, descriptor.leaf_bytes) == shard_id for shard, shard_id in zip(shards, ids, strict=True)
    )


def _rebuild(descriptor: Descriptor, have: Mapping[int, Sequence[bytes]], missing: Sequence[int]) -> Parts:
    coder = code(descriptor.k, descriptor.n)
    rebuilt: Parts = {index: [] for index in missing}
    for group in range(len(descriptor.groups)):
        present = {index: shards[group] for index, shards in have.items()}
        for index, shard in zip(missing, coder.rebuild(present, missing), strict=True):
            rebuilt[index].append(bytes(shard))
    if not all(is_genuine(descriptor, index, shards) for index, shards in rebuilt.items()):
        raise ShardCorrupt("rebuilt shards do not have the ids that the owner signed")
    return rebuilt
