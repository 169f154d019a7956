"""The WAL of a shard store as its bytes say, beside what SQLite makes of it.

SQLite ends a recovery at the first frame whose checksum fails. After a power loss that is right: what follows was never
acknowledged. After a flipped bit it is not: acknowledged transactions vanish without a word. The frames tell the two
apart, mostly. A commit is flushed before the next transaction writes, so when a whole later transaction follows the bad
frame the disk has changed it (DAMAGED). A bad frame in the last transaction can be either (DOUBTFUL).
Each frame's checksum goes on from that of the frame before: behind one break the rest can still be checked, behind a
second one nothing is taken, since older transactions may lie there. Pages in the WAL have no checksum of their own: the
checksum VFS adds it on their way into the database. Format: SQLite, "WAL Format".
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_schema import PAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
MAGIC, FORMAT = 0x377F0682, 3_007_000  # the last bit of the magic: whether the checksums are big-endian
_HEADER = struct.Struct(">IIIIIIII")  # magic, format, page bytes, checkpoint, two salts, two checksums
_FRAME = struct.Struct(">IIIIII")  # page, pages after a commit (0 = none), two salts, two checksums
_HEADER_WORDS = struct.Struct("<6I"), struct.Struct(">6I")
_WORDS = struct.Struct("<1026I"), struct.Struct(">1026I")  # 8 bytes of a frame's header, and its page
_MASK = 0xFFFFFFFF

Sums = tuple[int, int]


class WalState(Enum):
    """What the bytes say."""

    WHOLE = "whole"
    DOUBTFUL = "doubtful"  # the last transaction is cut off or changed
    DAMAGED = "damaged"  # acknowledged transactions are behind a frame that changed


@dataclass(frozen=True, slots=True)
class _Frame:
    place: int
    page: int
    commit_pages: int
    good: bool  # its checksum holds
    sound: bool  # its page is as it was written: not when one bit of the page changed


@dataclass(slots=True)
class Wal:
    """The committed frames of a WAL: where the newest one of each page is. `pages` = size of the database, 0 = none."""

    state: WalState = WalState.WHOLE
    pages: int = 0
    unsound: frozenset[int] = frozenset()  # pages whose newest version has changed
    _file: int = -1
    _places: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Wal:
        """Read it; an empty one when there is none. OSError."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return cls()
        reading = _Reading(file)
        frames = reading.frames()
        wal = cls(reading.state(), _file=file)
        if wal.state is not WalState.DAMAGED:  # then as SQLite reads it
            frames = frames[: next((number for number, frame in enumerate(frames) if not frame.good), len(frames))]
        last = max((number for number, frame in enumerate(frames) if frame.commit_pages), default=-1)
        newest = {frame.page: frame for frame in frames[: last + 1] if frame.page}
        wal._places = {page: frame.place for page, frame in newest.items()}
        wal.unsound = frozenset(page for page, frame in newest.items() if not frame.sound)
        if last >= 0:
            wal.pages = frames[last].commit_pages
        return wal

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def page(self, number: int) -> bytes | None:
        """The newest committed version of a page, None when the WAL has none."""
        place = self._places.get(number)
        return None if place is None else os.pread(self._file, PAGE_BYTES, place + FRAME_HEADER_BYTES)

    def close(self) -> None:
        """Let the file go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def state_of(path: Path) -> WalState:
    """What the WAL at `path` is. OSError."""
    wal = Wal.read(path)
    wal.close()
    return wal.state


class _Reading:
    """One walk along the frames, up to the second break."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._frames: list[_Frame] = []
        self._header_broken = False
        self._salts = (0, 0)
        self._seeds: list[Sums] = []
        self._words = _WORDS[sys.byteorder == "big"]

    def state(self) -> WalState:
        """What the frames say. The header was flushed before the first frame was written."""
        frames = self._frames
        broken = next((number for number, frame in enumerate(frames) if not frame.good), None)
        if self._header_broken:
            return WalState.DAMAGED if any(frame.commit_pages for frame in frames) else WalState.DOUBTFUL
        if broken is None:
            return WalState.WHOLE
        ends = [number for number, frame in enumerate(frames) if number >= broken and frame.commit_pages]
        return WalState.DAMAGED if ends and ends[0] < len(frames) - 1 else WalState.DOUBTFUL

    def frames(self) -> list[_Frame]:
        """All that may be taken."""
        if not self._begin():
            return []
        place, breaks = HEADER_BYTES, int(self._header_broken)
        while len(raw := os.pread(self._file, FRAME_BYTES, place)) == FRAME_BYTES:
            frame = self._frame(raw, place)
            if frame is None or breaks + (not frame.good) > 1:  # an older WAL, or what was never acknowledged
                break
            breaks += not frame.good
            self._frames.append(frame)
            place += FRAME_BYTES
        return self._frames

    def _begin(self) -> bool:
        raw = os.pread(self._file, HEADER_BYTES, 0)
        first = os.pread(self._file, FRAME_HEADER_BYTES, HEADER_BYTES)
        if len(raw) < HEADER_BYTES or len(first) < FRAME_HEADER_BYTES:
            return False
        magic, version, page_bytes, _, salt_0, salt_1, *stored = _HEADER.unpack(raw)
        words = _HEADER_WORDS[magic & 1].unpack(raw[:24])
        sums = _checksum((0, 0), words)
        self._salts = salt_0, salt_1
        self._words = _WORDS[magic & 1]
        self._seeds = [sums]
        if (magic & ~1, version, page_bytes, [*sums]) != (MAGIC, FORMAT, PAGE_BYTES, stored):
            self._header_broken = True
            self._seeds.append((stored[0], stored[1]))
            self._salts = _FRAME.unpack(first)[2:4]  # those of the header may be what changed
            self._words = _WORDS[sys.byteorder == "big"]
        return True

    def _frame(self, raw: bytes, place: int) -> _Frame | None:
        """None when it is not of this WAL."""
        page, commit_pages, salt_0, salt_1, sum_0, sum_1 = _FRAME.unpack_from(raw)
        odd_bits = (salt_0 ^ self._salts[0]).bit_count() + (salt_1 ^ self._salts[1]).bit_count()
        if odd_bits > 1:
            return None
        stored = (sum_0, sum_1)
        words = self._words.unpack(raw[:8] + raw[FRAME_HEADER_BYTES:])
        found = [_checksum(seed, words) for seed in self._seeds]
        known = stored in found
        seeds, self._seeds = self._seeds, [stored] if known else [stored, *found]
        if known:
            return _Frame(place, page, commit_pages, good=odd_bits == 0, sound=True)
        if any(_odd_bits(stored, sums) == 1 for sums in found):
            return _Frame(place, page, commit_pages, good=False, sound=True)
        mended = self._mended(raw, seeds)
        if mended is not None:
            page, commit_pages = mended
        return _Frame(place, page, commit_pages, good=False, sound=mended is not None)

    def _mended(self, raw: bytes, seeds: list[Sums]) -> tuple[int, int] | None:
        """The two numbers in front of a frame, when it is one bit of them that changed."""
        stored = _FRAME.unpack_from(raw)[4:]
        for bit in range(64):
            numbers = (int.from_bytes(raw[:8], "big") ^ 1 << bit).to_bytes(8, "big")
            words = self._words.unpack(numbers + raw[FRAME_HEADER_BYTES:])
            if any(_checksum(seed, words) == stored for seed in seeds):
                return int.from_bytes(numbers[:4], "big"), int.from_bytes(numbers[4:], "big")
        return None


def _odd_bits(left: Sums, right: Sums) -> int:
    return (left[0] ^ right[0]).bit_count() + (left[1] ^ right[1]).bit_count()


def _checksum(seed: Sums, words: tuple[int, ...]) -> Sums:
    sum_0, sum_1 = seed
    for number in range(0, len(words), 2):
        sum_0 = (sum_0 + words[number] + sum_1) & _MASK
        sum_1 = (sum_1 + words[number + 1] + sum_0) & _MASK
    return sum_0, sum_1
