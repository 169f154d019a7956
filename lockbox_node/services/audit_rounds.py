"""The scheduled audits of one node: once in a period, for each of its stripes, the sibling that the draw gave it.

Walks over our own parts (core.audit_pace), challenges the ward of each (core.audit_draw), and keeps what failed
(core.audit_findings), so that healing counts the part as missing and a denied loss costs standing. Who showed nothing
is pinged, asked again later with more time, and believed to have lost the part only after several times. Who says that
it has no such part is told our table: then it mends itself. While our view is doubted, or our own parts are, nobody is
judged. Source: DESIGN, Verify / audit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from lockbox_node.core.audit import Verdict, proof_bytes
from lockbox_node.core.audit_draw import asked_first, day_of, point_of, ring_of
from lockbox_node.core.audit_findings import Findings, Key, Slot, Turn
from lockbox_node.core.audit_pace import END, KEY_BYTES, AuditParams, Walk
from lockbox_node.core.audit_standing import Standings
from lockbox_node.core.repair import current_indices, possible, tellable
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, SlotView, StripePart, StripeSummary, settled
from lockbox_node.services.challenging import Challenger, Connections, Part, Shown
from lockbox_node.services.patience import Patience
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import ID_BYTES, Address, NodeId
from protocol.messages import HolderTable
from protocol.records import open_descriptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lockbox_node.ports import Entropy
    from lockbox_node.rpc.pool import Contact
    from protocol.records import Descriptor, NodeRecord

PAGE = 64  # parts looked up at once
REST_MIN_S, REST_MAX_S = 1.0, 60.0  # between two looks at what is due
LOOKS_MIN = 8  # in a period: what was put meanwhile may be due sooner
PAUSED_S = 5.0
WARDS_MAX = 4  # of one index, asked in turn until one holds it

log = structlog.get_logger()


class Siblings(Protocol):
    """What audits need to know about the members; `services.discovery` gives it."""

    @property
    def own(self) -> NodeId:
        """Our node id."""
        ...

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Records of everybody believed alive, ourselves included."""
        ...

    def suspected(self, node: NodeId) -> bool:
        """Whether a member is not heard at the moment."""
        ...

    def contact(self, node: NodeId) -> Contact | None:
        """How to reach a member."""
        ...

    def nearest_nodes(self, target: bytes, count: int) -> list[NodeId]:
        """The nearest live nodes, ourselves included, nearest first."""
        ...


class Healer(Protocol):
    """What audits need of healing."""

    @property
    def doubted(self) -> bool:
        """Whether our view of the members is not to be trusted now."""
        ...

    def look_at(self, summary: StripeSummary) -> None:
        """A holder of this stripe failed to prove its part."""
        ...


@dataclass(slots=True)
class Pass:
    """A round that the operator asked for. `counts`: wards by verdict."""

    number: int = 0
    running: bool = False
    parts: int = 0  # that somebody is to be asked about: none that is trashed, or whose lease is over
    cut: bool = False  # not all were looked at
    counts: Counter[Verdict] = field(default_factory=Counter)


