"""Empties this node for good: every part goes to another holder, who shows it, and only then is dropped here.

The operator's word is noted in the store, so a drain goes on after a restart; its siblings hear it from our record and
place nothing here, and we refuse what comes all the same. We hand over what we have ourselves, without waiting for a
hold-off and without fetching k others; what a sibling brought elsewhere meanwhile is only let go. Passes over all parts
follow one another until none is left: then a receipt is signed. Whatever nobody takes stays and is tried again.
A doubted view holds everything back, as it does repairs. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgpack
import structlog
import trio

from lockbox_node.core.leaving import Pace
from lockbox_node.errors import LockboxError, PeerUnreachable, ShardCorrupt
from lockbox_node.ports import ShardStore, StripeSummary, WallClock, settled
from lockbox_node.services.announcing import NodeState
from lockbox_node.services.yielding import Why, Yielder
from protocol.drains import DrainReceipt
from protocol.errors import RemoteProtocolError
from protocol.messages import Signed
from protocol.records import Descriptor, parse, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lockbox_node.core.repair import RepairParams
    from lockbox_node.ports import SlotView
    from lockbox_node.services.announcing import Operational
    from lockbox_node.services.mending import Mender
    from lockbox_node.services.rebuilding import Rebuilder

NOTE = "drain"
PAGE = 256
START_S = 5.0  # a node that goes on with a drain after its start does not know everybody yet
AGAIN_S = 15.0  # between two passes
TICK_S = 1.0  # while it may not go on
REMEMBER_S = 5.0  # what was handed over since is not in the receipt if the machine stops

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DrainFigures:
    """Where the drain stands. `left_s` None = nobody can say."""

    parts: int  # shown by others and dropped here
    shard_bytes: int
    parts_left: int
    bytes_left: int
    bytes_per_s: float
    left_s: float | None
    stuck: Mapping[str, int]  # error code -> parts that could not go in the last pass
    passes_idle: int  # so many passes, one after the other, moved nothing though something is left
    waiting: str  # why nothing is moved now; '' while it goes on
    receipt: Signed | None


class Hands(Protocol):
    """What a drain needs of `services.rejoining`."""

    rebuilder: Rebuilder
    mender: Mender

    def unconfirmed(self) -> bool:
        """Whether this node was restored and is still asking its siblings."""
        ...


class View(Protocol):
    """What a drain needs of `services.healing`."""

    @property
    def doubted(self) -> bool:
        """Whether the view of the members is no ground to move anything on."""
        ...


class Draining:
    """One per node. `announce` makes our state known."""

    def __init__(
        self,
        store: ShardStore,
        rejoining: Hands,
        healing: View,
        announce: Callable[[NodeState], None],
        identity: Operational,
        clock: WallClock,
        params: RepairParams,
    ) -> None:
        self._store = store
        self._rejoining = rejoining
        self._rebuilder = rejoining.rebuilder
        self._yielder = Yielder(store, rejoining.mender)
        self._announce = announce
        self._healing = healing
        self._identity = identity
        self._clock = clock
        self._params = params
        self._active, self._began_unix_s, self._parts, self._bytes, self._receipt = _noted(store.notes)
        self._pace = Pace(trio.current_time())
        self._stuck: Counter[str] = Counter()
        self._passes_idle = 0
        self._remembered_at = -math.inf
        self._wake = trio.Event()
        self._noting = trio.Lock()  # the operator's last word is the last one in the store

    @property
    def active(self) -> bool:
        """Whether the node is being drained, or was."""
        return self._active

    @property
    def state(self) -> NodeState:
        """What our record says: with a broken store nothing should come either."""
        return NodeState.DRAINING if self._active or self._store.broken else NodeState.ACTIVE

    @property
    def figures(self) -> DrainFigures | None:
        """None when the node is not being drained."""
        if not self._active:
            return None
        kept, now = self._store.figures(), trio.current_time()
        left_s = self._pace.left_s(kept.logical_bytes, now) if kept.logical_bytes else 0.0
        return DrainFigures(
            self._parts,
            self._bytes,
            kept.stripes - kept.trash_stripes,
            kept.logical_bytes,
            self._pace.bytes_per_s(now),
            left_s if not self._passes_idle else None,
            dict(self._stuck),
            self._passes_idle,
            self._waiting(),
            self._receipt,
        )

    async def begin(self) -> None:
        """Drain from now on, over restarts; one under way goes on. LockboxError when the store takes no writes."""
        if self._store.broken:
            raise LockboxError(
                f"the store is read-only: {self._store.broken}; its siblings take over what is here",
                "mend the disk and start the node again, then drain it",
            )
        async with self._noting:
            if not self._active:
                began, self._parts, self._bytes, self._receipt = self._clock.now_unix_s(), 0, 0, None
                self._began_unix_s = int(began)
                await self._note()
                self._active = True
                self._passes_idle, self._pace = 0, Pace(trio.current_time())
                self._announce(self.state)
                log.info("drain.begun", parts=self._store.figures().stripes)
        self._wake.set()

    async def end(self) -> bool:
        """Take new parts again; whether there was a drain. What was handed over stays where it is."""
        async with self._noting:
            if not self._active:
                return False
            self._active = False  # from now on no lane drops anything
            try:
                await settled(partial(self._store.note, NOTE, b""))
            except BaseException:
                self._active = True  # the note still says so
                raise
        self._receipt = None
        self._stuck.clear()
        self._announce(self.state)
        log.info("drain.ended", parts=self._parts)
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled: what is under way then begins anew at the next start."""
        task_status.started()
        if self._active:
            await trio.sleep(START_S)
        while True:
            if self._active and not self._waiting():
                try:
                    await self._pass()
                except LockboxError as error:
                    log.warning("drain.pass_failed", reason=str(error.code))
            nap_s = math.inf if not self._active else TICK_S if self._waiting() else AGAIN_S
            with trio.move_on_after(nap_s):
                await self._wake.wait()
            self._wake = trio.Event()

    def _waiting(self) -> str:
        if self._store.broken:
            return f"the store is read-only: {self._store.broken}"
        if self._rejoining.unconfirmed():
            return "the node was restored and is asking its siblings what it missed"
        if self._healing.doubted:
            return "too many members went at once, so the view of the network is doubted"
        return ""

    async def _pass(self) -> None:
        """Every part once, `in_flight_max` at a time."""
        before, stuck = self._parts, Counter[str]()
        async with trio.open_nursery() as lanes:
            complete = await self._start_lanes(lanes, stuck)
        kept = self._store.figures()
        left = kept.stripes - kept.trash_stripes
        if complete and self._active:
            self._stuck = stuck
            self._passes_idle = self._passes_idle + 1 if left and self._parts == before else 0
            await self._conclude(left)

    async def _start_lanes(self, lanes: trio.Nursery, stuck: Counter[str]) -> bool:
        """A lane for each part; False when they may not go on before the end."""
        free, after = trio.Semaphore(self._params.in_flight_max), b""
        while True:
            page: list[StripeSummary] = await settled(partial(self._store.summaries, after, PAGE))
            for summary in page:
                if not summary.trashed:
                    await free.acquire()
                    if not self._active or self._waiting():
                        return False
                    lanes.start_soon(self._lane, summary, free, stuck)
            if len(page) < PAGE:
                return True
            after = bytes(page[-1].address) + bytes(page[-1].descriptor_hash)

    async def _conclude(self, left: int) -> None:
        if left:
            self._receipt = None
            log.info("drain.left", parts=left, stuck=self._stuck.total())
        elif self._receipt is None:
            ended = int(self._clock.now_unix_s())
            began, chain = min(self._began_unix_s, ended), list(self._identity.chain)
            receipt = DrainReceipt(self._identity.node_id, began, ended, self._parts, self._bytes, chain)
            self._receipt = sign(receipt, self._identity)
            log.info("drain.done", parts=self._parts, moved_bytes=self._bytes)
        else:
            return
        await self._remember()

    async def _lane(self, summary: StripeSummary, free: trio.Semaphore, stuck: Counter[str]) -> None:
        """One part, then as long a pause as its bytes cost."""
        moved_bytes = 0
        try:
            moved_bytes = await self._move(summary)
        except (LockboxError, RemoteProtocolError) as error:
            if not stuck[str(error.code)]:
                log.info("drain.stuck", reason=str(error.code))  # once a pass: there may be very many
            stuck[str(error.code)] += 1
        await trio.sleep(moved_bytes * self._params.in_flight_max / self._params.bytes_per_s)
        free.release()

    async def _move(self, summary: StripeSummary) -> int:
        """Hand over, have it shown, drop. Bytes that went to and fro. LockboxError when it has to stay for now."""
        if summary.corrupt:
            raise ShardCorrupt("this part is damaged", "healing mends it first")
        size = await self._shard_bytes(summary)
        if size is None:
            return 0
        handed, heir = await self._rebuilder.hand_over(summary)
        if not self._active:
            return handed
        if not await self._yielder.let_go(summary, Why.DRAINED, lambda: self._active, heir):
            if self.active and await self._shard_bytes(summary) is not None:
                raise PeerUnreachable("nobody was found who has the index of this part")
            return handed
        self._parts += 1
        self._bytes += size
        now = trio.current_time()
        self._pace.note(size, now)
        if now - self._remembered_at >= REMEMBER_S:
            await self._remember()
        return handed + size

    async def _shard_bytes(self, summary: StripeSummary) -> int | None:
        """Of the part as it stands here; None when it is gone."""
        view: SlotView = await settled(partial(self._store.look, summary.address))
        for part in view.parts:
            if part.descriptor_hash == summary.descriptor_hash:
                descriptor = parse(part.descriptor, Descriptor)
                return descriptor.shard_bytes * len(descriptor.groups)
        return None

    async def _remember(self) -> None:
        """How far the drain is, unless it was ended meanwhile."""
        async with self._noting:
            if self._active:
                await self._note()

    async def _note(self) -> None:
        self._remembered_at = trio.current_time()
        signed = self._receipt
        said = (self._began_unix_s, self._parts, self._bytes, signed and (signed.body, signed.signature))
        await settled(partial(self._store.note, NOTE, msgpack.packb(said)))


def _noted(notes: Mapping[str, bytes]) -> tuple[bool, int, int, int, Signed | None]:
    """Whether a drain was begun before this start, when, how many parts and bytes went, and its receipt."""
    note = notes.get(NOTE, b"")
    if not note:
        return False, 0, 0, 0, None
    try:
        began, parts, shard_bytes, signed = msgpack.unpackb(note)
        receipt = None if signed is None else Signed(bytes(signed[0]), bytes(signed[1]))
        return True, int(began), int(parts), int(shard_bytes), receipt
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        log.warning("drain.note_unreadable")
        return True, 0, 0, 0, None
