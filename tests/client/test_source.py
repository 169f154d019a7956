"""Plaintext sources: pieces, files that change, what is no file, standard input."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lockbox_node.client import source
from lockbox_node.client.source import BytesSource, FileSource, read_stream
from lockbox_node.errors import AssetNotFound, LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def read(one: source.Source, offset: int, count: int) -> bytes:
    buffer = bytearray(count)
    one.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_bytes_in_pieces_read_as_one_and_are_wiped() -> None:
    pieces = [bytearray(b"abcd"), bytearray(b"efgh"), bytearray(b"i")]
    held = BytesSource(*pieces)
    assert held.size == 9
    assert read(held, 2, 6) == b"cdefgh"
    assert read(held, 8, 1) == b"i"
    held.close()
    assert not any(any(piece) for piece in pieces)


def test_a_file_reads_at_offsets_and_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    opened = FileSource(path)
    assert read(opened, 3, 4) == b"3456"
    opened.check_unchanged()
    path.write_bytes(b"0123")
    with pytest.raises(LockboxError, match="changed while it was read"):
        opened.check_unchanged()
    with pytest.raises(LockboxError, match="changed while it was read"):
        read(opened, 3, 4)
    opened.close()


def test_what_is_no_readable_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AssetNotFound):
        FileSource(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a directory") as caught:
        FileSource(tmp_path)
    assert "tar" in caught.value.hint
    with pytest.raises(UsageError, match="not a regular file"):
        FileSource(tmp_path / "pipe")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20])
def test_a_stream_is_held_whole(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 10)
    monkeypatch.setattr(source, "STDIN_BYTES_MAX", 20)
    (tmp_path / "in").write_bytes(bytes(range(size)))
    with (tmp_path / "in").open("rb") as stream:
        held = read_stream(stream.fileno())
    assert held.size == size
    assert read(held, 0, size) == bytes(range(size))


def test_a_stream_above_the_limit_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 10)
    monkeypatch.setattr(source, "STDIN_BYTES_MAX", 20)
    (tmp_path / "in").write_bytes(bytes(21))
    with (tmp_path / "in").open("rb") as stream, pytest.raises(LockboxError, match="more than"):
        read_stream(stream.fileno())


def test_standard_input_that_cannot_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(LockboxError, match="standard input"):
        read_stream(directory)
    os.close(directory)
