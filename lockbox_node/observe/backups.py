"""Backups as the operator asks for them: the verbs of the control socket, and what `status` says of the last one.

`backup` answers when the backup is done; `backup-progress` tells meanwhile how far it is. Whoever asked may leave: the
backup goes on. The last one is noted in the store, so that a restart does not forget it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import structlog

from lockbox_node.errors import LockboxError, UsageError
from lockbox_node.ports import ShardStore, settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.adapters.backups import Backups
    from lockbox_node.adapters.store_backup import BackupDone

NOTE = "backup"

log = structlog.get_logger(__name__)


class BackupVerbs:
    """Asks `backups` for one and remembers it."""

    def __init__(self, backups: Backups, store: ShardStore) -> None:
        self._backups = backups
        self._store = store

    async def backup(self, request: dict[str, Any]) -> object:
        """Back up into `directory`; `full` begins anew."""
        directory, full = request.get("directory"), request.get("full", False)
        if not isinstance(directory, str) or not isinstance(full, bool):
            raise UsageError("a backup needs directory = an absolute path, and may have full = true")
        try:
            done = await self._backups.run(Path(directory), full=full)
        except LockboxError as error:
            log.warning("backup.failed", reason=error.message)
            raise
        answer = _told(done)
        log.info("backup.done", **{name: answer[name] for name in ("kind", "bytes", "parts", "missing")})
        note = {name: answer[name] for name in ("unix_s", "kind", "bytes")}
        try:
            await settled(partial(self._store.note, NOTE, msgpack.packb(note)))
        except LockboxError as error:  # a store that is read-only needs its backup most
            log.warning("backup.not_noted", reason=error.message)
        return answer

    async def progress(self, _request: dict[str, Any]) -> object:
        """Bytes behind the run under way; 0 of 0 without one."""
        return {"done": self._backups.done_bytes, "total": self._backups.total_bytes}


def _told(done: BackupDone) -> dict[str, Any]:
    manifest = done.manifest
    return {
        "kind": manifest.kind,
        "unix_s": manifest.made_unix_s,
        "bytes": done.written_bytes,
        "parts": manifest.parts,
        "database_bytes": manifest.database.size,
        "big": {
            "files": manifest.big_files,
            "bytes": manifest.big_bytes,
            "linked": done.linked,
            "copied": done.copied,
        },
        "missing": done.missing,
        "why_full": done.why_full,
        "full_advised": done.grown,
        "same_disk": done.same_disk,
    }


def last_backup(notes: Mapping[str, bytes]) -> dict[str, Any] | None:
    """What `status` says of the last backup; None when there was none, or its note is not readable."""
    try:
        said = msgpack.unpackb(notes[NOTE])
        return {"unix_s": int(said["unix_s"]), "kind": str(said["kind"]), "bytes": int(said["bytes"])}
    except (KeyError, ValueError, TypeError, msgpack.UnpackException):
        return None
