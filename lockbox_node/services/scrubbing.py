"""Scrubs the store: reads everything once in a cycle, so that damage is found while siblings can still mend it.

Drives `core.scrub_pace` over `ShardStore.check`; what a step finds goes its way by the store's `on_corrupt`, as for
any read. The operator may pause, resume, or start a pass at once; all of it outlives a restart. A crash loses at most
what was checked since the last note, which is then checked again. Source: DESIGN, Storage.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.scrub_pace import ScrubParams, ScrubState, decoded
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, WallClock, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SCRUB_NOTE = "scrub"
MOMENT_S = 0.001  # what is left of a sum may be too little for any clock to pass
BROKEN_WAIT_S = 60.0  # a store that is read-only cannot quarantine

log = structlog.get_logger()


class Scrubber:
    """One store's scrub. `parts`, `corrupt`: since the start, over all passes."""

    def __init__(
        self,
        store: ShardStore,
        uptime_s: Callable[[], float],
        clock: WallClock,
        rng: Random,
        params: ScrubParams | None = None,
    ) -> None:
        self.parts = self.corrupt = 0
        self._store, self._uptime_s, self._clock, self._rng = store, uptime_s, clock, rng
        self._params = params or ScrubParams()
        self._state = self._opened(store.notes.get(SCRUB_NOTE))
        self._noted_at = trio.current_time()
        self._noted_parts = 0  # of `parts`
        self._told = trio.Event()  # the operator spoke

    @property
    def state(self) -> ScrubState:
        """Where it stands."""
        return self._state

    @property
    def word(self) -> str:
        """paused, running, waiting (for the next cycle) or stopped (the store is read-only)."""
        if self._state.paused:
            return "paused"
        if self._store.broken:
            return "stopped"
        return "running" if self._state.running else "waiting"

    @property
    def due_in_s(self) -> float:
        """Uptime until the next pass begins by itself; 0 while one is under way."""
        return 0.0 if self._state.running else self._state.due_in_s(self._uptime_s())

    async def start_now(self) -> int:
        """Begin a whole pass at once; one that was asked for and is under way goes on. The number of the pass."""
        if self._store.broken:
            raise LockboxError(f"the store is read-only: {self._store.broken}", "mend the disk and restart the node")
        if self._state.running and self._state.at_once:
            await self.resume()
        else:
            await self._change(self._begun(at_once=True))
        return self._state.number

    async def pause(self) -> None:
        """Stand still until `resume`, over restarts too."""
        await self._change(replace(self._state, paused=True))

    async def resume(self) -> None:
        """Go on where it stood."""
        await self._change(replace(self._state, paused=False))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Scrub until cancelled."""
        task_status.started()
        while True:
            if self._state.paused:
                await self._rest(float("inf"))
            elif self._store.broken:
                await self._rest(BROKEN_WAIT_S)
            elif self._state.running:
                await self._rest(await self._step())
            elif self.due_in_s > MOMENT_S:
                await self._rest(self.due_in_s)
            else:
                self._state = self._begun()

    def _opened(self, kept: bytes | None) -> ScrubState:
        """Where the last run stood; the beginning of the first pass when nobody knows."""
        known = None if kept is None else decoded(kept, self._uptime_s())
        return known or ScrubState(1, self._uptime_s(), self._params.cycle_s(self._rng))

    def _begun(self, *, at_once: bool = False) -> ScrubState:
        return self._state.begun(self._uptime_s(), self._params.cycle_s(self._rng), at_once=at_once)

    async def _change(self, state: ScrubState) -> None:
        """The operator's word: it holds at once, and once it is noted it outlives a restart. LockboxError if not."""
        self._state = state
        self._told.set()
        await self._note()

    async def _rest(self, seconds: float) -> None:
        """Wait, but not once the operator has spoken."""
        with trio.move_on_after(seconds):
            await self._told.wait()
        if self._told.is_set():
            self._told = trio.Event()

    async def _step(self) -> float:
        """Check the next parts; how long to rest then."""
        before, began = self._state, trio.current_time()
        try:
            checked = await settled(partial(self._store.check, before.cursor, self._params.step_parts))
        except LockboxError as error:
            log.debug("scrub.waits", reason=error.message)
            return self._params.busy_wait_s
        self.parts += checked.parts
        self.corrupt += checked.corrupt
        if self._state.number != before.number:  # another pass was begun meanwhile
            return 0.0
        self._state = self._state.stepped(checked.after, checked.parts, checked.checked_bytes, checked.corrupt)
        if checked.done:
            self._finish()
        rest_s = self._state.rest_s(trio.current_time() - began, self._uptime_s(), self._params)
        await self._note_if_due(0.0 if checked.done else rest_s, over=checked.done)
        return 0.0 if checked.done else rest_s

    def _finish(self) -> None:
        state = self._state = self._state.finished(self._clock.now_unix_s())
        log.info(
            "scrub.finished", number=state.number, parts=state.parts, bytes=state.checked_bytes, corrupt=state.corrupt
        )

    async def _note_if_due(self, rest_s: float, *, over: bool) -> None:
        """Note the cursor before a long rest, at the end, and at least every 30 s or 1000 parts."""
        params, since_s = self._params, trio.current_time() - self._noted_at
        due = over or self.parts - self._noted_parts >= params.note_every_parts
        if not due and since_s + rest_s < params.note_every_s:
            return
        try:
            await self._note()
        except LockboxError as error:  # busy or broken: noted after a later step
            log.debug("scrub.not_noted", reason=error.message)

    async def _note(self) -> None:
        parts = self.parts
        await settled(partial(self._store.note, SCRUB_NOTE, self._state.encoded()))
        self._noted_at, self._noted_parts = trio.current_time(), parts
