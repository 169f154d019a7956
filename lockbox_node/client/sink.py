"""Where the plaintext of an unlock goes: a file that appears whole or not at all, standard output, or memory.

A file is written without a name in the directory of its final place (where the file system cannot: under a name that
says what it is), synced, and named; it is readable by its owner only. Nothing that exists is overwritten unless asked.
Pieces come at offsets, maybe out of order; standard output has no offsets, so there pieces wait for their turn.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.sealing import wipe
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


DRAFT_CHARS_MAX = 60  # of the final name, at most 4 bytes each: names have at most 255 bytes


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

    def __init__(self, path: Path, *, force: bool, option: str = "-o") -> None:
        """UsageError when something stands at `path` and `force` is not set, or when its directory is missing.

        `option` is how the person gave the path.
        """
        self._path = path
        self._force = force
        self._option = option
        if path.is_dir():
            raise UsageError(f"{path} is a directory", f"give the name of a file with {option}")
        if not force and os.path.lexists(path):
            raise self._exists()
        self._draft = path.with_name(f".{path.name[:DRAFT_CHARS_MAX]}.{os.getpid()}.unlocking")
        try:
            self._fd = self._open()
        except OSError as error:
            where = f"cannot write to {path.parent}: {error.strerror}"
            raise UsageError(where, f"give another place with {option}") from None

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Write a piece in place."""
        done = 0
        while done < len(piece):
            try:
                done += os.pwrite(self._fd, piece[done:], offset + done)
            except OSError as error:
                raise self._unwritable(error) from None

    def commit(self) -> None:
        """Sync and give it its name. UsageError when somebody else has taken that; LockboxError when the disk fails."""
        try:
            os.fsync(self._fd)
            self._name()
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._draft.unlink(missing_ok=True)

    def _open(self) -> int:
        """A file without a name, so that even kill -9 leaves no plaintext; with one where the file system has none."""
        try:
            return os.open(self._path.parent, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
        self._draft.unlink(missing_ok=True)  # of a process with our id that was killed
        return os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _name(self) -> None:
        """The final name, which nothing is overwritten for unless forced. FileExistsError."""
        nameless = not self._draft.exists()
        if self._force:
            if nameless:
                self._link(self._draft)
            os.replace(self._draft, self._path)
        elif nameless:
            self._link(self._path)
        else:
            try:
                os.link(self._draft, self._path)  # fails, as a rename would not, when somebody was faster
            except PermissionError:  # a file system without links: take the name first
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                os.replace(self._draft, self._path)

    def _link(self, name: Path) -> None:
        """Name the nameless file. With a directory descriptor: os.link follows the link in /proc only then."""
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=root, follow_symlinks=True)
        finally:
            os.close(root)

    def _exists(self) -> UsageError:
        hint = f"choose another name with {self._option}, or overwrite it with --force"
        return UsageError(f"{self._path} exists already", hint)

    def _unwritable(self, error: OSError) -> LockboxError:
        return LockboxError(f"cannot write {self._path}: {error.strerror}", "make room and try again")


class StreamSink:
    """A file descriptor without offsets, such as standard output."""

    ordered = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Write a piece behind the last one. LockboxError when nobody reads any more, or the disk behind it is full."""
        done = 0
        while done < len(piece):
            try:
                done += os.write(self._descriptor, piece[done:])
            except BlockingIOError:  # somebody has set our output non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                raise LockboxError(f"cannot write to standard output: {error.strerror}", "try again") from None

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
