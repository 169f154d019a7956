"""One repair: fetch k shards of every group, rebuild what is missing, verify, hand over, tell the siblings.

Nothing is trusted: fetched and rebuilt shards must hash to the ids that the owner signed. Everything stays in memory
until the new holder has it durably. Repeating a repair does no harm: the same shards come out. Real and decoy groups
are alike here. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.leaving import seen_by, without_us
from lockbox_node.core.placement import Candidate, Kept, replacement
from lockbox_node.core.repair import Health, believable, current_indices, table_with, tellable
from lockbox_node.core.slots import tombstone_until
from lockbox_node.core.tiers import Tier, tier_numbered
from lockbox_node.errors import LockboxError, RequestRefused, ShardCorrupt, ShardMissing
from lockbox_node.ports import (
    Answer,
    Merged,
    ShardStore,
    SlotView,
    StripePart,
    StripeSummary,
    WallClock,
    settled,
)
from lockbox_node.services.sources import Parts, Sources, Wanted, view_of
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import Address, NodeId, address_of
from protocol.messages import NO_INDEX, FindHolders, HolderEntry, Holders, HolderTable, PutStripe, Signed
from protocol.records import Descriptor, NodeRecord, open_descriptor, open_tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = structlog.get_logger()


class OwnPartDamaged(ShardCorrupt):
    """Our own part of the stripe is not what was put: to be mended before others' parts are rebuilt from it."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What one repair works on."""

    tier: Tier
    part: StripePart
    descriptor: Descriptor
    seen: Health

    @property
    def wanted(self) -> Wanted:
        """What is fetched for it."""
        return Wanted(self.part.address, self.part.descriptor_hash, self.descriptor)


@dataclass(frozen=True, slots=True)
class _Placing:
    """Where one repair may place: `taken` = who holds an index now, `kept` = who stores one besides.

    `busy` are asked no more, `added` are the new holders. `hollow` say that they hold nothing: they lost their part, or
    never had it. If they have one after all, they refuse.
    """

    taken: dict[int, Candidate]
    kept: list[Kept]
    busy: set[NodeId]
    hollow: set[NodeId]
    added: dict[int, NodeId] = field(default_factory=dict)


