"""The steward: finds held stripes that are short and has them repaired when it is our turn.

A death, or a member that is going, is looked up at once; a sweep over all stripes finds what was missed, and our own
damaged parts; siblings say what is missing here (`missing`). How long to wait, who acts and in which order is
`core.repair`; one repair is `services.rebuilding`, of our own parts `services.mending`. At most `in_flight_max` repairs
run, each lane paced to its share of `bytes_per_s`. A failed one is tried again a sweep later. A doubted view (`Guard`),
`pause` and a broken store stop new repairs. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.displaced import placed
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.repair import Cause, Guard, Health, RepairParams, current_indices, due_at, health, urgency
from lockbox_node.core.repair_figures import RepairFigures
from lockbox_node.core.tiers import TIERS, Tier, tier_numbered
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, StripeSummary, settled
from lockbox_node.services.rebuilding import OwnPartDamaged
from lockbox_node.services.yielding import Yielder
from protocol.errors import RemoteProtocolError
from protocol.ids import Address, DescriptorHash, NodeId

if TYPE_CHECKING:
    from lockbox_node.services.mending import Mender
    from lockbox_node.services.rebuilding import Rebuilder
    from lockbox_node.services.sources import MembersView
    from protocol.messages import HolderTable

FIRST_SWEEP_S = 30.0  # a node that has just started does not know everybody yet
PAGE = 256
AGAIN_S = 5.0  # after the store could not be looked through: it was busy, or its database is being rebuilt
LOST_TRIES_MAX = 5  # a part that is gone is then forgotten until a sibling tells of it again
TICK_S = 1.0  # while something is short or the view is doubted

log = structlog.get_logger()

Key = tuple[bytes, bytes]


@dataclass(slots=True)
class _Short:
    """A stripe that misses shards, each since when, or has ours too many; when a failed repair may be tried again."""

    summary: StripeSummary
    tier: Tier
    seen: Health
    since: dict[int, float]  # missing index -> when it was first found missing
    retry_at: float = -math.inf
    held: bool = True  # False: our part is gone, a sibling told
    tries: int = 0

    def due_at(self, params: RepairParams) -> float:
        """Our own damage is mended at once: nobody else sees it. All else waits for our turn.

        Holders that take turns at being away do not add up: the shard that is missing longest counts.
        """
        if self.summary.corrupt:
            return self.retry_at
        hold_off_s = params.hold_off(self.tier)
        return max(self.retry_at, due_at(min(self.since.values()), self.seen.rank, hold_off_s, self.seen.margin))

    @property
    def cause(self) -> Cause:
        """Why it is repaired."""
        return Cause.DAMAGE if self.summary.corrupt else self.seen.cause


class Healing:
    """One per node. `changes` brings MemberDead and MemberAlive; what it missed, the sweep finds."""

    def __init__(
        self,
        store: ShardStore,
        members: MembersView,
        rebuilder: Rebuilder,
        mender: Mender,
        params: RepairParams,
        guard: Guard,
        changes: trio.MemoryReceiveChannel[MemberDead | MemberAlive],
    ) -> None:
        self._store = store
        self._members = members
        self._rebuilder = rebuilder
        self._mender = mender
        self._yielder = Yielder(store, mender)
        self.params = params
        self._guard = guard
        self._changes = changes
        self._enabled = params.enabled
        self._short: dict[Key, _Short] = {}
        self._lost = 0  # of them, those that are gone here
        self._in_flight: set[Key] = set()
        self._lanes = 0
        self._ready: list[Key] = []  # most urgent last
        self._next_sweep = math.inf
        self._swept = self._closed = False
        self._nap = trio.CancelScope()
        self.repairs_begun = 0
        self.let_go = 0  # parts of ours that stood out of place and were dropped
        self.repairs_failed = 0
        self.figures = RepairFigures()

    @property
    def pending(self) -> int:
        """Stripes known to be short, those under repair included."""
        return len(self._short)

    @property
    def repairs_done(self) -> int:
        """Stripes that were brought back, or into place."""
        return self.figures.done.total()

    @property
    def left_s(self) -> float:
        """About how long what waits will take."""
        return self.figures.left_s(self.pending, self.params.in_flight_max, self.params.bytes_per_s)

    @property
    def enabled(self) -> bool:
        """Whether the operator lets it repair."""
        return self._enabled

    @property
    def active(self) -> bool:
        """Whether repairs may start: not paused, the view is trusted, and what is mended could be written."""
        return self._enabled and self._guard.trusted and not self._store.broken

    @property
    def doubted(self) -> bool:
        """Whether the guard holds repairs back."""
        return not self._guard.trusted

    def pause(self) -> None:
        """Start no further repairs; those under way end."""
        self._enabled = False

    def resume(self) -> None:
        """Repair again, and trust the view as it is: the operator's word."""
        self._enabled = True
        self._guard.resume()
        self._wake()

    def obey(self, params: RepairParams) -> None:
        """Work by these from now on. Of the operator's word and a change of `enabled` the later one counts."""
        if params.enabled != self.params.enabled:
            self._enabled = params.enabled
        self.params = params
        if self._next_sweep < math.inf:
            self._next_sweep = min(self._next_sweep, trio.current_time() + self._sweep_interval(TIERS))
        self._wake()

    def sweep_soon(self) -> None:
        """Look at all stripes now: something was found damaged."""
        self._next_sweep = -math.inf
        self._wake()

    def look_at(self, summary: StripeSummary) -> None:
        """Look at one stripe now: a holder failed to prove its part. Who says so knows nothing of our own damage."""
        known = self._short.get((bytes(summary.address), bytes(summary.descriptor_hash)))
        if known is not None and known.summary.corrupt:
            summary = replace(summary, corrupt=True)
        self._judge(summary, trio.current_time(), counted=False)
        self._wake()

    def missing(self, table: HolderTable) -> None:
        """A sibling believes that we hold this, and we do not: fetched like a damaged part of our own.

        A table does not say its tier; the smallest that has our index is near enough for the order of repairs.
        """
        key = (table.address, table.descriptor_hash)
        index = current_indices(table.entries).get(self._members.own)
        tier = next((tier for tier in TIERS if index is not None and index < tier.n), None)
        if index is None or tier is None or key in self._short or self._lost >= self.params.lost_max:
            return
        address, descriptor_hash = Address(table.address), DescriptorHash(table.descriptor_hash)
        summary = StripeSummary(
            address, table.version, descriptor_hash, tier.number, index, corrupt=True, entries=tuple(table.entries)
        )
        now, seen = trio.current_time(), self._seen(summary, tier)
        since = dict.fromkeys(seen.missing, now)
        self._short[key] = _Short(summary, tier, seen, since, now + self.params.lost_hold_s, False)
        self._lost += 1
        self._wake()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `changes` is closed, or cancelled."""
        now = trio.current_time()
        self._observe(now)
        self._next_sweep = min(self._next_sweep, now + min(FIRST_SWEEP_S, self._sweep_interval(TIERS)))
        async with trio.open_nursery() as lanes:
            task_status.started()
            while not self._closed:
                change = await self._next_change()
                await self._look(change)
                self._start_due(lanes)

    async def _next_change(self) -> MemberDead | MemberAlive | None:
        """What the channel brings, or None when something is due."""
        change: MemberDead | MemberAlive | None = None
        try:
            with trio.move_on_at(self._next_deadline(trio.current_time())) as self._nap:
                change = await self._changes.receive()
        except trio.EndOfChannel:
            self._closed = True
        return change

    def _wake(self) -> None:
        self._nap.deadline = -math.inf

    def _next_deadline(self, now: float) -> float:
        return min(self._next_sweep, now + TICK_S if self._short or self.doubted else math.inf)

    # What is short

    async def _look(self, change: MemberDead | MemberAlive | None) -> None:
        now = trio.current_time()
        self._observe(now)
        try:
            await self._look_through(change, now)
        except LockboxError as error:
            log.warning("repair.look_failed", reason=str(error.code))
            self._next_sweep = min(self._next_sweep, now + AGAIN_S)

    async def _look_through(self, change: MemberDead | MemberAlive | None, now: float) -> None:
        if change is not None and self._concerns(change):
            held: list[StripeSummary] = await settled(lambda answer: self._store.held_with(change.node, answer))
            for summary in held:
                if self._judge(summary, now):
                    await trio.lowlevel.checkpoint()  # as in a sweep
        if self._next_sweep <= now:
            await self._sweep(now)

    def _concerns(self, change: MemberDead | MemberAlive) -> bool:
        """Whether stripes may be short by it, or no longer: a return ends a hold-off, the next loss begins another."""
        return isinstance(change, MemberDead) or bool(self._short) or change.node in self._members.failing()

    def _observe(self, now: float) -> None:
        before = self._guard.trusted
        self._guard.observe(self._members.alive(), now, self._members.health())
        if before and not self._guard.trusted:
            log.warning("repair.doubted", members=len(self._members.alive()))
        elif not before and self._guard.trusted:
            log.info("repair.trusted", members=len(self._members.alive()))

    async def _sweep(self, now: float) -> None:
        self._next_sweep = math.inf  # what is asked for meanwhile brings it down again
        after = b""
        tiers: dict[int, Tier] = {}
        named: dict[NodeId, None] = {}
        self.figures.sweep_begins()
        while True:
            start = after
            page: list[StripeSummary] = await settled(lambda answer: self._store.summaries(start, PAGE, answer))  # noqa: B023
            for summary in page:
                tiers[summary.tier] = tier_numbered(summary.tier)
                if self._judge(summary, now):
                    await trio.lowlevel.checkpoint()  # what breaks the rules takes a search
                named.update(dict.fromkeys(_holders_named(summary)))
                self._mender.stand_by(summary)
            if len(page) < PAGE:
                break
            after = bytes(page[-1].address) + bytes(page[-1].descriptor_hash)
        self.figures.sweep_ends()
        if not self._swept:
            # Who stands in our tables but was never seen since we started may be cut off from us, like a loss.
            self._guard.observe([*named, *self._members.alive()], now, self._members.health())
            self._observe(now)
            self._swept = True
        self._next_sweep = min(self._next_sweep, now + self._sweep_interval(tuple(tiers.values()) or TIERS))

    def _sweep_interval(self, tiers: tuple[Tier, ...]) -> float:
        return min(self.params.sweep(tier) for tier in tiers)

    def _judge(self, summary: StripeSummary, now: float, *, counted: bool = True) -> bool:
        """Whether there is something to do about the stripe; `counted`: among what a sweep sees."""
        key = (bytes(summary.address), bytes(summary.descriptor_hash))
        known = self._short.get(key)
        if key in self._in_flight and known is not None:
            if counted:
                self.figures.saw(known.seen.margin)
            return False
        tier = tier_numbered(summary.tier)
        seen = self._seen(summary, tier)
        waiting = seen.missing or (summary.index,)
        if counted and not summary.trashed:
            self.figures.saw(seen.margin)
        if summary.trashed or not (seen.short or seen.surplus or summary.corrupt):
            self._forget(key)
            return False
        if known is not None:
            known.summary, known.seen = summary, seen
            known.since = {index: known.since.get(index, now) for index in waiting}
        elif len(self._short) - self._lost < self.params.short_max:
            self._short[key] = _Short(summary, tier, seen, dict.fromkeys(waiting, now))
        return True

    def _seen(self, summary: StripeSummary, tier: Tier) -> Health:
        members = self._members
        alive = members.alive()
        failing = members.failing_at(summary.address, summary.descriptor_hash)
        seen = health(summary, tier, alive, members.own, failing)
        return placed(seen, tier, summary.address, members.own, alive, members.regions)

    def _forget(self, key: Key) -> None:
        known = self._short.pop(key, None)
        self._lost -= known is not None and not known.held

    # Repairs

    def _start_due(self, lanes: trio.Nursery) -> None:
        now = trio.current_time()
        due = [
            (key, one)
            for key, one in self._short.items()
            if key not in self._in_flight and one.due_at(self.params) <= now
        ]
        # What is held comes first: what is said to be gone here rests on the word of one member.
        due.sort(
            key=lambda item: (not item[1].held, urgency(item[1].summary, item[1].tier, item[1].seen)), reverse=True
        )
        self._ready = [key for key, _ in due]
        while self._lanes < self.params.in_flight_max:
            key = self._take()
            if key is None:
                return
            self._lanes += 1
            lanes.start_soon(self._lane, key)

    def _take(self) -> Key | None:
        """The most urgent stripe that is due, now in flight; None when there is none or repair is held back."""
        while self.active and self._ready:
            key = self._ready.pop()
            if key in self._short:  # a sweep under way may have found it whole meanwhile
                self._in_flight.add(key)
                self.repairs_begun += 1
                return key
        return None

    async def _lane(self, first: Key) -> None:
        """Repair after repair, while something is ready."""
        key: Key | None = first
        while key is not None:
            rebuilt_bytes = await self._repair(self._short[key])
            self._in_flight.discard(key)
            await trio.sleep(rebuilt_bytes * self.params.in_flight_max / self.params.bytes_per_s)
            key = self._take()
        self._lanes -= 1

    async def _repair(self, short: _Short) -> int:
        """Bytes rebuilt."""
        summary = short.summary
        key = (bytes(summary.address), bytes(summary.descriptor_hash))
        began = trio.current_time()
        try:
            rebuilt = await self._rebuild(short)
        except (LockboxError, RemoteProtocolError) as error:
            self.repairs_failed += 1
            short.tries += 1
            short.retry_at = trio.current_time() + self.params.sweep(short.tier)
            why, margin, reason = short.cause.value, short.seen.margin, str(error.code)
            log.warning("repair.failed", tier=short.tier.name, cause=why, margin=margin, reason=reason)
            if not short.held and short.tries >= LOST_TRIES_MAX:
                self._forget(key)
            return 0
        self._forget(key)
        if rebuilt:
            cause, margin, now = short.cause, short.seen.margin, trio.current_time()
            self.figures.repaired(cause, margin, now - min(short.since.values()), now - began, rebuilt)
            log.info("repair.done", tier=short.tier.name, cause=cause.value, margin=margin, rebuilt_bytes=rebuilt)
        return rebuilt

    async def _rebuild(self, short: _Short) -> int:
        """Our own damage first: nothing is rebuilt from it."""
        summary = short.summary
        if summary.corrupt:
            return await self._mender.mend(summary)
        if short.seen.surplus:
            if await self._yielder.let_go(summary):
                self.let_go += 1
            return 0
        try:
            return await self._rebuilder.rebuild(summary)
        except OwnPartDamaged:
            return await self._mender.mend(replace(summary, corrupt=True))


def _holders_named(summary: StripeSummary) -> list[NodeId]:
    """The newest holder of each index."""
    newest: dict[int, tuple[int, bytes]] = {}
    for entry in summary.entries:
        newest[entry.index] = max(newest.get(entry.index, (-1, b"")), (entry.sequence, entry.node))
    return [NodeId(node) for _, node in newest.values()]
