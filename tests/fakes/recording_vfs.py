"""An SQLite VFS that writes down what a database asks of the disk, and fails where the log's faults say so.

It stands below the checksum VFS, so what it records are the bytes of the disk: that one wraps the default VFS of the
moment when it is loaded, and is loaded anew by the next connection once it is unregistered. Files elsewhere pass
through untouched. The WAL index is shared memory, rebuilt after a crash, and passes through too.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters.store_schema import CHECKSUM_VFS
from tests.fakes.disk_log import DiskLog, Resize, Write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = "unix"
NAME = "recording"
_TOLD = (apsw.SQLITE_OPEN_MAIN_DB, apsw.SQLITE_OPEN_MAIN_JOURNAL, apsw.SQLITE_OPEN_WAL)


class RecordingFile(apsw.VFSFile):
    """A database, journal or WAL. SQLite flushes the directory with the first flush of a journal or WAL it made."""

    def __init__(self, name: str | apsw.URIFilename, flags: list[int], log: DiskLog) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        made = not os.path.exists(path)
        if made:
            log.faults.before_write()
        super().__init__(BASE, name, flags)
        self._log = log
        self._inode = log.create(path)
        self._directory = os.path.dirname(path) if made and not flags[0] & apsw.SQLITE_OPEN_MAIN_DB else ""

    def xWrite(self, data: bytes, offset: int) -> None:  # apsw's name
        """One write of SQLite."""
        try:
            self._log.faults.before_write()
        except OSError:
            raise apsw.exception_for(apsw.SQLITE_FULL) from None
        super().xWrite(data, offset)
        self._log.events.append(Write(self._inode, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        """Needs no room: SQLite only shrinks by it."""
        super().xTruncate(newsize)
        self._log.events.append(Resize(self._inode, newsize))

    def xSync(self, flags: int) -> None:
        """Real flushes are left out: the test decides what is on the disk."""
        try:
            self._log.flush(self._inode)
            if self._directory:
                self._log.flush_directory(self._directory)
                self._directory = ""
        except OSError:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC) from None

    def excepthook(self, *_error: object) -> bool:
        """SQLite has the code; nothing more is to be told."""
        return True


class RecordingVFS(apsw.VFS):
    """The default VFS, with logs for the directories that are in `logs`."""

    def __init__(self) -> None:
        self.logs: dict[str, DiskLog] = {}
        super().__init__(NAME, BASE, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """A recorded file where there is a log."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        log = self.logs.get(os.path.dirname(path))
        if name is None or log is None or not any(flags[0] & kind for kind in _TOLD):
            return apsw.VFSFile(BASE, name, flags)
        try:
            return RecordingFile(name, flags, log)
        except OSError:
            raise apsw.exception_for(apsw.SQLITE_CANTOPEN_FULLPATH) from None

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """SQLite removes journals and the WAL."""
        super().xDelete(filename, False)
        if log := self.logs.get(os.path.dirname(filename)):
            log.unlink(filename)
            if syncdir:
                log.flush_directory(os.path.dirname(filename))

    def excepthook(self, *_error: object) -> bool:
        """SQLite has the code; nothing more is to be told."""
        return True

    @contextlib.contextmanager
    def recording(self, data_dir: Path) -> Iterator[DiskLog]:
        """The log of the databases that are opened in `data_dir` from now on."""
        log = self.logs[str(data_dir)] = DiskLog(data_dir)
        try:
            yield log
        finally:
            del self.logs[str(data_dir)]


@contextlib.contextmanager
def recording_vfs() -> Iterator[RecordingVFS]:
    """The VFS below the checksum VFS, for connections opened meanwhile."""
    _forget_checksums()
    vfs = RecordingVFS()
    try:
        yield vfs
    finally:
        _forget_checksums()
        vfs.unregister()
        apsw.set_default_vfs(BASE)


def _forget_checksums() -> None:
    if CHECKSUM_VFS in apsw.vfs_names():
        apsw.unregister_vfs(CHECKSUM_VFS)
