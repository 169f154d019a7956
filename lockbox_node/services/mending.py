"""Brings back a part of our own that is damaged or gone: nobody needs to hand it to us, we fetch it ourselves.

The siblings are asked for the slot (descriptor, manifest slots, renewal, table), so it works when nothing readable is
left here; what they say counts only as far as the owner signed it. A tombstone, a version that replaces this one, a
lease that is over or another holder who has our index end it: then nothing comes back, and the siblings hear that we
hold nothing (`NO_INDEX`). They hear the same at once when damage is found, so that their margin is true, and our index
again when it is mended. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.repair import current_indices, is_named, last_index, line_of, siblings_of, tellable
from lockbox_node.core.slots import merge_entries
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused, ShardCorrupt, ShardMissing
from lockbox_node.ports import (
    Owner,
    ShardStore,
    StripePart,
    StripeSummary,
    WallClock,
    settled,
)
from lockbox_node.services.rebuilding import bury, merging
from lockbox_node.services.sources import Parts, Sources, Wanted, is_genuine
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import Address, DescriptorHash, NodeId, address_of, distance
from protocol.messages import NO_INDEX, GetSlot, HolderEntry, HolderTable, Signed, Slots, SlotState
from protocol.records import Descriptor, Renewal, descriptor_hash, open_descriptor, open_renewal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OWN_QUOTA_BYTES = 1 << 62  # nobody is charged for what a node mends of its own
LEASE_SLACK_S = 86_400.0  # beyond the longest of the tier, for clocks that differ; a sibling may show anything
REPORTS_MAX = 4096  # damaged parts whose siblings are still to be told; beyond it the repair itself tells

log = structlog.get_logger()


@dataclass(slots=True)
class _Found:
    """What the siblings know of a slot identity."""

    signed: Signed | None = None
    descriptor: Descriptor | None = None
    slots: tuple[bytes, ...] = ()
    renewal: Signed | None = None
    lease_until_unix_s: int = 0
    entries: tuple[HolderEntry, ...] = ()
    holders: dict[NodeId, int] = field(default_factory=dict)  # who answered that it holds which index
    strangers: set[NodeId] = field(default_factory=set)  # who hold something here, but not by a table that names us
    silent: set[NodeId] = field(default_factory=set)
    buried_version: int = -1  # of the highest tombstone that a sibling showed
    over: bool = False  # replaced by a version that a sibling holds


class Mender:
    """Mends one part at a time.

    `counts`: mended, renewed, buried, replaced, expired, yielded, unknown, reports, unreported.
    """

    def __init__(self, store: ShardStore, sources: Sources, clock: WallClock) -> None:
        self.counts: Counter[str] = Counter()
        self.sources = sources
        self._store = store
        self._sources = sources
        self._members = sources.members
        self._clock = clock
        self._reports: dict[tuple[Address, DescriptorHash], None] = {}
        self._unsaid: dict[tuple[bytes, bytes], StripeSummary] = {}  # held, and said to be given away
        self._wake = trio.Event()
        self.giving: set[tuple[bytes, bytes]] = set()  # (address, descriptor hash) of what is being let go just now
        self._speaking = trio.Lock()  # what we say of ourselves goes out in the order in which it became true

    def gives_away(self, address: bytes, wanted: bytes) -> bool:
        """Whether our part is being let go: until it is decided, nobody may rely on it."""
        return (bytes(address), bytes(wanted)) in self.giving

    # Self-report

    def report(self, address: Address, wanted: DescriptorHash) -> None:
        """Our part was found damaged: the siblings hear of it soon."""
        if len(self._reports) >= REPORTS_MAX:
            self.counts["unreported"] += 1
            return
        self._reports[address, wanted] = None
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell what was reported, until cancelled."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._reports or self._unsaid:
                async with self._speaking:
                    await self._report_next()
                async with self._speaking:
                    await self._say_next()

    async def _report_next(self) -> None:
        """The oldest of those not mended by now."""
        if not self._reports:
            return
        address, wanted = next(iter(self._reports))
        del self._reports[address, wanted]
        try:
            await self._report(address, wanted)
        except LockboxError as error:
            log.warning("mend.report_failed", reason=str(error.code))

    async def _report(self, address: Address, wanted: DescriptorHash) -> None:
        view = await settled(partial(self._store.look, address))
        table = next((table for table in view.tables if table.descriptor_hash == wanted), None)
        if table is not None and is_named(table.entries, self._members.own):
            self.counts["reports"] += 1
            await self._tell(table, table.entries, NO_INDEX)

    def stand_by(self, summary: StripeSummary) -> None:
        """Take back that we hold nothing if we were cut off before the part went: it stands here, and is kept."""
        key = (bytes(summary.address), bytes(summary.descriptor_hash))
        if summary.corrupt or summary.trashed or key in self.giving or len(self._unsaid) >= REPORTS_MAX:
            return
        if self._is_unsaid(summary.entries):
            self._unsaid[key] = summary
            self._wake.set()

    def _is_unsaid(self, entries: Sequence[HolderEntry]) -> bool:
        """Whether we say that we hold nothing, and a line of ours can still overrule that."""
        own = self._members.own
        silent = any(entry.node == own and entry.index == NO_INDEX for entry in entries)
        return silent and not is_named(entries, own) and is_named([*entries, line_of(entries, own, 0)], own)

    async def _say_next(self) -> None:
        """Of the oldest of those that are still here and not being let go."""
        if not self._unsaid:
            return
        key = next(iter(self._unsaid))
        summary = self._unsaid.pop(key)
        try:
            part = await self._whole(summary)
            if part is not None and key not in self.giving and self._is_unsaid(part.entries):
                await self._tell(summary, part.entries, part.index)
        except LockboxError as error:
            log.warning("mend.say_failed", reason=str(error.code))  # the next sweep finds it again

    async def say(self, table: HolderTable | StripeSummary, entries: Iterable[HolderEntry], index: int) -> None:
        """That we hold this index, or NO_INDEX, after all that we said before."""
        async with self._speaking:
            await self._tell(table, entries, index)

    async def _tell(self, table: HolderTable | StripeSummary, entries: Iterable[HolderEntry], index: int) -> None:
        """Our own line, to ourselves and to the live siblings."""
        entries = list(entries)
        line = line_of(entries, self._members.own, index)
        told = HolderTable(table.address, table.version, table.descriptor_hash, [line])
        await settled(merging(self._store, [told], first=True))  # a table that strangers filled has room for us
        alive = self._members.alive()
        await self._sources.tell([node for node in siblings_of(entries, self._members.own) if node in alive], told)

    # Mending

    async def mend(self, summary: StripeSummary) -> int:
        """Bring our part back; bytes rebuilt (at least 1), 0 when it is whole or need not be. LockboxError: later."""
        whole = await self._whole(summary)
        if whole is not None:
            if whole.lease_until_unix_s <= self._clock.now_unix_s():
                await self._prolong(summary)
            return 0
        try:
            return await self._mend(summary, await self._ask_siblings(summary))
        except LockboxError as error:
            failure = error
        if is_named(summary.entries, self._members.own):
            await self._tell(summary, summary.entries, NO_INDEX)
        raise failure

    async def _mend(self, summary: StripeSummary, found: _Found) -> int:
        if found.over:
            return 0
        # What a table says of the version is anybody's word, the descriptor's is the owner's.
        if found.buried_version >= (summary.version if found.descriptor is None else found.descriptor.version):
            self.counts["buried"] += 1
            return 0
        index = last_index(found.entries, self._members.own)
        if found.descriptor is None or index is None:
            return self._unknown(found)
        if max(found.lease_until_unix_s, found.descriptor.lease_until_unix_s) <= self._clock.now_unix_s():
            self.counts["expired"] += 1
            return 0
        failing = self._members.failing_at(summary.address, summary.descriptor_hash)
        told = {node: held for node, held in current_indices(found.entries).items() if node in found.strangers}
        if any(held == index and node not in failing for node, held in [*found.holders.items(), *told.items()]):
            await self._yield_to_other(summary, found)
            return 0
        if any(node in found.silent for node, held in current_indices(found.entries).items() if held == index):
            raise PeerUnreachable("the one who may have taken our place does not answer")
        return await self._fetch(summary, found, found.descriptor, index)

    async def _yield_to_other(self, summary: StripeSummary, found: _Found) -> None:
        """Another node has our index: we were replaced while we were away."""
        self.counts["yielded"] += 1
        await self._tell(summary, found.entries, NO_INDEX)
        # What is damaged here serves nobody.
        await settled(partial(self._store.drop, summary.address, summary.descriptor_hash))

    async def _whole(self, summary: StripeSummary) -> StripePart | None:
        try:
            return await settled(partial(self._store.get, summary.address, summary.descriptor_hash))
        except (ShardMissing, ShardCorrupt):
            return None

    async def _prolong(self, summary: StripeSummary) -> None:
        """Our part is in trash, or will be, and siblings still keep theirs: take the renewal that we missed."""
        found = await self._ask_siblings(summary)
        if found.over or found.renewal is None or found.lease_until_unix_s <= self._clock.now_unix_s():
            return
        wanted, until = summary.descriptor_hash, found.lease_until_unix_s
        await settled(partial(self._store.renew, found.renewal, summary.address, wanted, until))
        self.counts["renewed"] += 1

    def _unknown(self, found: _Found) -> int:
        """Nobody who answered knows that we should hold this."""
        if found.silent:
            raise PeerUnreachable("no sibling that answers knows this slot")
        self.counts["unknown"] += 1
        return 0

    async def _ask_siblings(self, summary: StripeSummary) -> _Found:
        """All live holders by our table, then those whom only the siblings know: one may have taken our place."""
        found, asked = _Found(), set[NodeId]()
        for _ in range(2):
            known = siblings_of([*summary.entries, *found.entries], self._members.own)
            alive = self._members.alive()
            async with trio.open_nursery() as nursery:
                for node in known:
                    if node in alive and node not in asked:
                        asked.add(node)
                        nursery.start_soon(self._ask_one, node, summary, found)
        return found

    async def _ask_one(self, node: NodeId, summary: StripeSummary, found: _Found) -> None:
        try:
            reply = await self._sources.ask(node, GetSlot(summary.address, None))
            assert isinstance(reply, Slots), "the codec checked the type of the reply"
            await self._take(node, reply, summary, found)
        except RequestRefused as error:
            # Denied: it holds something at this address, with a table that does not know us.
            (found.strangers if error.code is ErrorCode.ACCESS_DENIED else found.silent).add(node)
        except (LockboxError, RemoteProtocolError) as error:
            found.silent.add(node)
            log.info("mend.ask_failed", node=node.hex()[:8], reason=str(error.code))

    async def _take(self, node: NodeId, reply: Slots, summary: StripeSummary, found: _Found) -> None:
        """What one sibling said, checked. RemoteProtocolError."""
        if reply.tombstone is not None:
            version = await bury(self._store, summary.address, reply.tombstone, self._clock.now_unix_s())
            found.buried_version = max(found.buried_version, version)
        for state in reply.states:
            if descriptor_hash(state.descriptor) == summary.descriptor_hash:
                self._take_state(node, state, summary, found)
            elif _replaces(state.descriptor, summary):
                self.counts["replaced"] += not found.over
                found.over = True

    def _take_state(self, node: NodeId, state: SlotState, summary: StripeSummary, found: _Found) -> None:
        if found.descriptor is None:
            descriptor = open_descriptor(state.descriptor)
            if address_of(descriptor.public_key) != summary.address:
                raise RemoteProtocolError("a descriptor of another slot")
            tier = tier_numbered(descriptor.tier)
            if (descriptor.k, descriptor.n) != (tier.k, tier.n):
                raise RemoteProtocolError("a code that its tier does not have")
            if [sha256(slot).digest() for slot in state.slots] != descriptor.slot_hashes:
                raise RemoteProtocolError("slots that were not signed")
            found.descriptor, found.signed, found.slots = descriptor, state.descriptor, tuple(state.slots)
        if state.index >= found.descriptor.n:
            raise RemoteProtocolError("an index beyond n")
        if state.renewal is not None and state.renewal != found.renewal:
            renewal = _renewal_of(state.renewal, found.descriptor, summary.descriptor_hash)
            longest = self._clock.now_unix_s() + tier_numbered(found.descriptor.tier).lease_max_s + LEASE_SLACK_S
            if found.lease_until_unix_s < renewal.lease_until_unix_s <= longest:
                found.renewal, found.lease_until_unix_s = state.renewal, renewal.lease_until_unix_s
        ours = [entry for entry in state.entries if entry.node == self._members.own]
        found.entries = merge_entries(found.entries, tellable(state.entries), ours)
        found.holders[node] = state.index

    async def _fetch(self, summary: StripeSummary, found: _Found, descriptor: Descriptor, index: int) -> int:
        failing = self._members.failing_at(summary.address, summary.descriptor_hash)
        holders = sorted(found.holders, key=lambda node: (node in failing, distance(node, summary.address)))
        wanted = Wanted(summary.address, summary.descriptor_hash, descriptor)
        have: Parts = await self._sources.fetch(wanted, {}, [(found.holders[node], node) for node in holders])
        rebuilt = await self._sources.rebuild(descriptor, have, [index])
        assert is_genuine(descriptor, index, rebuilt[index])
        assert found.signed is not None
        own = self._members.own
        part = StripePart(
            summary.address,
            descriptor.version,
            summary.descriptor_hash,
            found.signed,
            descriptor.tier,
            max(descriptor.lease_until_unix_s, found.lease_until_unix_s),
            found.slots,
            index,
            tuple(rebuilt[index]),
            merge_entries(found.entries),
            found.renewal,
        )
        try:
            await settled(partial(self._store.put, part, descriptor.replaces, Owner(own, OWN_QUOTA_BYTES)))
        except RequestRefused as error:
            if error.code is ErrorCode.STALE:  # it was deleted or replaced here meanwhile
                return 0
            raise
        self._reports.pop((summary.address, summary.descriptor_hash), None)
        async with self._speaking:
            await self._take_back(summary, found, index)
        self.counts["mended"] += 1
        return max(1, descriptor.shard_bytes * len(descriptor.groups))

    async def _take_back(self, summary: StripeSummary, found: _Found, index: int) -> None:
        """That we lost it, if we have said so: before the siblings were asked, or since."""
        view = await settled(partial(self._store.look, summary.address))
        ours = [table.entries for table in view.tables if table.descriptor_hash == summary.descriptor_hash]
        entries = merge_entries(found.entries, *ours)
        if not is_named(entries, self._members.own):
            await self._tell(summary, entries, index)


def _replaces(signed: Signed, summary: StripeSummary) -> bool:
    """Whether this descriptor, if it is one of the same owner, takes the place of the slot. RemoteProtocolError."""
    descriptor = open_descriptor(signed)
    return (
        address_of(descriptor.public_key) == summary.address
        and descriptor.version > summary.version
        and summary.descriptor_hash in descriptor.replaces
    )


def _renewal_of(signed: Signed, descriptor: Descriptor, wanted: bytes) -> Renewal:
    """A renewal of exactly this slot. RemoteProtocolError."""
    renewal = open_renewal(signed)
    if (renewal.public_key, renewal.version) != (descriptor.public_key, descriptor.version):
        raise RemoteProtocolError("a renewal of another slot")
    if renewal.descriptor_hash != wanted:
        raise RemoteProtocolError("a renewal of another descriptor")
    return renewal
