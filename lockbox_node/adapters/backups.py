"""The backups of a running node: one at a time, in a thread, while the store holds its files.

Whoever asked is told how far it is; a daemon that stops ends a backup at its next step. What a cut run wrote is removed
at once, or by the next run when the process was killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from lockbox_node.adapters.store_backup import Backup, BackupDone, Sources
from lockbox_node.errors import LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.adapters.shard_store import ShardStoreFile
    from lockbox_node.ports import WallClock

T = TypeVar("T")


class Backups:
    """Makes backups of one store. `done_bytes` of `total_bytes` are behind the run under way; 0 of 0 without one."""

    def __init__(self, store: ShardStoreFile, sources: Sources, clock: WallClock) -> None:
        self.done_bytes = self.total_bytes = 0
        self._store = store
        self._sources = sources
        self._clock = clock
        self._running: Backup | None = None
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, directory: Path, *, full: bool) -> BackupDone:
        """Back up into `directory` (absolute). LockboxError: it failed, and the earlier backup there still counts."""
        if not directory.is_absolute():
            raise UsageError(f"{directory} is not an absolute path", "begin with /")
        if self._running is not None:
            raise LockboxError("a backup is under way already", "wait for its end", ErrorCode.BUSY)
        backup = Backup(self._sources, directory, int(self._clock.now_unix_s()), self._advance, full=full)
        self._running = backup
        try:
            await self._copy_while_files_stay(backup)
            return await self._hop(backup.finish)
        except BaseException:
            with trio.CancelScope(shield=True):  # a few files are removed, after which this ends by itself
                await self._hop(backup.discard)
            raise
        finally:
            self._running = None
            self.done_bytes = self.total_bytes = 0

    async def _copy_while_files_stay(self, backup: Backup) -> None:
        self._store.holds += 1
        try:
            await self._store.housekeeping_ended()
            await self._hop(backup.copy)
        finally:
            self._store.holds -= 1

    def _advance(self, count: int) -> None:
        """In the thread: the only place where a cancelled backup ends."""
        trio.from_thread.check_cancelled()
        self.done_bytes += count
        if self._running is not None:
            self.total_bytes = self._running.total_bytes

    async def _hop(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)
