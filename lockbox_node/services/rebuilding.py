"""One repair: fetch k shards of every group, rebuild what is missing, verify, hand over, tell the siblings.

Nothing is trusted: fetched and rebuilt shards must hash to the ids that the owner signed. Everything stays in memory
until the new holder has it durably. Repeating a repair does no harm: the same shards come out. Real and decoy groups
are alike here. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog
import trio

from lockbox_node.core.erasure import code
from lockbox_node.core.placement import Candidate, replacement
from lockbox_node.core.repair import Health, RepairParams, health, table_with, tellable
from lockbox_node.core.slots import tombstone_until
from lockbox_node.core.tiers import Tier, tier_numbered
from lockbox_node.errors import LockboxError, NotEnoughShards, PeerUnreachable, ShardCorrupt, ShardMissing
from lockbox_node.ports import (
    Answer,
    Merged,
    Owner,
    PutOutcome,
    ShardStore,
    SlotView,
    StripePart,
    StripeSummary,
    Workers,
    settled,
)
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import Address, NodeId, address_of
from protocol.merkle import root
from protocol.messages import (
    FindHolders,
    GetShards,
    HolderEntry,
    Holders,
    HolderTable,
    Message,
    PutStripe,
    Shards,
    Signed,
    TellHolders,
)
from protocol.records import Descriptor, NodeRecord, descriptor_hash, open_descriptor, open_tombstone, shard_ids_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lockbox_node.rpc.pool import Contact

OWN_QUOTA_BYTES = 1 << 62  # nobody is charged for what a node mends of its own
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

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Records of everybody believed alive, ourselves included."""
        ...

    def contact(self, node: NodeId) -> Contact | None:
        """How to reach a member."""
        ...

    def candidates(self) -> list[Candidate]:
        """Where shards may be placed now."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    """What one repair works on."""

    tier: Tier
    part: StripePart
    descriptor: Descriptor
    seen: Health
    own_corrupt: bool


class Rebuilder:
    """Repairs one stripe at a time; holds no state between repairs."""

    def __init__(
        self, store: ShardStore, pool: Requests, members: MembersView, workers: Workers, params: RepairParams
    ) -> None:
        self._store = store
        self._pool = pool
        self._members = members
        self._workers = workers
        self._params = params

    async def rebuild(self, summary: StripeSummary) -> int:
        """Bring every missing index of the stripe back; bytes rebuilt (at least 1), 0 when nothing was missing.

        Raises LockboxError when some index could not be brought back; what could be is in place all the same.
        """
        job = await self._open(summary)
        if job is not None and job.seen.short:
            # Two stewards at once know of each other's new holders only by asking; a deletion may have passed us by.
            await self._learn(job, job.seen.holders())
            job = await self._open(summary)
        if job is None or not job.seen.short:
            return 0
        have = await self._fetch(job)
        rebuilt = await self._compute(lambda: _rebuild(job, have), job)
        if job.own_corrupt:
            await self._mend_own(job, rebuilt[job.part.index])
        else:
            await self._hand_over(job, rebuilt)
        return max(1, job.descriptor.shard_bytes * len(job.descriptor.groups) * len(rebuilt))

    async def _open(self, summary: StripeSummary) -> _Job | None:
        """The stripe as it stands now, with our own shards if they are good; None when it is gone or outdated."""
        view: SlotView = await settled(lambda answer: self._store.look(summary.address, answer))
        held = next((part for part in view.parts if part.descriptor_hash == summary.descriptor_hash), None)
        if held is None or held.version < view.parts[0].version:
            return None
        part: StripePart = held
        corrupt = summary.corrupt
        if not corrupt:
            try:
                part = await settled(lambda answer: self._store.get(summary.address, summary.descriptor_hash, answer))
            except (ShardCorrupt, ShardMissing):
                corrupt = True
        now = replace(summary, entries=part.entries, corrupt=corrupt)
        tier = tier_numbered(part.tier)
        seen = health(now, tier, self._members.alive(), self._members.own)
        if corrupt:
            # Our own damage does not wait for a hold-off; what others miss has its own time.
            seen = replace(seen, missing=(part.index,))
        return _Job(tier, part, open_descriptor(part.descriptor), seen, corrupt)

    async def _learn(self, job: _Job, nodes: Sequence[NodeId]) -> None:
        """Merge what these nodes know of the address: holder tables and tombstones. Silence is no obstacle."""
        with trio.move_on_after(self._params.learn_timeout_s):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    if node != self._members.own:
                        nursery.start_soon(self._learn_from, job, node)

    async def _learn_from(self, job: _Job, node: NodeId) -> None:
        address = job.part.address
        try:
            reply = await self._ask(node, FindHolders(address))
            assert isinstance(reply, Holders), "the codec checked the type of the reply"
            tables = [table for table in reply.tables if table.address == address]
            if tables:
                await settled(_merging(self._store, tables))
            if reply.tombstone is not None:
                await self._bury(address, reply.tombstone)
        except (LockboxError, RemoteProtocolError) as error:
            log.info("repair.learn_failed", node=node.hex()[:8], reason=str(error.code))

    async def _bury(self, address: Address, signed: Signed) -> None:
        """Keep a tombstone that passed us by; RemoteProtocolError when it is not the owner's."""
        tombstone = open_tombstone(signed)
        if address_of(tombstone.public_key) != address:
            raise RemoteProtocolError("a tombstone of another address")

        until = tombstone_until(tombstone, 0)

        def delete(answer: Answer[None]) -> None:
            self._store.delete(signed, address, tombstone.version, until, answer)

        await settled(delete)

    async def _fetch(self, job: _Job) -> Parts:
        """Verified parts of k different indices, our own first, then those of the nearest siblings."""
        have: Parts = {} if job.own_corrupt else {job.part.index: list(job.part.shards)}
        sources = [(index, node) for index, nodes in job.seen.live.items() for node in nodes]
        k = job.descriptor.k
        while len(have) < k:
            open_sources = [(index, node) for index, node in sources if index not in have]
            asked = open_sources[: k - len(have)]
            if not asked:
                raise NotEnoughShards(f"{len(have)} of {k} shards could be fetched for a repair")
            sources = [source for source in open_sources if source not in asked]
            async with trio.open_nursery() as nursery:
                for _, node in asked:
                    nursery.start_soon(self._fetch_one, job, node, have)
        return have

    async def _fetch_one(self, job: _Job, node: NodeId, have: Parts) -> None:
        part = job.part
        try:
            reply = await self._ask(node, GetShards(part.address, part.descriptor_hash, None))
        except LockboxError as error:
            log.info("repair.fetch_failed", node=node.hex()[:8], reason=str(error.code))
            return
        assert isinstance(reply, Shards), "the codec checked the type of the reply"
        if descriptor_hash(reply.descriptor) != part.descriptor_hash or reply.index >= job.descriptor.n:
            log.warning("repair.wrong_reply", node=node.hex()[:8])
        elif await self._compute(lambda: _is_genuine(job.descriptor, reply.index, reply.shards), job):
            have[reply.index] = reply.shards
        else:
            log.warning("repair.bad_shards", node=node.hex()[:8])

    async def _hand_over(self, job: _Job, rebuilt: Parts) -> None:
        added: dict[int, NodeId] = {}
        failure: LockboxError | None = None
        taken = self._taken(job)
        busy = {*job.seen.holders(), self._members.own}
        for index, shards in rebuilt.items():
            try:
                taken[index] = await self._place_one(job, index, shards, taken, busy, added)
            except LockboxError as error:
                failure = error
            else:
                added[index] = NodeId(taken[index].node)
        if added:
            await self._tell(job, added)
        if failure is not None:
            raise failure

    async def _mend_own(self, job: _Job, shards: list[bytes]) -> None:
        """Our own damaged part, put in place of itself."""
        mended = replace(job.part, shards=tuple(shards))
        _: PutOutcome = await settled(
            lambda answer: self._store.put(mended, (), Owner(self._members.own, OWN_QUOTA_BYTES), answer)
        )

    def _taken(self, job: _Job) -> dict[int, Candidate]:
        """The live holders as placement sees them, one for each index."""
        alive = self._members.alive()
        nearest = ((index, alive.get(nodes[0])) for index, nodes in job.seen.live.items())
        return {
            index: Candidate(record.node, record.region, record.operator)
            for index, record in nearest
            if record is not None
        }

    async def _place_one(
        self,
        job: _Job,
        index: int,
        shards: list[bytes],
        taken: Mapping[int, Candidate],
        busy: set[NodeId],
        added: Mapping[int, NodeId],
    ) -> Candidate:
        """Hand index `index` to the best candidate that takes it; those who refuse join `busy`."""
        failure: LockboxError | None = None
        for _ in range(self._params.holders_tried_max):
            candidates = [one for one in self._members.candidates() if one.node not in busy]
            try:
                holder = replacement(job.tier, job.part.address, candidates, taken, index)
            except LockboxError as error:
                raise failure or error from None
            node = NodeId(holder.node)
            busy.add(node)
            table = tellable(table_with(job.part.entries, self._members.alive(), {**added, index: node}))
            try:
                await self._ask(node, handover(job.part, index, shards, table))
            except LockboxError as error:
                log.info("repair.handover_failed", node=node.hex()[:8], reason=str(error.code))
                failure = error
                if error.code is ErrorCode.CONFLICT:
                    await self._learn(job, [node])  # it holds another index, which our table did not say
            else:
                return holder
        assert failure is not None
        raise failure

    async def _tell(self, job: _Job, added: Mapping[int, NodeId]) -> None:
        """The new table, to ourselves durably and to every live sibling that can be reached."""
        part = job.part
        entries = table_with(part.entries, self._members.alive(), added)
        table = HolderTable(part.address, part.version, part.descriptor_hash, entries)
        await settled(_merging(self._store, [table]))
        told = HolderTable(part.address, part.version, part.descriptor_hash, tellable(entries))
        others = dict.fromkeys([*job.seen.holders(), *added.values()])
        async with trio.open_nursery() as nursery:
            for node in others:
                if node != self._members.own:
                    nursery.start_soon(self._tell_one, node, TellHolders([told], None))

    async def _tell_one(self, node: NodeId, message: TellHolders) -> None:
        try:
            await self._ask(node, message)
        except LockboxError as error:
            log.info("repair.tell_failed", node=node.hex()[:8], reason=str(error.code))

    async def _ask(self, node: NodeId, message: Message) -> Message:
        contact = self._members.contact(node)
        if contact is None:
            raise PeerUnreachable("this holder is no longer among the members")
        with trio.move_on_after(self._params.request_timeout_s):
            return await self._pool.request(contact, message)
        raise PeerUnreachable(f"no answer within {self._params.request_timeout_s} s")

    async def _compute(self, work: Callable[[], T], job: _Job) -> T:
        """In a worker when it takes longer than getting there."""
        if job.descriptor.shard_bytes * len(job.descriptor.groups) <= INLINE_BYTES_MAX:
            return work()
        return await self._workers.run(work)


