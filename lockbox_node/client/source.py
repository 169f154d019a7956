"""Where the plaintext of a lock comes from: a file read piece by piece, or bytes held in memory.

Pieces are read at offsets into buffers of the caller, who wipes them; a file that changes while it is read is an
error, since a torn copy would be worse than none. Standard input has no offsets and no size: it is held in memory, up
to STDIN_BYTES_MAX.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.sealing import wipe
from lockbox_node.errors import AssetNotFound, LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

STDIN_BYTES_MAX = 64 * 1024 * 1024
PIECE_BYTES = 1024 * 1024


class Source(Protocol):
    """Plaintext of a known size."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. May be called from a worker thread. LockboxError when it cannot."""
        ...

    def check_unchanged(self) -> None:
        """LockboxError when what was read so far may be torn."""
        ...

    def close(self) -> None:
        """Give back what is held; wipes what is in memory."""
        ...


class BytesSource:
    """Plaintext in memory, in pieces of equal size (the last may be shorter). Takes them over, wipes them on close."""

    def __init__(self, *pieces: bytearray) -> None:
        self._pieces = pieces
        self._piece_bytes = len(pieces[0]) if pieces else 1
        self.size = sum(map(len, pieces))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Copy from as many pieces as it takes."""
        done = 0
        while done < len(buffer):
            number, start = divmod(offset + done, self._piece_bytes)
            with memoryview(self._pieces[number]) as piece:
                count = min(len(piece) - start, len(buffer) - done)
                buffer[done : done + count] = piece[start : start + count]
            done += count

    def check_unchanged(self) -> None:
        """Nobody else holds it."""

    def close(self) -> None:
        """Wipe it."""
        for piece in self._pieces:
            wipe(piece)


class FileSource:
    """A regular file, open for as long as the lock runs."""

    def __init__(self, path: Path) -> None:
        """AssetNotFound when it does not exist, UsageError when it is no regular file or cannot be read."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise AssetNotFound(f"there is no file {path}", "check the path") from None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
        self._seen = os.fstat(self._fd)
        if not stat.S_ISREG(self._seen.st_mode):
            os.close(self._fd)
            raise _not_a_file(path, self._seen.st_mode)
        self.size = self._seen.st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read a piece; a file that ends early has changed."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise LockboxError(f"cannot read {self._path}: {error.strerror}", "check the disk") from None
            if count == 0:
                raise self._changed()
            done += count

    def check_unchanged(self) -> None:
        """Size and time of modification are those of the start."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
            raise self._changed()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _changed(self) -> LockboxError:
        return LockboxError(f"{self._path} changed while it was read; nothing was locked", "lock it again")


def _not_a_file(path: Path, mode: int) -> UsageError:
    if stat.S_ISDIR(mode):
        return UsageError(f"{path} is a directory", f"pack it: tar -c {path} | lockbox lock - --label {path.name}")
    return UsageError(f"{path} is not a regular file", "pipe it: lockbox lock - < it")


def read_stream(descriptor: int) -> BytesSource:
    """Everything that can be read from a file descriptor; LockboxError TOO_LARGE above STDIN_BYTES_MAX.

    Read straight into buffers that can be wiped: a growing buffer, or Python's own for standard input, leaves copies.
    """
    pieces: list[bytearray] = []
    while True:
        piece = bytearray(PIECE_BYTES)
        try:
            count = _fill(descriptor, piece)
        except OSError as error:
            BytesSource(piece, *pieces).close()
            raise LockboxError(f"cannot read standard input: {error.strerror}", "give a file, or pipe one") from None
        if count < PIECE_BYTES:
            last = piece[:count]
            wipe(piece)
            pieces += [last] if last else []
        else:
            pieces.append(piece)
        if sum(map(len, pieces)) > STDIN_BYTES_MAX:
            BytesSource(*pieces).close()
            raise LockboxError(
                f"standard input has more than {STDIN_BYTES_MAX >> 20} MiB",
                "write it to a file and lock that: files are streamed",
                ErrorCode.TOO_LARGE,
            )
        if count < PIECE_BYTES:
            return BytesSource(*pieces)


def _fill(descriptor: int, piece: bytearray) -> int:
    done = 0
    with memoryview(piece) as view:
        while done < len(piece) and (count := os.readv(descriptor, [view[done:]])):
            done += count
    return done
