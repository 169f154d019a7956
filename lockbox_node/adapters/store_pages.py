"""A damaged database read page by page, without SQLite: what is left of every row, wherever its page hangs.

SQLite finds a row through the pages above it, so one bit near a root hides a whole table. Here every page that is in
use (by the pointer map) gives its rows by itself, in the format of SQLite's documents "Database File Format" and "WAL
Format". Nothing that is read is trusted: `Record.sound` says whether all its pages have their checksum; who takes a
record proves it by signatures and hashes. Deleted rows are in free pages and are left out with them.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_schema import CHECKSUM_BYTES, PAGE_BYTES
from lockbox_node.adapters.store_wal import Wal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USABLE = PAGE_BYTES - CHECKSUM_BYTES
RECORD_BYTES_MAX = 64 * 1024 * 1024  # of one row; a longer one is a flipped length
LOCK_PAGE = 2**30 // PAGE_BYTES + 1  # SQLite never uses the page at 1 GiB
MAPPED = USABLE // 5  # pages that one page of the pointer map tells of
FREE, OVERFLOW_FIRST, OVERFLOW_NEXT = 2, 3, 4  # in the pointer map
INTERIOR_INDEX, LEAF_INDEX, LEAF_TABLE = 2, 10, 13
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)

Value = None | int | float | str | bytes


class Unreadable(Exception):
    """No row can be made of these bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stands: its row id (None in an index and in a table without row ids), its columns."""

    rowid: int | None
    values: tuple[Value, ...]
    sound: bool  # every page that it lies on has its checksum


class Pages:
    """The newest committed state of the pages of a database and its WAL. `unsound` counts pages without checksum."""

    def __init__(self, path: Path) -> None:
        self.unsound = 0
        self._checker = store_schema.checksum_connection()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._wal = Wal.read(path.with_name(f"{path.name}-wal"))
        self._count = self._wal.pages or os.fstat(self._file).st_size // PAGE_BYTES

    def close(self) -> None:
        """Let the files go."""
        os.close(self._file)
        self._wal.close()
        self._checker.close()

    def page(self, number: int) -> bytes:
        """A page as it stands. Unreadable when there is none; OSError when the disk cannot read it."""
        if not 1 <= number <= self._count:
            raise Unreadable("a page beyond the end")
        raw = self._wal.page(number) or os.pread(self._file, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        if len(raw) != PAGE_BYTES:
            raise Unreadable("a page that is cut")
        return raw

    def is_sound(self, number: int, raw: bytes) -> bool:
        """Whether the page is as SQLite wrote it."""
        if number in self._wal:
            return number not in self._wal.unsound
        return bool(self._checker.execute("SELECT verify_checksum(?)", (raw,)).get)

    def records(self, *, tables_alone: bool = False) -> Iterator[Record]:
        """Every row that can be read, in the order of pages; unless `tables_alone`, those without a row id too."""
        shown = (LEAF_TABLE,) if tables_alone else (INTERIOR_INDEX, LEAF_INDEX, LEAF_TABLE)
        kinds: bytes = b""
        for number in range(1, self._count + 1):
            place = (number - 2) % (MAPPED + 1)
            if number > 1 and place == 0:
                kinds = self._kinds(number)
                continue
            kind = kinds[place - 1] if number > 1 and place <= len(kinds) else 0
            if number != LOCK_PAGE and kind not in (FREE, OVERFLOW_FIRST, OVERFLOW_NEXT):
                yield from self._records_on(number, shown)

    def _kinds(self, number: int) -> bytes:
        """What a page of the pointer map says of the pages after it."""
        try:
            raw = self.page(number)
        except Unreadable:
            return b""
        self.unsound += not self.is_sound(number, raw)
        return raw[: MAPPED * 5 : 5]

    def _records_on(self, number: int, shown: tuple[int, ...]) -> Iterator[Record]:
        try:
            raw = self.page(number)
        except Unreadable:
            self.unsound += 1
            return
        sound = self.is_sound(number, raw)
        self.unsound += not sound
        start = 100 if number == 1 else 0
        kind = raw[start]
        if kind not in shown:
            return
        cells = int.from_bytes(raw[start + 3 : start + 5], "big")
        first = start + (12 if kind == INTERIOR_INDEX else 8)
        for place in range(first, min(first + 2 * cells, USABLE - 1), 2):
            try:
                at = int.from_bytes(raw[place : place + 2], "big") + (4 if kind == INTERIOR_INDEX else 0)
                yield self._record(raw, at, sound, table=kind == LEAF_TABLE)
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                continue

    def _record(self, raw: bytes, at: int, sound: bool, *, table: bool) -> Record:
        size, at = _varint(raw, at)
        rowid = None
        if table:
            rowid, at = _varint(raw, at)
            if rowid >= 2**63:
                rowid -= 2**64
        if size > RECORD_BYTES_MAX:
            raise Unreadable("a row longer than any")
        local = _local_bytes(size, table=table)
        payload = raw[at : at + local]
        if local < size:
            following = int.from_bytes(raw[at + local : at + local + 4], "big")
            payload, sound = self._with_overflow(payload, size, following, sound)
        if len(payload) != size:
            raise Unreadable("a row that is cut")
        return Record(rowid, _columns(payload), sound)

    def _with_overflow(self, payload: bytes, size: int, number: int, sound: bool) -> tuple[bytes, bool]:
        pieces, missing = [payload], size - len(payload)
        while missing > 0:
            raw = self.page(number)
            sound = sound and self.is_sound(number, raw)
            pieces.append(raw[4 : min(USABLE, 4 + missing)])
            missing -= USABLE - 4
            number = int.from_bytes(raw[:4], "big")
        return b"".join(pieces), sound


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """SQLite's variable-length integer, unsigned, and the place after it. IndexError at the end."""
    value = 0
    for place in range(at, at + 8):
        byte = raw[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | raw[at + 8], at + 9


def _local_bytes(size: int, *, table: bool) -> int:
    """How much of a payload is on the page of its cell."""
    most = USABLE - 35 if table else (USABLE - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (USABLE - 12) * 32 // 255 - 23
    local = least + (size - least) % (USABLE - 4)
    return local if local <= most else least


def _columns(payload: bytes) -> tuple[Value, ...]:
    """The values of a record."""
    header_bytes, at = _varint(payload, 0)
    if header_bytes > len(payload):
        raise Unreadable("a header that is cut")
    values: list[Value] = []
    body = header_bytes
    while at < header_bytes:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        if end > len(payload):
            raise Unreadable("a value that is cut")
        return (payload[at:end].decode() if kind % 2 else payload[at:end]), end
    if kind in (10, 11):
        raise Unreadable("a kind of value that there is not")
    if kind == 0:
        return None, at
    if kind >= 8:
        return kind - 8, at
    if kind == 7:
        return struct.unpack_from(">d", payload, at)[0], at + 8
    end = at + _INTEGER_BYTES[kind]
    if end > len(payload):
        raise Unreadable("a value that is cut")
    return int.from_bytes(payload[at:end], "big", signed=True), end
