"""What changed since the full copy, as one file: the pages of a newer copy that differ, each with its number.

A delta is made against the full copy, never against another delta, so that a restore needs two files and no chain.
Layout: magic, u32 pages of the newer copy, then for each differing page its u32 number (from 0) and its 4096 bytes.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.adapters.backup_set import CHUNK_BYTES, Advance, damaged, write_whole
from lockbox_node.adapters.store_schema import PAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_HEAD = struct.Struct(">8sI")
_PAGE = struct.Struct(">I")
_MAGIC = b"LBXDELT1"
_STEP_PAGES = CHUNK_BYTES // PAGE_BYTES


@dataclass(frozen=True, slots=True)
class DeltaMade:
    """Sizes and SHA-256 (hex) of the three files, all read or written in one pass."""

    full_sha256: str
    newer_bytes: int
    newer_sha256: str
    delta_bytes: int
    delta_sha256: str


def write_delta(full: Path, newer: Path, delta: Path, advance: Advance) -> DeltaMade:
    """Write what turns `full` into `newer` into the new file `delta`, and flush it."""
    digests = [hashlib.sha256() for _ in range(3)]
    of_full, of_newer, of_delta = digests
    descriptor = os.open(delta, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as out, full.open("rb") as older, newer.open("rb") as fresh:
        newer_bytes = os.fstat(fresh.fileno()).st_size
        head = _HEAD.pack(_MAGIC, newer_bytes // PAGE_BYTES)
        out.write(head)
        of_delta.update(head)
        first = 0
        while True:
            before, now = older.read(CHUNK_BYTES), fresh.read(CHUNK_BYTES)
            if not before and not now:
                break
            of_full.update(before)
            of_newer.update(now)
            if before != now:
                changed = _changed(before, now, first)
                out.write(changed)
                of_delta.update(changed)
            first += _STEP_PAGES
            advance(len(now))
        out.flush()
        os.fsync(descriptor)
        return DeltaMade(
            of_full.hexdigest(), newer_bytes, of_newer.hexdigest(), out.tell(), of_delta.hexdigest()
        )  # fmt: skip


def _changed(before: bytes, now: bytes, first: int) -> bytes:
    pieces = []
    for number in range(len(now) // PAGE_BYTES):
        page = now[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        if page != before[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]:
            pieces += [_PAGE.pack(first + number), page]
    return b"".join(pieces)


def apply_delta(delta: Path, target: Path, advance: Advance) -> None:
    """Turn `target`, a copy of the full one, into the newer one. LockboxError (exit 6) when it is no delta."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with delta.open("rb") as file:
            pages = _head(file, delta)
            os.ftruncate(descriptor, pages * PAGE_BYTES)
            while record := file.read(_PAGE.size + PAGE_BYTES):
                number = _PAGE.unpack_from(record)[0] if len(record) == _PAGE.size + PAGE_BYTES else pages
                if number >= pages:
                    raise damaged(f"{delta} is damaged")
                os.lseek(descriptor, number * PAGE_BYTES, os.SEEK_SET)
                write_whole(descriptor, memoryview(record)[_PAGE.size :])
                advance(PAGE_BYTES)
    finally:
        os.close(descriptor)


def _head(file: BinaryIO, path: Path) -> int:
    raw = file.read(_HEAD.size)
    magic, pages = _HEAD.unpack(raw) if len(raw) == _HEAD.size else (b"", 0)
    if magic != _MAGIC:
        raise damaged(f"{path} is damaged")
    return int(pages)
