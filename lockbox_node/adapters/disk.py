"""The file operations of the shard store outside SQLite: what a power loss, a full disk or a failing one can interrupt.

Each method is one step whose order matters (write, flush, rename, flush the directory), so that tests can stand in for
the disk: they record every step, cut the power between two of them, or let one fail. No retries: after a failed flush
the kernel may have dropped the dirty pages, and a second flush would lie.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class Disk:
    """The disk as the kernel offers it. Every method raises OSError."""

    def create(self, path: Path) -> int:
        """The descriptor of a new file, open for writing; the caller closes it with `close`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve the bytes, so that a full disk shows before anything is written."""
        os.posix_fallocate(descriptor, 0, size)

    def write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
        """Write all pieces one after the other, in as few calls as the kernel allows."""
        views = [memoryview(piece) for piece in pieces]
        while views:
            written = os.writev(descriptor, views)
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views:
                views[0] = views[0][written:]

    def flush(self, descriptor: int) -> None:
        """What was written is on the disk when this returns. The name of the file may not be: `flush_directory`."""
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        """Let the descriptor go."""
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Move a file, over another one too."""
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        """A second name for a file."""
        os.link(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def flush_directory(self, path: Path) -> None:
        """Renames, links and unlinks in the directory are on the disk when this returns."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path, spans: Iterable[tuple[int, int]]) -> tuple[bytes, ...]:
        """The bytes at each (offset, length); fewer where the file ends."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return tuple(os.pread(descriptor, length, offset) for offset, length in spans)
        finally:
            os.close(descriptor)


DISK = Disk()
