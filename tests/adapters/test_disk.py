"""The real disk: each step does what its name says, and tells a failure."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.disk import DISK

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def test_a_file_is_written_flushed_and_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    descriptor = DISK.create(old)
    DISK.allocate(descriptor, 10)
    assert old.stat().st_size == 10
    DISK.write(descriptor, [b"01234", b"", b"56789"])
    DISK.flush(descriptor)
    DISK.close(descriptor)
    DISK.rename(old, new)
    DISK.link(new, old)
    DISK.flush_directory(tmp_path)
    assert DISK.read(new, [(0, 3), (8, 5), (20, 1)]) == (b"012", b"89", b"")
    assert old.samefile(new)
    DISK.unlink(old)
    assert not old.exists()
    assert new.stat().st_mode & 0o777 == 0o600


def test_a_write_that_was_cut_short_goes_on_until_the_error_shows(tmp_path: Path) -> None:
    descriptor = DISK.create(tmp_path / "file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            DISK.write(descriptor, [b"a" * 1000, b"b" * 1000, b"c"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        DISK.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"a" * 1000 + b"b" * 500


def test_a_name_that_stands_is_not_taken_over(tmp_path: Path) -> None:
    DISK.close(DISK.create(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        DISK.create(tmp_path / "file")


def test_only_directories_are_flushed_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        DISK.flush_directory(tmp_path / "file")
