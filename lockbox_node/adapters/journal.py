"""Which requests were granted or served lately: records appended to a file, so that a restart does not forget them.

A record is written before its answer leaves and never flushed: the kernel keeps it when the process is killed, and only
a machine that stops may lose it. The boot id tells the two apart, and then `whole` says so. Two files take turns, so
that old records go without a rewrite. Why no flush: docs/decisions/0018-what-a-restart-remembers.md.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import structlog

from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KEEP_S = 480.0  # longer than any record matters: 5 min that a request is fresh, 1 min that it may be ahead, and room
STATE_BYTES = 64
BOOT_ID = "/proc/sys/kernel/random/boot_id"
CLEAN, RUNNING, DOUBTFUL = b"clean", b"running", b"doubtful"

log = structlog.get_logger(__name__)


class FileJournal:
    """Records of `record_bytes` in `directory`. Only one process has it open: the lock of the data_dir sees to that."""

    def __init__(self, directory: Path, record_bytes: int) -> None:
        """ConfigError when the directory cannot be used."""
        self._record_bytes = record_bytes
        self._boot = _boot_id()
        try:
            directory.mkdir(exist_ok=True, mode=0o700)
            fresh = not (directory / "state").exists()
            self._state = os.open(directory / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            paths = [directory / "0", directory / "1"]
            self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600) for path in paths]
            found = [os.fstat(file) for file in self._files]
            self._current = 1 if found[1].st_mtime_ns > found[0].st_mtime_ns else 0
            self._begin(time.time() - found[1 - self._current].st_mtime)
        except OSError as error:
            raise ConfigError(f"{directory} cannot be used: {error.strerror}", "check its permissions") from None
        word, _, boot = os.pread(self._state, STATE_BYTES, 0).strip(b"\0").partition(b" ")
        empty = not any(one.st_size for one in found)
        same_boot = boot == self._boot != b""
        self._whole = (fresh and empty) or word == CLEAN or (word == RUNNING and same_boot)
        # What is missing from it stays missing over the next starts, until nothing of that time can be fresh.
        self._doubted_until = 0.0 if self._whole else time.monotonic() + KEEP_S
        self._kept_all = True
        self._note(RUNNING if self._whole else DOUBTFUL)

    def _begin(self, other_idle_s: float) -> None:
        """Records go on where the last life ended, or into the other file if nothing in that matters any more."""
        size = self._record_bytes
        for file in self._files:  # a record that was cut short goes, so that those behind it are found
            held_bytes = os.fstat(file).st_size
            if held_bytes % size:
                os.ftruncate(file, held_bytes // size * size)
        self._turned_at = time.monotonic()
        if other_idle_s > KEEP_S:
            self._turn()

    def _turn(self) -> None:
        os.ftruncate(self._files[1 - self._current], 0)
        self._current, self._turned_at = 1 - self._current, time.monotonic()

    @property
    def whole(self) -> bool:
        """See ports.Journal."""
        return self._whole

    def kept(self) -> list[bytes]:
        """See ports.Journal."""
        size = self._record_bytes
        held = [
            os.pread(self._files[at], os.fstat(self._files[at]).st_size, 0) for at in (1 - self._current, self._current)
        ]
        return [one[at : at + size] for one in held for at in range(0, len(one) - size + 1, size)]

    def append(self, record: bytes) -> None:
        """See ports.Journal."""
        assert len(record) == self._record_bytes
        try:
            if time.monotonic() - self._turned_at > KEEP_S:
                self._turn()
            self._write(record)
            if self._doubted_until and self._kept_all and time.monotonic() > self._doubted_until:
                self._doubted_until = 0.0
                self._note(RUNNING)
        except OSError as error:
            self._doubt(error)

    def _write(self, record: bytes) -> None:
        """All of it or none: the records behind a torn one would be read shifted."""
        file = self._files[self._current]
        written = os.write(file, record)
        if written != len(record):
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(0, "a short write")

    def close(self) -> None:
        """Everything is flushed, so that the next start need not doubt it."""
        try:
            for file in self._files:
                os.fsync(file)
            if self._kept_all and time.monotonic() > self._doubted_until:
                self._note(CLEAN)
        except OSError as error:
            log.warning("journal.not_flushed", reason=error.strerror)
        for file in (*self._files, self._state):
            os.close(file)

    def _doubt(self, error: OSError) -> None:
        """The next start must not believe what stands here; this one goes on from memory."""
        if self._kept_all:
            self._kept_all = False
            log.warning("journal.not_kept", reason=error.strerror)
            self._note(DOUBTFUL)

    def _note(self, word: bytes) -> None:
        """In place, so that it needs no room on a disk that is full."""
        try:
            os.pwrite(self._state, (word + b" " + self._boot).ljust(STATE_BYTES, b"\0"), 0)
            os.fsync(self._state)
        except OSError as error:
            log.warning("journal.state_not_kept", reason=error.strerror)


def _boot_id() -> bytes:
    """Empty where the machine does not tell: then no two lives are known to be of one boot."""
    try:
        with open(BOOT_ID, "rb") as file:
            return file.read(40).strip()
    except OSError:
        return b""
