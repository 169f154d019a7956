"""Rows read from pages alone: as SQLite wrote them, with and without a WAL, and from garbage."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_pages import Pages, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import apsw

pytestmark = pytest.mark.real
SIZES = [0, 1, 100, 1000, 4000, 4053, 4054, 8200, 70_000]
NUMBERS = [0, 1, -1, 127, -128, 40_000, -(2**23), 2**31, 2**47 - 1, -(2**62), 2**63 - 1]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A database with rows of every size and kind; its WAL is not written back."""
    connection = store_schema.connect(tmp_path / "db", fresh=True)
    connection.execute("PRAGMA synchronous=OFF; CREATE TABLE t(a, b, c, d)").fetchall()
    connection.execute("CREATE TABLE k(a, b, PRIMARY KEY (a)) WITHOUT ROWID")
    for number, size in enumerate(SIZES):
        connection.execute("INSERT INTO t VALUES (?, ?, NULL, 1.5)", (bytes([number]) * size, "text" * number))
        connection.execute("INSERT INTO k VALUES (?, ?)", (number, bytes([number]) * size))
    for number in NUMBERS:
        connection.execute("INSERT INTO t(rowid, a) VALUES (?, ?)", (number if number > 100 else None, number))
    connection.executemany("INSERT INTO k VALUES (?, ?)", [(1000 + number, b"x" * 40) for number in range(3000)])
    yield connection
    connection.close()


def records_of(path: Path) -> list[Record]:
    pages = Pages(path / "db")
    found = list(pages.records())
    assert pages.unsound == 0
    pages.close()
    return found


def check(path: Path, connection: apsw.Connection) -> None:
    found = records_of(path)
    assert all(record.sound for record in found)
    rows = {(int(row[0]), *row[1:]) for row in connection.execute("SELECT rowid, a, b, c, d FROM t")}
    assert {(record.rowid, *record.values) for record in found if len(record.values) == 4} == rows
    keyed = set(connection.execute("SELECT a, b FROM k"))
    assert {record.values for record in found if len(record.values) == 2} == keyed
    assert len(keyed) == 3000 + len(SIZES)


def test_every_row_is_read_as_sqlite_reads_it(connection: apsw.Connection, tmp_path: Path) -> None:
    check(tmp_path, connection)
    connection.wal_checkpoint(mode=3)
    check(tmp_path, connection)


def test_deleted_rows_are_not_read(connection: apsw.Connection, tmp_path: Path) -> None:
    connection.execute("DELETE FROM k WHERE a >= 1500; DELETE FROM t WHERE a = 127").fetchall()
    found = records_of(tmp_path)
    assert sum(len(record.values) == 2 for record in found) == 500 + len(SIZES)
    assert not any(record.values[0] == 127 for record in found if len(record.values) == 4)


def test_rows_of_a_page_without_its_checksum_are_not_sound(connection: apsw.Connection, tmp_path: Path) -> None:
    connection.wal_checkpoint(mode=3)
    database = tmp_path / "db"
    raw = bytearray(database.read_bytes())
    at = raw.index(b"\x08" * 3000)
    raw[at + 2000] ^= 1
    database.write_bytes(raw)
    pages = Pages(database)
    (hit,) = [record for record in pages.records() if not record.sound and record.rowid == len(SIZES)]
    assert isinstance(hit.values[0], bytes)
    assert len(hit.values[0]) == 70_000
    assert pages.unsound <= 1
    pages.close()


def test_garbage_gives_no_error(connection: apsw.Connection, tmp_path: Path) -> None:
    connection.wal_checkpoint(mode=3)
    database = tmp_path / "db"
    whole = database.read_bytes()
    rng = random.Random(1)
    for _ in range(20):
        raw = bytearray(whole)
        for _ in range(2000):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        database.write_bytes(raw[: rng.randrange(len(raw))])
        pages = Pages(database)
        list(pages.records())
        pages.close()
    database.write_bytes(whole)
