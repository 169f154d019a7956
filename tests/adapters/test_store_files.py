"""Large parts as files: headers, layout, quarantine."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.store_files import HEADER_BYTES, BigFiles, BigHeader, is_full, name_of

if TYPE_CHECKING:
    from pathlib import Path

HEADER = BigHeader(b"\xab" * 32, b"h" * 32, 3, 17, 2, 2, 5)
NAME = f"ab/{'ab' * 32}-17"


@pytest.fixture
def files(tmp_path: Path) -> BigFiles:
    files = BigFiles(tmp_path)
    files.prepare()
    return files


def test_a_header_says_what_its_file_is() -> None:
    raw = HEADER.encode()
    assert len(raw) == HEADER_BYTES
    assert BigHeader.decode(raw) == HEADER


@pytest.mark.parametrize("at", [0, 50, 200, 255])
def test_a_damaged_header_is_not_taken(at: int) -> None:
    raw = bytearray(HEADER.encode())
    raw[at] ^= 1
    with pytest.raises(ValueError, match="header"):
        BigHeader.decode(bytes(raw))


def test_a_file_stands_at_its_address_and_row_id(files: BigFiles, tmp_path: Path) -> None:
    files.write(HEADER, [b"first", b"other"])
    files.sync([NAME])
    assert name_of(HEADER.address, 17) == NAME
    assert (tmp_path / "big" / NAME).read_bytes() == HEADER.encode() + b"firstother"
    assert files.read(NAME, 2, 5) == (b"first", b"other")
    assert files.names(0xAB) == [(NAME, 17)]


def test_a_cut_file_gives_short_shards(files: BigFiles, tmp_path: Path) -> None:
    files.write(HEADER, [b"first", b"other"])
    path = tmp_path / "big" / NAME
    path.write_bytes(path.read_bytes()[:-7])
    assert files.read(NAME, 2, 5) == (b"fir", b"")


def test_quarantined_files_are_kept_aside_until_they_are_unlinked(files: BigFiles, tmp_path: Path) -> None:
    files.write(HEADER, [b"first"])
    files.quarantine(NAME)
    files.quarantine(NAME)
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [NAME[3:]]
    files.unlink([NAME])
    assert not list((tmp_path / "quarantine").iterdir())
    files.unlink([NAME])


def test_unfinished_writes_are_gone_at_the_next_start(files: BigFiles, tmp_path: Path) -> None:
    (tmp_path / "tmp" / "12").write_bytes(b"half")
    files.prepare()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_failed_write_leaves_nothing(files: BigFiles, tmp_path: Path) -> None:
    (tmp_path / "big" / "ab").rmdir()
    with pytest.raises(OSError, match="No such file"):
        files.write(HEADER, [b"first"])
    assert not list((tmp_path / "tmp").iterdir())


def test_only_a_full_disk_is_not_a_broken_one() -> None:
    assert is_full(OSError(errno.ENOSPC, "full"))
    assert is_full(OSError(errno.EDQUOT, "quota"))
    assert not is_full(OSError(errno.EIO, "broken"))
