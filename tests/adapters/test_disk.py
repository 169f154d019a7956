"""The real disk: each step does what its name says, and tells a failure."""

from __future__ import annotations

import os
import threading
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


def test_all_is_written_where_the_kernel_takes_less_than_it_is_given() -> None:
    pieces = [bytes([number]) * 1000 for number in range(200)]
    reading, writing = os.pipe()
    taken: list[bytes] = []

    def take() -> None:
        with open(reading, "rb", buffering=0) as stream:
            while some := stream.read(777):
                taken.append(some)

    reader = threading.Thread(target=take)
    reader.start()
    DISK.write(writing, pieces)
    DISK.close(writing)
    reader.join()
    assert b"".join(taken) == b"".join(pieces)


def test_a_name_that_stands_is_not_taken_over(tmp_path: Path) -> None:
    DISK.close(DISK.create(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        DISK.create(tmp_path / "file")


def test_only_directories_are_flushed_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        DISK.flush_directory(tmp_path / "file")
