"""Where the plaintext of an unlock goes: a file that appears whole or not at all, standard output, or memory.

A file is written beside its final place under a name that says what it is, synced, and renamed; it is readable by its
owner only. Nothing that exists is overwritten unless asked. Pieces come at offsets, maybe out of order; standard
output has no offsets, so there pieces wait for their turn.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.sealing import wipe
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Sink(Protocol):
    """Takes plaintext. `ordered` = pieces must come in the order of their offsets."""

    ordered: bool

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Take a piece. The caller wipes it afterwards. LockboxError when it cannot be kept."""
        ...

    def commit(self) -> None:
        """All pieces have come: make them permanent."""
        ...

    def discard(self) -> None:
        """Something went wrong: leave nothing. Does nothing after `commit`."""
        ...


class FileSink:
    """A new file at `path`."""

    ordered = False

    def __init__(self, path: Path, *, force: bool) -> None:
        """UsageError when something stands at `path` and `force` is not set, or when its directory is missing."""
        self._path = path
        self._force = force
        if path.is_dir():
            raise UsageError(f"{path} is a directory", "give the name of a file with -o")
        if not force and os.path.lexists(path):
            raise self._exists()
        self._temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.unlocking")
        try:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"cannot write to {path.parent}: {error.strerror}", "give another place with -o") from None

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Write a piece in place."""
        done = 0
        while done < len(piece):
            try:
                done += os.pwrite(self._fd, piece[done:], offset + done)
            except OSError as error:
                raise LockboxError(f"cannot write {self._path}: {error.strerror}", "make room and try again") from None

    def commit(self) -> None:
        """Sync and give it its name."""
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        try:
            if self._force:
                os.replace(self._temporary, self._path)
            else:
                os.link(self._temporary, self._path)  # fails, as a rename would not, when somebody was faster
                os.unlink(self._temporary)
        except FileExistsError:
            os.unlink(self._temporary)
            raise self._exists() from None
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self._temporary)

    def _exists(self) -> UsageError:
        return UsageError(f"{self._path} exists already", "choose another name with -o, or overwrite it with --force")


class StreamSink:
    """A file descriptor without offsets, such as standard output."""

    ordered = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Write a piece behind the last one."""
        done = 0
        while done < len(piece):
            done += os.write(self._descriptor, piece[done:])

    def commit(self) -> None:
        """It is out already."""

    def discard(self) -> None:
        """What is out is out."""


class MemorySink:
    """A buffer that its reader wipes."""

    ordered = False

    def __init__(self) -> None:
        self.content = bytearray()

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Keep a piece."""
        end = offset + len(piece)
        if end > len(self.content):
            self.content.extend(bytes(end - len(self.content)))
        with memoryview(self.content) as view:
            view[offset:end] = piece

    def commit(self) -> None:
        """It is here."""

    def discard(self) -> None:
        """Wipe it."""
        wipe(self.content)
        self.content.clear()