class AuditRounds:
    """One per node. `counts`: challenges by verdict; `skipped`: parts whose ward could not be asked now; `overflow`:
    failures for which there was no room.
    """

    def __init__(
        self,
        store: ShardStore,
        pool: Connections,
        siblings: Siblings,
        tell: Callable[[NodeId, HolderTable], Awaitable[None]],
        entropy: Entropy,
        now_unix_s: Callable[[], float],
        healing: Healer,
        unconfirmed: Callable[[], bool],
        start: float,
        params: AuditParams,
    ) -> None:
        """`unconfirmed`: whether we may hold what is stale; `start`, 0 to 1: where on the round to begin."""
        self._store, self._siblings, self._tell = store, siblings, tell
        self._entropy, self._now_unix_s, self._params = entropy, now_unix_s, params
        self._healing, self._unconfirmed, self._start = healing, unconfirmed, start
        self._patience = Patience(pool, siblings.contact, entropy)
        self._challenger = Challenger(pool, siblings.contact, self._patience.round_trip_s, entropy)
        self._lanes = trio.CapacityLimiter(params.in_flight_max)
        self._next_at = 0.0
        self._told = trio.Event()
        self._asked_for = trio.Event()
        self._walk: Walk | None = None
        self._next: bytes | None = b""  # the part that is due next; None = none on this round
        self.findings, self.standings = Findings(params), Standings(params)
        self.counts: Counter[Verdict] = Counter(dict.fromkeys(Verdict, 0))
        self.skipped = self.overflow = self.proof_bytes = 0
        self.last = Pass()

    @property
    def params(self) -> AuditParams:
        """By which it works."""
        return self._params

    @property
    def word(self) -> str:
        """off, paused (nobody can be judged now) or on."""
        return "off" if not self._params.enabled else "paused" if self._doubted() else "on"

    def _doubted(self) -> bool:
        """Whether we can judge nobody now: we do not trust our view of the network, or what we hold ourselves."""
        return self._healing.doubted or bool(self._store.broken) or self._unconfirmed()

    def excluded(self) -> frozenset[NodeId]:
        """Who may be given nothing new, in our eyes."""
        return self.standings.excluded(self._siblings.alive(), trio.current_time())

    def obey(self, params: AuditParams) -> None:
        """Work by these from now on."""
        if self._walk is not None and params.period_s != self._params.period_s:
            self._walk.retime(params.period_s, trio.current_time())
        self._params = params
        self.findings.obey(params)
        self.standings.obey(params)
        self._told.set()

    def start_now(self) -> int:
        """Begin a whole pass at once; one that is under way goes on. The number of the pass. LockboxError."""
        if self._doubted():
            raise LockboxError("this node doubts its view of the network, and judges nobody now", "try again later")
        if not self.last.running:
            self.last = Pass(self.last.number + 1, running=True)
            self._asked_for.set()
        return self.last.number

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as lanes:
            lanes.start_soon(self._passes)
            task_status.started()
            await trio.sleep(self._params.first_s)
            self._walk = walk = Walk(self._start, trio.current_time(), self._params.period_s)
            while True:
                await self._rest(walk)
                if self.word != "on":
                    continue
                await self._ask_again(lanes)
                try:
                    await self._go_on(walk, lanes)
                except LockboxError as error:
                    log.debug("audit.waits", reason=str(error.code))

    async def _rest(self, walk: Walk) -> None:
        """Until something may be due, a ward failed, or other parameters hold."""
        now, params = trio.current_time(), self._params
        rest_s = REST_MAX_S if not params.enabled else PAUSED_S
        if self.word == "on":
            due_s = min(walk.due_in_s(self._next, now), self.findings.next_at() - now)
            rest_s = max(REST_MIN_S, min(REST_MAX_S, params.period_s / LOOKS_MIN, due_s))
        with trio.move_on_after(rest_s):
            await self._told.wait()
            self._told = trio.Event()

    # What is due

    async def _go_on(self, walk: Walk, lanes: trio.Nursery) -> None:
        bound = walk.bound(trio.current_time())
        page = await settled(partial(self._store.summaries, walk.cursor, PAGE))
        for summary in page:
            self._next = key = _key(summary)
            if key > bound:
                return
            walk.cursor = key
            await self._begin(lanes, partial(self._audit, summary, None))
        if len(page) < PAGE:
            self._next = None
        if not page and bound == END:
            walk.turn(trio.current_time())

    async def _ask_again(self, lanes: trio.Nursery) -> None:
        for key in self.findings.due(trio.current_time(), PAGE):
            await self._begin(lanes, partial(self._audit_again, key))

    async def _passes(self) -> None:
        """The rounds that the operator asks for: as fast as the budgets allow."""
        while True:
            await self._asked_for.wait()
            self._asked_for = trio.Event()
            await self._pass(self.last)
            self.last.running = False

    async def _pass(self, figures: Pass) -> None:
        after: bytes | None = b""
        async with trio.open_nursery() as lanes:
            while after is not None:
                try:
                    page = await settled(partial(self._store.summaries, after, PAGE))
                except LockboxError as error:
                    log.warning("audit.pass_cut", reason=str(error.code))
                    figures.cut = True
                    break
                for summary in page:
                    await self._begin(lanes, partial(self._audit, summary, figures))
                after = _key(page[-1]) if len(page) == PAGE else None

    async def _begin(self, lanes: trio.Nursery, work: Callable[[], Awaitable[None]]) -> None:
        """Start it in a lane, once one is free."""
        token = object()
        await self._lanes.acquire_on_behalf_of(token)
        lanes.start_soon(self._in_lane, token, work)

    async def _in_lane(self, token: object, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (LockboxError, RemoteProtocolError) as error:
            self.skipped += 1
            log.debug("audit.skipped", reason=str(error.code))
        finally:
            self._lanes.release_on_behalf_of(token)

    # One audit

    async def _audit(self, summary: StripeSummary, asked_for: Pass | None) -> None:
        """Have a holder of the index that we audit show its part; the next one, if it cannot."""
        if summary.trashed:
            return
        part = await self._part((summary.address, summary.descriptor_hash))
        if part is None:
            return
        if asked_for is not None:
            asked_for.parts += 1
        wards = self._wards(part)
        self.skipped += not wards
        for ward in wards[:WARDS_MAX]:
            if self._postponed((part.address, part.descriptor_hash, ward)):
                continue
            verdict = await self._judge(part, ward, self._holders(part)[ward])
            if asked_for is not None and verdict is not None:
                asked_for.counts[verdict] += 1
            if verdict is Verdict.HELD:
                return

    async def _audit_again(self, key: Key) -> None:
        """Ask a ward that failed once more; no more when it need not hold the part any longer."""
        *slot, ward = key
        part = await self._part((slot[0], slot[1]))
        holders = {} if part is None else self._holders(part)
        if part is None or ward not in holders:
            self.findings.forget(key)
            return
        failed = self.findings.at(*slot)
        if not any(index == holders[ward] and node not in failed for node, index in holders.items()):
            self.findings.unsettle(key)
        elif self.findings.settle(key, trio.current_time()):
            return
        if not self._postponed(key):
            await self._judge(part, ward, holders[ward])

    def _postponed(self, key: Key) -> bool:
        """Whether a ward that the members do not hear is asked later: one word of suspicion exempts nobody."""
        if not self._siblings.suspected(key[2]):
            return False
        self._entropy.fill(drawn := bytearray(1))
        if not self.findings.postpone(key, trio.current_time(), drawn[0] / 256):
            return False
        self.skipped += 1
        self._told.set()
        return True

    async def _part(self, slot: Slot) -> StripePart | None:
        """What we hold of a slot identity, without its shards; None when nothing that is still leased."""
        view: SlotView = await settled(partial(self._store.look, Address(slot[0])))
        part = next((part for part in view.parts if part.descriptor_hash == slot[1]), None)
        return None if part is None or part.lease_until_unix_s <= self._now_unix_s() else part

    def _holders(self, part: StripePart) -> dict[NodeId, int]:
        """The live ones by our table, each with its index; of ourselves we know better than any table."""
        alive, n = self._siblings.alive(), tier_numbered(part.tier).n
        index_of = current_indices(possible(part.entries, n))
        index_of[self._siblings.own] = part.index
        return {node: index for node, index in index_of.items() if index < n and node in alive}

    def _wards(self, part: StripePart) -> list[NodeId]:
        """Who is said to hold the index that we audit today; who failed is asked again by itself."""
        holders, address = self._holders(part), part.address
        day = day_of(self._now_unix_s(), self._params.period_s)
        (drawer,) = self._siblings.nearest_nodes(point_of(address, day), 1)
        index = ring_of(address, day, drawer, holders.values()).ward_of(part.index)
        failed = self.findings.at(address, part.descriptor_hash)
        return [] if index is None else asked_first(holders, index, address, failed)

    async def _judge(self, part: StripePart, ward: NodeId, index: int) -> Verdict | None:
        descriptor = open_descriptor(part.descriptor)
        await self._paced(proof_bytes(descriptor))
        shown, denied = await self._ask(ward, part, descriptor, index)
        if not shown.asked:
            self.skipped += 1
            return None
        if shown.verdict is not Verdict.HELD and self._doubted():
            return shown.verdict  # what fails may be our own view
        key = (part.address, part.descriptor_hash, ward)
        busy = shown.refused is ErrorCode.BUSY
        turn = self.findings.take(key, shown.verdict, trio.current_time(), busy=busy)
        if turn is Turn.FOUND:
            self._found(part, ward, shown, denied)
        elif turn is Turn.ENDED:
            log.info("audit.ended", node=ward.hex()[:8])
        self.overflow += turn is Turn.OVERFLOW
        if shown.verdict is not Verdict.HELD:
            self._told.set()  # it is asked again sooner than the next part is due
        if shown.verdict is Verdict.MISSING or shown.refused is ErrorCode.ACCESS_DENIED:
            table = HolderTable(part.address, part.version, part.descriptor_hash, tellable(part.entries))
            await self._tell(ward, table)
        return shown.verdict

    def _found(self, part: StripePart, ward: NodeId, shown: Shown, denied: bool) -> None:
        log.warning("audit.failed", node=ward.hex()[:8], verdict=shown.verdict.value, denied=denied)
        if denied:
            self.standings.denied(ward, shown.verdict, trio.current_time())
        self._healing.look_at(
            StripeSummary(
                part.address, part.version, part.descriptor_hash, part.tier, part.index, False, part.entries,
                part.lease_until_unix_s,
            )
        )  # fmt: skip

    async def _ask(self, ward: NodeId, part: StripePart, descriptor: Descriptor, index: int) -> tuple[Shown, bool]:
        """What the ward shows, and whether it denies a loss by that."""
        asked = Part(part.address, part.descriptor_hash, descriptor, index)
        shown = await self._challenger.challenge(ward, asked)
        if not shown.asked:
            return shown, False
        self.counts[shown.verdict] += 1
        match shown.verdict:
            case Verdict.SILENT:
                return shown, await self._patience.answers(ward) and shown.refused is None
            case Verdict.CORRUPT:
                return shown, shown.refused is None
            case Verdict.HELD:
                self.proof_bytes += proof_bytes(descriptor)
                self._patience.forget(ward)
        return shown, False

    async def _paced(self, asked_bytes: int) -> None:
        """Wait until the budgets allow a question for so many bytes."""
        at = max(self._next_at, trio.current_time())
        self._next_at = at + self._params.rest_s(asked_bytes)
        await trio.sleep_until(at)


def _key(summary: StripeSummary) -> bytes:
    key = bytes(summary.address) + bytes(summary.descriptor_hash)
    assert len(key) == KEY_BYTES == 2 * ID_BYTES
    return key
