"""Damage on purpose: every shard or a share of them, in rows and in files, found by the store as damage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_files import BigFiles, BigHeader, name_of
from lockbox_node.cli.faults import corrupt, wipe
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

pytestmark = pytest.mark.real
SHARDS, SHARD_BYTES = 4, 100
INSIDE, LARGE = 1, 2


def content(number: int) -> bytes:
    return bytes([number]) * SHARDS * SHARD_BYTES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with one part inside the database and one in a large file, four shards each."""
    database = store_schema.open_database(tmp_path, b"n" * 32)
    files = BigFiles(tmp_path)
    files.prepare()
    for rid, big in ((INSIDE, 0), (LARGE, 1)):
        address = bytes([rid]) * 32
        database.execute(
            "INSERT INTO part VALUES (?, ?, ?, 1, 0, 0, 0, 0, ?, ?, ?, 0, x'', -1, x'', x'')",
            (rid, address, bytes(32), big, SHARDS, SHARD_BYTES),
        )
        database.execute("INSERT INTO body VALUES (?, x'', ?)", (rid, b"" if big else content(rid)))
        if big:
            header = BigHeader(address, bytes(32), 1, rid, 0, SHARDS, SHARD_BYTES)
            files.write(header, [content(rid)])
    database.close()
    return tmp_path


def changed_in(before: bytes, after: bytes) -> list[int]:
    """Bits that differ, by shard."""
    assert len(before) == len(after)
    counts = [0] * SHARDS
    for at, (old, new) in enumerate(zip(before, after, strict=True)):
        counts[at // SHARD_BYTES] += (old ^ new).bit_count()
    return counts


def stored(data: Path) -> tuple[bytes, bytes]:
    """What stands in the row and in the file."""
    database = store_schema.connect(data / store_schema.DATABASE)
    row = database.execute("SELECT shards FROM body WHERE rid = ?", (INSIDE,)).get
    database.close()
    return row, b"".join(BigFiles(data).read(name_of(bytes([LARGE]) * 32, LARGE), SHARDS, SHARD_BYTES))


def test_one_bit_of_every_shard_is_flipped_and_the_page_checksums_hold(data: Path) -> None:
    assert corrupt(data, 1.0, 1) == 2 * SHARDS
    row, file = stored(data)
    assert changed_in(content(INSIDE), row) == [1] * SHARDS
    assert changed_in(content(LARGE), file) == [1] * SHARDS


def test_a_share_of_nothing_changes_nothing(data: Path) -> None:
    assert corrupt(data, 0.0, 1) == 0
    assert stored(data) == (content(INSIDE), content(LARGE))


def test_the_same_seed_hits_the_same_shards(data: Path) -> None:
    first = corrupt(data, 0.5, 7)
    assert 0 < first < 2 * SHARDS
    assert corrupt(data, 0.5, 7) == first
    assert stored(data) == (content(INSIDE), content(LARGE)), "the same bits again: flipped back"


def test_a_file_that_is_gone_is_passed_over(data: Path) -> None:
    os.unlink(data / "big" / name_of(bytes([LARGE]) * 32, LARGE))
    assert corrupt(data, 1.0, 1) == SHARDS


def test_it_works_beside_an_open_store(data: Path) -> None:
    daemon: apsw.Connection = store_schema.connect(data / store_schema.DATABASE)
    daemon.execute("SELECT count(*) FROM part").fetchall()
    assert corrupt(data, 1.0, 1) == 2 * SHARDS
    assert changed_in(content(INSIDE), daemon.execute("SELECT shards FROM body WHERE rid = 1").get) == [1] * SHARDS
    daemon.close()


def test_a_node_that_never_ran_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(LockboxError, match="holds no shards"):
        corrupt(tmp_path, 1.0, 1)


def test_a_wipe_takes_all_but_who_the_node_is(data: Path) -> None:
    kept = {"node.toml", "identity", "network"}
    (data / "node.toml").write_text("x")
    for name in ("identity", "network", "seen"):
        (data / name).mkdir()
        (data / name / "file").write_text("x")
    wipe(data)
    assert {path.name for path in data.iterdir()} == kept
    assert all((data / name / "file").exists() for name in ("identity", "network"))