def handover(part: StripePart, index: int, shards: list[bytes], table: list[HolderEntry]) -> PutStripe:
    """What asks a new holder to keep index `index`: all that the owner signed goes along."""
    return PutStripe(part.descriptor, list(part.slots), index, shards, table, part.renewal)


def _merging(store: ShardStore, tables: Sequence[HolderTable]) -> Callable[[Answer[Merged]], None]:
    return lambda answer: store.merge(tables, (), answer)


def _is_genuine(descriptor: Descriptor, index: int, shards: Sequence[bytes]) -> bool:
    """Whether these are the shards that the owner signed for `index`, one of every group."""
    ids = shard_ids_at(descriptor, index)
    return len(ids) == len(shards) and all(
        root(shard, descriptor.leaf_bytes) == shard_id for shard, shard_id in zip(shards, ids, strict=True)
    )


def _rebuild(job: _Job, have: Mapping[int, Sequence[bytes]]) -> Parts:
    """The missing parts from k verified ones, verified again: ShardCorrupt when the owner's own ids disagree."""
    descriptor, missing = job.descriptor, job.seen.missing
    coder = code(descriptor.k, descriptor.n)
    rebuilt: Parts = {index: [] for index in missing}
    for group in range(len(descriptor.groups)):
        present = {index: shards[group] for index, shards in have.items()}
        for index, shard in zip(missing, coder.rebuild(present, missing), strict=True):
            rebuilt[index].append(bytes(shard))
    if not all(_is_genuine(descriptor, index, shards) for index, shards in rebuilt.items()):
        raise ShardCorrupt("rebuilt shards do not have the ids that the owner signed")
    return rebuilt
