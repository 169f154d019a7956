"""Gives up a copy of ours that is one too many: we were away and another holder took our place, or two stewards acted.

It stays as long as it may still be wanted: until every index has been in place for `return_hold_s`, ours at another
holder too who stands nearer. Then it goes by the order of `services.yielding`: all siblings say themselves what they
hold, the heir shows our index, and of two who trust each other's copy at most one goes. When a copy was first seen is
noted in the store, so that a node which restarts every day gives up what it should. Source: DESIGN, Membership,
verification, healing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgpack
import structlog
import trio

from lockbox_node.core.leaving import is_spare, seen_by
from lockbox_node.core.repair import current_indices
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, StripeSummary, WallClock, settled
from lockbox_node.services.sources import view_of
from lockbox_node.services.yielding import Why, Yielder
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.core.repair import RepairParams
    from lockbox_node.services.sources import MembersView

NOTE = "spare"
NOTED_MAX = 128  # copies whose first moment outlives a restart: the oldest; a note has room for 16 bytes each
KEY_BYTES = 8  # of an address, in the note: two stripes that share them share the moment
SPARE_MAX = 10_000  # copies remembered at once; the next look finds the others
PAGE = 256
LOOKS = 8  # within the time that a copy stays
LOOK_MIN_S = 1.0
SHOWN_BYTES_MAX = 8 * 256 * 1024  # that an heir shows of one part: the pause after each

log = structlog.get_logger()

Key = tuple[bytes, bytes]


class Repairs(Protocol):
    """What it needs of `services.healing`."""

    @property
    def active(self) -> bool:
        """Whether anything may be moved: not paused, the view is trusted, the store takes writes."""
        ...

    @property
    def params(self) -> RepairParams:
        """What is in force now."""
        ...


class Trimming:
    """One per node. `trimmed`: copies given up since the start."""

    def __init__(
        self, store: ShardStore, yielder: Yielder, members: MembersView, clock: WallClock, repairs: Repairs
    ) -> None:
        self.trimmed = 0
        self._store = store
        self._yielder = yielder
        self._members = members
        self._clock = clock
        self._repairs = repairs
        self._noted = _read(store.notes)
        self._since: dict[Key, float] = {}  # wall time at which a copy was first seen to be one too many

    @property
    def spare(self) -> int:
        """Copies that are one too many and stay for now."""
        return len(self._since)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look some times within the time that a copy stays, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(max(LOOK_MIN_S, self._repairs.params.return_hold_s / LOOKS))
            if self._repairs.active:
                try:
                    await self._look()
                except LockboxError as error:
                    log.warning("trim.look_failed", reason=str(error.code))

    async def _look(self) -> None:
        """Find the copies that are too many, and give up those that have been for long enough."""
        now, after = self._clock.now_unix_s(), b""
        since: dict[Key, float] = {}
        due: list[StripeSummary] = []
        hold_s = self._repairs.params.return_hold_s
        while True:
            page: list[StripeSummary] = await settled(partial(self._store.summaries, after, PAGE))
            for summary in page:
                if len(since) < SPARE_MAX and self._is_spare(summary):
                    key = (bytes(summary.address), bytes(summary.descriptor_hash))
                    first = self._since.get(key, self._noted.get(key[0][:KEY_BYTES], now))
                    since[key] = min(first, now)
                    if now - since[key] >= hold_s:
                        due.append(summary)
            if len(page) < PAGE:
                break
            after = bytes(page[-1].address) + bytes(page[-1].descriptor_hash)
        self._since = since
        for summary in due:
            if self._repairs.active:
                await self._trim(summary)
        await self._remember()

    def _is_spare(self, summary: StripeSummary) -> bool:
        index_of, own = current_indices(summary.entries), self._members.own
        if summary.trashed or not any(index == summary.index and node != own for node, index in index_of.items()):
            return False  # as nearly all are
        seen = seen_by(summary, tier_numbered(summary.tier), view_of(self._members, summary))
        return is_spare(summary, seen, own)

    async def _trim(self, summary: StripeSummary) -> None:
        try:
            gone = await self._yielder.let_go(summary, Why.SPARE)
        except (LockboxError, RemoteProtocolError) as error:
            log.info("trim.failed", reason=str(error.code))  # it is due again at the next look
        else:
            self.trimmed += gone
            self._since.pop((bytes(summary.address), bytes(summary.descriptor_hash)), None)
        await trio.sleep(SHOWN_BYTES_MAX / self._repairs.params.bytes_per_s)

    async def _remember(self) -> None:
        oldest = sorted(self._since.items(), key=lambda item: item[1])[:NOTED_MAX]
        noted = {address[:KEY_BYTES]: first for (address, _), first in reversed(oldest)}
        if noted != self._noted:
            self._noted = noted
            said = b"" if not noted else msgpack.packb([(key, int(first)) for key, first in noted.items()])
            await settled(partial(self._store.note, NOTE, said))


def _read(notes: Mapping[str, bytes]) -> dict[bytes, float]:
    try:
        return {bytes(key): float(first) for key, first in msgpack.unpackb(notes.get(NOTE) or msgpack.packb([]))}
    except (ValueError, TypeError, msgpack.UnpackException):
        log.warning("trim.note_unreadable")
        return {}
