"""The file `members`: records of the last known members, so that a restart needs no bootstrap peer.

A cache and nothing more: every record in it is verified again before it counts, an unreadable file is as good as none,
and it is replaced whole, by rename. A list of (body, signature) in MessagePack.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgpack
import structlog

from protocol.messages import Signed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE_BYTES_MAX = 16 * 1024 * 1024

log = structlog.get_logger(__name__)


def load_members(path: Path) -> list[Signed]:
    """The remembered records, unverified; none when the file is missing or damaged (which is logged)."""
    try:
        with path.open("rb") as file:
            rows = msgpack.unpackb(file.read(FILE_BYTES_MAX))
        return [Signed(bytes(body), bytes(signature)) for body, signature in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, msgpack.UnpackException):
        log.warning("members.unreadable")
        return []


def save_members(path: Path, records: Sequence[Signed]) -> None:
    """Replace the file. OSError when it cannot be written."""
    temporary = path.with_name(path.name + ".new")
    content = msgpack.packb([(record.body, record.signature) for record in records])
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