class Rebuilder:
    """Repairs one stripe at a time; holds no state between repairs."""

    def __init__(self, store: ShardStore, sources: Sources, clock: WallClock) -> None:
        self._store = store
        self._sources = sources
        self._members = sources.members
        self._params = sources.params
        self._clock = clock

    async def rebuild(self, summary: StripeSummary) -> int:
        """Bring every missing index of the stripe back; bytes rebuilt (at least 1), 0 when nothing was missing.

        Raises OwnPartDamaged when ours must be mended first, LockboxError when some index could not be brought back;
        what could be is in place all the same.
        """
        job = await self._open(summary)
        if job is not None and job.seen.short:
            self._require_place(job)
            # Two stewards at once know of each other's new holders only by asking; a deletion may have passed us by.
            await self._learn(job, [node for _, node in job.seen.sources()])
            job = await self._open(summary)
        if job is None or not job.seen.short:
            return 0
        self._require_place(job)
        rebuilt = await self._bring(job)
        await self._hand_over(job, rebuilt)
        return max(1, job.descriptor.shard_bytes * len(job.descriptor.groups) * len(rebuilt))

    async def hand_over(self, summary: StripeSummary) -> tuple[int, NodeId | None]:
        """Bring our own index, whole here, to the holder that placement names, since we are leaving: (bytes, holder).

        Anybody may tell our table that it has our index, so what is told spares nothing: who has it answers at once.
        (0, None) when the stripe is gone, or nobody else takes it and somebody is said to have it. Nothing is rebuilt,
        nothing dropped here. Raises OwnPartDamaged, and LockboxError when nobody takes it.
        """
        told = False
        try:
            job, told = await self._leaving(summary)
            if job is not None:
                self._require_place(job)
                await self._learn(job, [node for _, node in job.seen.sources()])
                job, told = await self._leaving(summary)
            if job is None:
                return 0, None
            added = await self._hand_over(job, {job.part.index: list(job.part.shards)})
        except OwnPartDamaged:
            raise
        except LockboxError:
            if told:
                return 0, None
            raise
        return max(1, job.descriptor.shard_bytes * len(job.descriptor.groups)), added[job.part.index]

    async def _leaving(self, summary: StripeSummary) -> tuple[_Job | None, bool]:
        """The stripe without us, its only missing index ours; whether another live holder is said to have that."""
        job = await self._open(summary, outdated=True)  # a newer version here may be an update that was cut off
        if job is None:
            return None, False
        now = replace(summary, entries=job.part.entries, index=job.part.index, corrupt=False)
        seen = without_us(now, job.tier, view_of(self._members, summary))
        live = {index: nodes for index, nodes in seen.live.items() if index != job.part.index}
        left = replace(seen, live=live, missing=(job.part.index,))
        return replace(job, seen=left), job.part.index not in seen.missing

    def _require_place(self, job: _Job) -> None:
        """LockboxError when no index could be placed now: nothing is fetched for nothing."""
        going = self._placing(job)
        failure: LockboxError | None = None
        for index in job.seen.missing:
            try:
                self._next_holder(job, index, going)
            except LockboxError as error:
                failure = error
            else:
                return
        assert failure is not None
        raise failure

    async def _bring(self, job: _Job) -> Parts:
        """Every missing index: as it is from whoever still serves it out of place, else rebuilt from k others."""
        ours = {job.part.index: list(job.part.shards)}
        moved: Parts = {index: ours[index] for index in job.seen.displaced if index in ours}
        useless = self._sources.unproven(job.part.address, job.part.descriptor_hash) | {self._members.own}
        for index in job.seen.missing:
            for node in job.seen.going.get(index, ()):
                if index not in moved and node not in useless:
                    await self._sources.fetch_one(job.wanted, node, moved)
        lost = [index for index in job.seen.missing if index not in moved]
        if lost:
            have = await self._sources.fetch(job.wanted, ours | moved, job.seen.sources())
            moved |= await self._sources.rebuild(job.descriptor, have, lost)
        return {index: moved[index] for index in job.seen.missing}

    async def _open(self, summary: StripeSummary, *, outdated: bool = False) -> _Job | None:
        """The stripe as it stands now, with our own shards if they are good; None when it is gone, or `outdated`."""
        view: SlotView = await settled(lambda answer: self._store.look(summary.address, answer))
        if not outdated and any(part.version > summary.version for part in view.parts):
            return None
        try:
            part = await settled(partial(self._store.get, summary.address, summary.descriptor_hash))
        except ShardMissing:
            return None
        except ShardCorrupt as error:
            raise OwnPartDamaged(error.message, error.hint) from None
        tier = tier_numbered(part.tier)
        seen = seen_by(replace(summary, entries=part.entries, corrupt=False), tier, view_of(self._members, summary))
        return _Job(tier, part, open_descriptor(part.descriptor), seen)

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
            reply = await self._sources.ask(node, FindHolders(address))
            assert isinstance(reply, Holders), "the codec checked the type of the reply"
            tables = [
                HolderTable(address, table.version, table.descriptor_hash, believable(table.entries, node))
                for table in reply.tables
                if table.address == address
            ]
            if tables:
                await settled(merging(self._store, tables))
            if reply.tombstone is not None:
                await bury(self._store, address, reply.tombstone, self._clock.now_unix_s())
        except (LockboxError, RemoteProtocolError) as error:
            log.info("repair.learn_failed", node=node.hex()[:8], reason=str(error.code))

    async def _hand_over(self, job: _Job, rebuilt: Parts) -> dict[int, NodeId]:
        going = self._placing(job)
        failure: LockboxError | None = None
        for index, shards in rebuilt.items():
            try:
                going.taken[index] = await self._place_one(job, index, shards, going)
            except LockboxError as error:
                failure = error
            else:
                going.added[index] = NodeId(going.taken[index].node)
        if going.added:
            await self._tell(job, going.added)
        if failure is not None:
            raise failure
        return going.added

    def _placing(self, job: _Job) -> _Placing:
        """What placement must know: the nearest live holder of each index, and what the table says of all others."""
        index_of = current_indices(job.part.entries)
        alive = self._members.alive()
        taken = {index: _candidate(alive[nodes[0]]) for index, nodes in job.seen.live.items() if nodes[0] in alive}
        counted = {holder.node for holder in taken.values()}
        known = ((index, self._members.known(node)) for node, index in index_of.items() if node not in counted)
        kept = [(index, _candidate(record)) for index, record in known if record is not None and index < job.tier.n]
        busy = {node for _, node in job.seen.sources()} | {self._members.own}
        hollow = {node for node, index in index_of.items() if index == NO_INDEX}
        return _Placing(taken, kept, busy, hollow)

    def _next_holder(self, job: _Job, index: int, going: _Placing) -> Candidate:
        """The best candidate that was not asked yet, the hollow ones only when nobody else is left. LockboxError."""
        open_ones = [one for one in self._members.candidates() if one.node not in going.busy]
        better = [one for one in open_ones if one.node not in going.hollow]
        regions = self._members.regions
        try:
            return replacement(job.tier, job.part.address, better, going.taken, index, going.kept, regions)
        except LockboxError:
            if len(better) == len(open_ones):
                raise
        return replacement(job.tier, job.part.address, open_ones, going.taken, index, going.kept, regions)

    async def _place_one(self, job: _Job, index: int, shards: list[bytes], going: _Placing) -> Candidate:
        """Hand index `index` to the best candidate that takes it; those who do not are not asked again."""
        failure: LockboxError | None = None
        for _ in range(self._params.holders_tried_max):
            try:
                holder = self._next_holder(job, index, going)
            except LockboxError as error:
                raise failure or error from None
            node = NodeId(holder.node)
            going.busy.add(node)
            table = tellable(table_with(job.part.entries, self._members.alive(), {**going.added, index: node}))
            try:
                await self._sources.ask(node, handover(job.part, index, shards, table))
            except LockboxError as error:
                log.info("repair.handover_failed", node=node.hex()[:8], reason=str(error.code))
                failure = error
                if error.code is ErrorCode.CONFLICT:
                    await self._learn(job, [node])  # it holds another index, which our table did not say
                if not isinstance(error, RequestRefused):
                    going.kept.append((index, holder))  # its answer is missing, perhaps nothing else
            else:
                return holder
        assert failure is not None
        raise failure

    async def _tell(self, job: _Job, added: Mapping[int, NodeId]) -> None:
        """The new table, to ourselves durably, and to every live sibling but those that proved nothing."""
        part = job.part
        entries = table_with(part.entries, self._members.alive(), added)
        table = HolderTable(part.address, part.version, part.descriptor_hash, entries)
        await settled(merging(self._store, [table], first=True))
        told = HolderTable(part.address, part.version, part.descriptor_hash, tellable(entries))
        others = dict.fromkeys([*(node for _, node in job.seen.sources()), *added.values()])
        unproven = self._sources.unproven(part.address, part.descriptor_hash)
        await self._sources.tell([node for node in others if node not in unproven], told)


def _candidate(record: NodeRecord) -> Candidate:
    return Candidate(record.node, record.region, record.operator)


def handover(part: StripePart, index: int, shards: list[bytes], table: list[HolderEntry]) -> PutStripe:
    """What asks a new holder to keep index `index`: all that the owner signed goes along."""
    return PutStripe(part.descriptor, list(part.slots), index, shards, table, part.renewal)


def merging(
    store: ShardStore, tables: Sequence[HolderTable], *, first: bool = False
) -> Callable[[Answer[Merged]], None]:
    """Start of a merge into parts that are held here."""
    return lambda answer: store.merge((), tables, answer, first=first)


async def bury(store: ShardStore, address: Address, signed: Signed, now_unix_s: float) -> int:
    """Keep a tombstone that passed us by; its version. RemoteProtocolError when it is not the owner's."""
    tombstone = open_tombstone(signed)
    if address_of(tombstone.public_key) != address:
        raise RemoteProtocolError("a tombstone of another address")
    until = tombstone_until(tombstone, now_unix_s)

    def delete(answer: Answer[None]) -> None:
        store.delete(signed, address, tombstone.version, until, answer)

    await settled(delete)
    return tombstone.version
