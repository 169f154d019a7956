"""Ends leases: parts whose lease is over go to trash, and what lay there for 7 days of uptime goes for good.

Both only while the wall clock is believed (core.clock_trust), looked at again before every step of the store. Uptime
is that of the running store over all its starts, kept every minute with the wall time: a node that was off for a month
deletes nothing for a week after it is back, whatever its clock says, and its owners may still renew. What a crash
forgets of it only keeps trash longer. Source: DESIGN, Storage.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from lockbox_node.core.clock_trust import ClockTrust, ClockTrustParams, Noted, PeerClock, Trust
from lockbox_node.core.storage_params import LeaseParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, WallClock, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.rpc.connection import Connection

UPTIME_NOTE, WALL_NOTE = "uptime", "wall"

log = structlog.get_logger()


class Leases:
    """Drives the clock's judge and the store's garbage. `expired`, `emptied`: rows of the store since the start."""

    def __init__(
        self,
        store: ShardStore,
        clock: WallClock,
        connections: Callable[[], Sequence[Connection]],
        greet_anew: Callable[[bytes], None],
        params: LeaseParams | None = None,
        trust_params: ClockTrustParams | None = None,
    ) -> None:
        self.expired = self.emptied = 0
        self.trust = Trust(False, "nobody was asked for the time yet")
        self._store, self._clock = store, clock
        self._connections, self._greet_anew = connections, greet_anew
        self._params = params or LeaseParams()
        self._started = trio.current_time()
        self._uptime_before_s = _uptime_of(store.notes.get(UPTIME_NOTE))
        noted = _noted_of(store.notes.get(WALL_NOTE))
        self._judge = ClockTrust(trust_params or ClockTrustParams(), noted, clock.now_unix_s(), self._started)

    @property
    def trusted(self) -> bool:
        """Whether leases may end now."""
        return self.trust.trusted

    @property
    def reason(self) -> str:
        """Why they may not; '' when they may."""
        return self.trust.reason

    @property
    def uptime_s(self) -> float:
        """Of the running store, over all its starts."""
        return self._uptime_before_s + trio.current_time() - self._started

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look every minute, end leases every ten, until cancelled."""
        task_status.started()
        round_at = 0.0
        while True:
            await trio.sleep(self._params.look_every_s)
            self._believed_unix_s()
            self._note()
            if trio.current_time() >= round_at:
                round_at = trio.current_time() + self._params.leases_every_s
                await self._end_leases()

    def _believed_unix_s(self) -> float | None:
        """The wall time now, or None while it is not believed."""
        now, wall_unix_s, peers = trio.current_time(), self._clock.now_unix_s(), self._peers()
        trust = self._judge.look(wall_unix_s, now, peers)
        if trust.trusted != self.trust.trusted:
            log.info("clock.trust", trusted=trust.trusted, reason=trust.reason, votes=trust.votes)
        self.trust = trust
        if (node := self._judge.overdue(now, peers)) is not None:
            self._greet_anew(node)
        return wall_unix_s if trust.trusted else None

    def _peers(self) -> list[PeerClock]:
        return [
            PeerClock(one.peer.id, one.peer.operator, one.peer.clock_lead_s, one.opened) for one in self._connections()
        ]

    def _note(self) -> None:
        """Both in one commit. What cannot be noted, since the store is busy or broken, only keeps trash longer."""
        self._store.note(UPTIME_NOTE, msgspec.json.encode(self.uptime_s), _noted)
        self._store.note(WALL_NOTE, msgspec.json.encode(self._judge.noted), _noted)

    async def _end_leases(self) -> None:
        expired, emptied = self.expired, self.emptied
        try:
            while (now_unix_s := self._believed_unix_s()) is not None:
                count = await settled(partial(self._store.expire, now_unix_s, self.uptime_s))
                self.expired += count
                if not count:
                    break
            while self._believed_unix_s() is not None:
                before_s = self.uptime_s - self._params.trash_kept_s
                count = await settled(partial(self._store.empty_trash, before_s))
                self.emptied += count
                if not count:
                    break
        except LockboxError as error:
            log.warning("leases.not_ended", reason=error.message)
        if (expired, emptied) != (self.expired, self.emptied):
            log.info("leases.ended", expired=self.expired - expired, emptied=self.emptied - emptied)


def _noted(result: LockboxError | None) -> None:
    if result is not None:
        log.warning("uptime.not_noted", reason=result.message)


def _uptime_of(kept: bytes | None) -> float:
    try:
        return max(0.0, msgspec.json.decode(kept or b"0", type=float))
    except msgspec.MsgspecError:
        return 0.0


def _noted_of(kept: bytes | None) -> Noted | None:
    """A note that cannot be read is a freeze: nobody knows what the clock was."""
    if kept is None:
        return None
    try:
        return msgspec.json.decode(kept, type=Noted)
    except msgspec.MsgspecError:
        return Noted(0.0, frozen=True)
