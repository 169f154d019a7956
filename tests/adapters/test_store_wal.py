"""What the bytes of a WAL tell: whole, doubtful, damaged; and what can be read behind a flipped bit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_wal import FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, Wal, WalState, state_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real
COMMITS = 6


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, and its WAL as it was while the database was open: one row a commit."""
    path = tmp_path_factory.mktemp("wal")
    connection = store_schema.connect(path / "db", fresh=True)
    connection.execute("CREATE TABLE t(a)")
    connection.wal_checkpoint()
    for number in range(COMMITS):
        connection.execute("INSERT INTO t VALUES (zeroblob(?))", (9000 + number,))
    shutil.copyfile(path / "db-wal", path / "kept-wal")
    connection.close()
    return path


@pytest.fixture
def wal(written: Path, tmp_path: Path) -> Path:
    """A copy of the WAL."""
    shutil.copyfile(written / "kept-wal", tmp_path / "copy-wal")
    return tmp_path / "copy-wal"


def frames_of(path: Path) -> int:
    return (path.stat().st_size - HEADER_BYTES) // FRAME_BYTES


def flip(path: Path, offset: int, bit: int = 0) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1 << bit
    path.write_bytes(raw)


def pages_of(path: Path) -> dict[int, bytes]:
    wal = Wal.read(path)
    found = {number: raw for number in range(1, wal.pages + 1) if (raw := wal.page(number)) is not None}
    wal.close()
    return found


def lone_frame(path: Path) -> int:
    """Where an early frame begins whose page no later frame has."""
    newest = set(pages_of(path).values())
    content = path.read_bytes()
    places = range(HEADER_BYTES, HEADER_BYTES + frames_of(path) // 2 * FRAME_BYTES, FRAME_BYTES)
    return next(place for place in places if content[place + FRAME_HEADER_BYTES : place + FRAME_BYTES] in newest)


def test_a_wal_that_is_not_there_or_empty_is_whole(tmp_path: Path) -> None:
    assert state_of(tmp_path / "none") is WalState.WHOLE
    (tmp_path / "empty").write_bytes(b"")
    assert state_of(tmp_path / "empty") is WalState.WHOLE


def test_the_newest_committed_pages_are_those_that_sqlite_reads(wal: Path, written: Path) -> None:
    found = pages_of(wal)
    assert state_of(wal) is WalState.WHOLE
    database = (written / "db").read_bytes()  # its connection is closed: everything is in it
    for number, raw in found.items():
        at = (number - 1) * store_schema.PAGE_BYTES
        usable = store_schema.PAGE_BYTES - store_schema.CHECKSUM_BYTES
        assert raw[:usable] == database[at : at + usable]
    assert len(found) > COMMITS


@pytest.mark.parametrize("offset", [0, 3, 4, 9, 13, 16, 23, 24, 31])
def test_a_flip_in_the_header_is_damage_and_hides_nothing(wal: Path, offset: int) -> None:
    before = pages_of(wal)
    flip(wal, offset)
    assert state_of(wal) is WalState.DAMAGED
    assert pages_of(wal) == before


@pytest.mark.parametrize("offset", range(FRAME_HEADER_BYTES))
def test_a_flip_in_front_of_an_early_frame_is_damage_and_hides_nothing(wal: Path, offset: int) -> None:
    before = pages_of(wal)
    flip(wal, lone_frame(wal) + offset, offset % 8)
    assert state_of(wal) is WalState.DAMAGED
    assert pages_of(wal) == before


def test_a_flip_in_an_early_page_is_damage_of_that_page_alone(wal: Path) -> None:
    before = pages_of(wal)
    flip(wal, lone_frame(wal) + FRAME_HEADER_BYTES + 2000)
    read = Wal.read(wal)
    assert read.state is WalState.DAMAGED
    (unsound,) = read.unsound
    read.close()
    after = pages_of(wal)
    assert {number for number in before if before[number] != after[number]} == {unsound}


def test_a_flip_in_the_last_transaction_may_be_a_torn_one(wal: Path) -> None:
    flip(wal, HEADER_BYTES + (frames_of(wal) - 1) * FRAME_BYTES + 500)
    assert state_of(wal) is WalState.DOUBTFUL


def test_a_cut_frame_was_never_acknowledged(wal: Path) -> None:
    wal.write_bytes(wal.read_bytes()[:-100])
    assert state_of(wal) is WalState.WHOLE


def test_frames_of_an_older_wal_are_not_taken(wal: Path) -> None:
    raw = bytearray(wal.read_bytes())
    at = HEADER_BYTES + (frames_of(wal) // 2) * FRAME_BYTES
    for frame in range(at, len(raw), FRAME_BYTES):
        raw[frame + 8 : frame + 16] = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    wal.write_bytes(raw)
    assert state_of(wal) is WalState.WHOLE
    assert len(pages_of(wal)) < frames_of(wal) // 2 + 1


def test_behind_a_second_break_nothing_is_taken(wal: Path) -> None:
    last = HEADER_BYTES + (frames_of(wal) - 1) * FRAME_BYTES
    flip(wal, HEADER_BYTES + FRAME_BYTES + 500)
    before = pages_of(wal)
    flip(wal, last + 500)
    assert len(pages_of(wal)) < len(before)
