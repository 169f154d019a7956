"""One log of everything that database and large files ask of the disk, and what a power loss leaves of it.

The recording VFS and the recording disk write into the same log, so a cut falls at one moment for both. `Faults` says
which write finds the disk full and which flush fails. `PowerLoss` replays the log: what was flushed is there; of the
rest each 512-byte sector may or may not have reached the disk, in any order, and independently for each file; of the
names made, moved and removed in a directory since it was flushed, a prefix is there (file systems journal them in
order, but nothing orders two directories or a name and its file). Directories themselves are taken as made.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset of a file."""

    inode: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file was cut or grown to this size."""

    inode: int
    size: int


@dataclass(frozen=True, slots=True)
class Flush:
    """A file was flushed; when it failed, what was written before it is lost and no later flush saves it."""

    inode: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """A file got a name, by a rename when `old` is one. No file: the name was removed."""

    path: str
    inode: int | None
    old: str = ""

    @property
    def directory(self) -> str:
        """Where the name stands."""
        return os.path.dirname(self.path)


@dataclass(frozen=True, slots=True)
class FlushDirectory:
    """The names in a directory were flushed, or not."""

    directory: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that the test wants to find again: what was asked for, what was answered."""

    note: object


Event = Write | Resize | Flush | Name | FlushDirectory | Mark


@dataclass(slots=True)
class Faults:
    """Which steps fail, counted from 0. The disk is full for the writes in `full`; flush number `broken` fails."""

    full: range = range(0)
    broken: int = -1
    writes: int = 0
    flushes: int = 0

    def before_write(self) -> None:
        """OSError ENOSPC when this one finds the disk full."""
        self.writes += 1
        if self.writes - 1 in self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def breaks_flush(self) -> bool:
        """Whether this flush fails."""
        self.flushes += 1
        return self.flushes - 1 == self.broken


class DiskLog:
    """What was asked of the disk below `root`, in order. What stands there now is taken as flushed long ago."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.faults = Faults()
        self.names: dict[str, int] = {}
        self.before: list[bytes] = []
        for folder, _, files in os.walk(root):
            for name in files:
                path = os.path.join(folder, name)
                if not name.endswith("-shm") and name != "lock":
                    self.names[self.relative(path)] = len(self.before)
                    with open(path, "rb") as stream:
                        self.before.append(stream.read())
        self.names_before = dict(self.names)
        self._inodes = len(self.before)

    def relative(self, path: str) -> str:
        """The path below the root."""
        return os.path.relpath(path, self.root)

    def create(self, path: str) -> int:
        """A new file, or the one that has this name; its number."""
        name = self.relative(path)
        if name not in self.names:
            self.names[name] = self._inodes
            self.events.append(Name(name, self._inodes))
            self._inodes += 1
        return self.names[name]

    def link(self, old: str, new: str) -> None:
        """A second name."""
        inode = self.names[self.relative(new)] = self.names[self.relative(old)]
        self.events.append(Name(self.relative(new), inode))

    def rename(self, old: str, new: str) -> None:
        """Another name."""
        inode = self.names[self.relative(new)] = self.names.pop(self.relative(old))
        self.events.append(Name(self.relative(new), inode, self.relative(old)))

    def unlink(self, path: str) -> None:
        """A name less; files without a log (the WAL index) are none."""
        if self.names.pop(self.relative(path), None) is None:
            return
        self.events.append(Name(self.relative(path), None))

    def flush(self, inode: int) -> None:
        """A flush of a file that worked, or OSError EIO."""
        failed = self.faults.breaks_flush()
        self.events.append(Flush(inode, failed))
        _raise_if(failed)

    def flush_directory(self, path: str) -> None:
        """A flush of a directory that worked, or OSError EIO."""
        failed = self.faults.breaks_flush()
        name = self.relative(path)
        self.events.append(FlushDirectory("" if name == "." else name, failed))
        _raise_if(failed)

    def mark(self, note: object) -> None:
        """Remember where in the log this happened."""
        self.events.append(Mark(note))


def _raise_if(failed: bool) -> None:
    if failed:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@dataclass(slots=True)
class _File:
    flushed: bytearray
    pending: list[Write | Resize] = field(default_factory=list)

    def flush(self, *, failed: bool) -> None:
        if not failed:
            for step in self.pending:
                _apply(self.flushed, step)
        self.pending.clear()

    def left(self, rng: random.Random) -> bytes:
        """What is found after the power loss."""
        content = bytearray(self.flushed)
        chance = rng.choice((0.0, 0.5, 1.0))
        for step in self.pending:
            for piece in _sectors(step):
                if rng.random() < chance:
                    _apply(content, piece)
        return bytes(content)


def _sectors(step: Write | Resize) -> Iterator[Write | Resize]:
    if isinstance(step, Resize):
        yield step
        return
    at = 0
    while at < len(step.content):
        end = at + SECTOR_BYTES - (step.offset + at) % SECTOR_BYTES
        yield Write(step.inode, step.offset + at, step.content[at:end])
        at = end


def _apply(content: bytearray, step: Write | Resize) -> None:
    size = step.size if isinstance(step, Resize) else max(len(content), step.offset + len(step.content))
    del content[size:]
    content.extend(bytes(size - len(content)))
    if isinstance(step, Write):
        content[step.offset : step.offset + len(step.content)] = step.content


class PowerLoss:
    """Goes along a log and makes the directory as it would be found if the power failed there."""

    def __init__(self, log: DiskLog) -> None:
        self._events = log.events
        self._at = 0
        self._files = {inode: _File(bytearray(content)) for inode, content in enumerate(log.before)}
        self._names = dict(log.names_before)
        self._pending: dict[str, list[Name]] = {}

    def advance(self, to: int) -> None:
        """The cut is before event `to`; only forwards."""
        for event in self._events[self._at : to]:
            self._take(event)
        self._at = to

    def leave(self, target: Path, rng: random.Random) -> None:
        """Write what is left into `target`, where only empty directories may stand."""
        names = dict(self._names)
        for directory in sorted(self._pending):
            pending = self._pending[directory]
            for name in pending[: rng.randint(0, len(pending))]:
                _rename(names, name)
        left: dict[int, bytes] = {}
        for path in sorted(names):
            inode = names[path]
            if inode not in left:
                left[inode] = self._files[inode].left(rng)
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(left[inode])

    def _take(self, event: Event) -> None:
        match event:
            case Write() | Resize():
                self._files[event.inode].pending.append(event)
            case Flush():
                self._files[event.inode].flush(failed=event.failed)
            case Name():
                if event.inode is not None:
                    self._files.setdefault(event.inode, _File(bytearray()))
                self._pending.setdefault(event.directory, []).append(event)
            case FlushDirectory():
                for name in [] if event.failed else self._pending.pop(event.directory, []):
                    _rename(self._names, name)
                    made = self._pending.get(os.path.dirname(name.old), []) if name.old else []
                    made[:] = [other for other in made if other.path != name.old]
            case Mark():
                return


def _rename(names: dict[str, int], name: Name) -> None:
    if name.old:
        names.pop(name.old, None)
    if name.inode is None:
        names.pop(name.path, None)
    else:
        names[name.path] = name.inode
