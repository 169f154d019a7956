"""The ballast: space that the store owns for nothing, so that deletes still work when the disk is full.

SQLite needs room in its WAL to delete. When a write meets a full disk the ballast is let go, what frees space is done,
and puts are refused until the ballast is there again, above the floor of free space. The file is allocated, never
written. Only the writer's thread uses it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.core.storage_params import StoreParams


OPEN_ROOM_BYTES = 4 * 1024 * 1024


class Ballast:
    """The file `ballast` of one data_dir, and how much room the disk has above its floor."""

    def __init__(self, data_dir: Path, params: StoreParams) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "ballast"
        self._params = params
        self.held_bytes = 0

    def room_bytes(self) -> int:
        """What may still be written before the floor; 0 or less while the ballast could not be taken again."""
        if self.held_bytes < self._params.ballast_bytes and not self.take():
            return 0
        return self._above_floor()

    def take(self) -> bool:
        """Hold the ballast if the disk has room for it above the floor. OSError when the disk fails."""
        wanted = self._params.ballast_bytes
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.held_bytes = min(os.fstat(descriptor).st_blocks * 512, wanted)
            if self.held_bytes < wanted and self._above_floor() >= wanted - self.held_bytes:
                os.posix_fallocate(descriptor, 0, wanted)
                self.held_bytes = wanted
            if os.fstat(descriptor).st_size > wanted:
                os.ftruncate(descriptor, wanted)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(descriptor, 0)
            self.held_bytes = 0
        finally:
            os.close(descriptor)
        return self.held_bytes >= wanted

    def make_room_to_open(self) -> None:
        """Give it up before the store is opened on a disk that is full: WAL and its index need room even to delete."""
        disk = os.statvfs(self._data_dir)
        if self._path.exists() and disk.f_bavail * disk.f_frsize < OPEN_ROOM_BYTES:
            os.truncate(self._path, 0)

    def let_go(self) -> bool:
        """Free the space. Whether there was any to free."""
        held, self.held_bytes = self.held_bytes, 0
        if held:
            os.truncate(self._path, 0)
        return held > 0

    def _above_floor(self) -> int:
        disk = os.statvfs(self._data_dir)
        share = int(disk.f_blocks * disk.f_frsize * self._params.free_floor_percent / 100)
        return disk.f_bavail * disk.f_frsize - max(self._params.free_floor_bytes, share)
