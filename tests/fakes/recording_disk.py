"""A disk that writes down what the large files and the marker ask of it, and fails where the log's faults say so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lockbox_node.adapters.disk import Disk
from tests.fakes.disk_log import Resize, Write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.fakes.disk_log import DiskLog


class RecordingDisk(Disk):
    """The real disk, seen. `forgets` names methods that are left out: what a careless store would do."""

    def __init__(self, log: DiskLog, forgets: frozenset[str] = frozenset()) -> None:
        self._log = log
        self._forgets = forgets
        self._open: dict[int, int] = {}

    def create(self, path: Path) -> int:
        """A write in the directory."""
        self._log.faults.before_write()
        descriptor = super().create(path)
        self._open[descriptor] = self._log.create(str(path))
        return descriptor

    def allocate(self, descriptor: int, size: int) -> None:
        """Zeros, which are no safer than other bytes before the flush."""
        self._log.faults.before_write()
        super().allocate(descriptor, size)
        self._log.events.append(Resize(self._open[descriptor], size))

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
        """All pieces are one write."""
        self._log.faults.before_write()
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        super().write(descriptor, pieces)
        self._log.events.append(Write(self._open[descriptor], offset, b"".join(pieces)))

    def flush(self, descriptor: int) -> None:
        """Real flushes are left out: the test decides what is on the disk."""
        if "flush" not in self._forgets:
            self._log.flush(self._open[descriptor])

    def close(self, descriptor: int) -> None:
        """Says nothing about the disk."""
        del self._open[descriptor]
        super().close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """A write in the directory."""
        self._log.faults.before_write()
        super().rename(old, new)
        self._log.rename(str(old), str(new))

    def link(self, old: Path, new: Path) -> None:
        """A write in the directory."""
        self._log.faults.before_write()
        super().link(old, new)
        self._log.link(str(old), str(new))

    def unlink(self, path: Path) -> None:
        """Needs no room."""
        super().unlink(path)
        self._log.unlink(str(path))

    def flush_directory(self, path: Path) -> None:
        """As for files."""
        if "flush_directory" not in self._forgets:
            self._log.flush_directory(str(path))
