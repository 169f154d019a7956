"""Where plaintext goes: whole or not at all."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from lockbox_node.client.sink import FileSink, MemorySink, StreamSink
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_appears_whole_when_it_is_committed_and_not_before(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out", force=False)
    sink.write_at(3, memoryview(b"def"))
    sink.write_at(0, memoryview(b"abc"))
    assert not (tmp_path / "out").exists()
    sink.commit()
    sink.discard()
    assert (tmp_path / "out").read_bytes() == b"abcdef"
    assert os.listdir(tmp_path) == ["out"]


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out", force=False)
    sink.write_at(0, memoryview(b"abc"))
    sink.discard()
    assert os.listdir(tmp_path) == []


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out", force=False)
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        sink.commit()
    assert (tmp_path / "out").read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out"]


def test_a_directory_is_never_a_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        FileSink(tmp_path, force=True)


def test_a_stream_takes_pieces_in_order() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer)
    assert sink.ordered
    sink.write_at(0, memoryview(b"ab"))
    sink.write_at(2, memoryview(b"cd"))
    sink.commit()
    os.close(writer)
    assert os.read(reader, 10) == b"abcd"
    os.close(reader)


def test_memory_is_wiped_when_discarded() -> None:
    sink = MemorySink()
    sink.write_at(2, memoryview(b"cd"))
    assert bytes(sink.content) == b"\0\0cd"
    sink.discard()
    assert not sink.content


def test_plaintext_that_was_not_committed_has_no_name_that_a_kill_could_leave(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out", force=False)
    sink.write_at(0, memoryview(b"secret"))
    assert os.listdir(tmp_path) == []
    sink.discard()


@pytest.mark.parametrize("force", [False, True])
def test_where_files_need_names_the_draft_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    opened = os.open

    def without_nameless_files(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", without_nameless_files)
    (tmp_path / f".out.{os.getpid()}.unlocking").write_bytes(b"of a killed process with our id")
    sink = FileSink(tmp_path / "out", force=force)
    sink.write_at(0, memoryview(b"abc"))
    sink.commit()
    assert (tmp_path / "out").read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_at_the_commit_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out", force=True)
    (tmp_path / "out").mkdir()  # came meanwhile: nothing can be renamed over it
    with pytest.raises(LockboxError, match="cannot write"):
        sink.commit()
    assert os.listdir(tmp_path) == ["out"]


def test_a_reader_that_has_left_is_an_error_of_one_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(LockboxError, match="standard output"):
        StreamSink(writer).write_at(0, memoryview(b"abc"))
    os.close(writer)
