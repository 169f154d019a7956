"""Large parts: one immutable file each, `big/xx/<address hex>-<rid>`, all shards of the part behind a header.

Written to tmp/, flushed, renamed, the directory flushed, and only then named in the database: a crash leaves an orphan
file, never a row without bytes. The rid in the name is never reused, so a late unlink cannot hit a re-put. The header
says what the file is without the database. Files are only read and written from the store's threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.adapters.disk import DISK, Disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

HEADER_BYTES = 256
MAGIC = b"LBXPART1"
_FIELDS = struct.Struct(">8s32s32sQQIII")  # magic, address, descriptor hash, version, rid, index, shards, shard bytes
FANOUT = 256


@dataclass(frozen=True, slots=True)
class BigHeader:
    """What the first 256 bytes of a large file say."""

    address: bytes
    descriptor_hash: bytes
    version: int
    rid: int
    index: int
    shards: int
    shard_bytes: int

    def encode(self) -> bytes:
        """256 bytes: the fields, zeros, and SHA-256 over both."""
        fields = _FIELDS.pack(
            MAGIC, self.address, self.descriptor_hash, self.version, self.rid, self.index, self.shards, self.shard_bytes
        )
        padded = fields.ljust(HEADER_BYTES - 32, b"\0")
        return padded + hashlib.sha256(padded).digest()

    @classmethod
    def decode(cls, raw: bytes) -> BigHeader:
        """The header in `raw`. ValueError when it is not one."""
        if len(raw) != HEADER_BYTES or hashlib.sha256(raw[:-32]).digest() != raw[-32:]:
            raise ValueError("not the header of a large part")
        magic, *fields = _FIELDS.unpack_from(raw)
        if magic != MAGIC:
            raise ValueError("not the header of a large part of this format")
        return cls(*fields)


def name_of(address: bytes, rid: int) -> str:
    """The file's path below `big/`."""
    text = address.hex()
    return f"{text[:2]}/{text}-{rid}"


class BigFiles:
    """The directories `big/`, `tmp/` and `quarantine/` of one data_dir."""

    def __init__(self, data_dir: Path, disk: Disk = DISK) -> None:
        self._data_dir = data_dir
        self._disk = disk
        self._big = data_dir / "big"
        self._tmp = data_dir / "tmp"
        self._quarantine = data_dir / "quarantine"

    def prepare(self) -> None:
        """Make the directories; empty tmp/, where only unfinished writes are."""
        if not (self._big / "ff").is_dir():
            for number in range(FANOUT):
                (self._big / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._disk.flush_directory(self._big)
        for path in (self._tmp, self._quarantine):
            path.mkdir(mode=0o700, exist_ok=True)
        self._disk.flush_directory(self._data_dir)
        for entry in sorted(os.listdir(self._tmp)):
            self._disk.unlink(self._tmp / entry)

    def write(self, header: BigHeader, shards: Sequence[bytes]) -> None:
        """Write and flush one file, and rename it into place; `sync` of its name makes the name durable. OSError."""
        temporary = self._tmp / str(header.rid)
        total = HEADER_BYTES + sum(len(shard) for shard in shards)
        descriptor = self._disk.create(temporary)
        try:
            self._disk.allocate(descriptor, total)
            self._disk.write(descriptor, [header.encode(), *shards])
            self._disk.flush(descriptor)
            self._disk.rename(temporary, self._big / name_of(header.address, header.rid))
        except OSError:
            self._disk.unlink(temporary)
            raise
        finally:
            self._disk.close(descriptor)

    def sync(self, names: Iterable[str]) -> None:
        """Flush the directories of these files, each once."""
        for folder in sorted({name[:2] for name in names}):
            self._disk.flush_directory(self._big / folder)

    def read(self, name: str, shards: int, shard_bytes: int) -> tuple[bytes, ...]:
        """The shards of a file, unverified; a short file gives short shards. OSError when it is not there."""
        spans = ((HEADER_BYTES + number * shard_bytes, shard_bytes) for number in range(shards))
        return self._disk.read(self._big / name, spans)

    def header(self, name: str) -> BigHeader:
        """What a file says of itself. ValueError when that is damaged; OSError when the file is not there."""
        return BigHeader.decode(self._disk.read(self._big / name, [(0, HEADER_BYTES)])[0])

    def is_there(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._big / name).exists()

    def quarantine(self, name: str) -> None:
        """Move a file that failed its check aside; one that is gone is fine."""
        try:
            self._disk.rename(self._big / name, self._quarantine / name[3:])
        except FileNotFoundError:
            return
        self._disk.flush_directory(self._quarantine)

    def unlink(self, names: Iterable[str]) -> None:
        """Remove files for good: gone after a power loss too. Those already gone are fine."""
        names = list(names)
        for name in names:
            for path in (self._big / name, self._quarantine / name[3:]):
                try:
                    self._disk.unlink(path)
                except FileNotFoundError:
                    continue
        self.sync(names)

    def names(self, folder: int) -> list[tuple[str, int]]:
        """(name, rid) of every file in one of the 256 folders; foreign names are left out."""
        found = []
        for entry in os.scandir(self._big / f"{folder:02x}"):
            rid = entry.name.rpartition("-")[2]
            if rid.isascii() and rid.isdecimal():
                found.append((f"{folder:02x}/{entry.name}", int(rid)))
        return found


def is_full(error: OSError) -> bool:
    """Whether the disk or a quota is full: nothing is broken then."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
