"""What the rows add up to, over refusals, rollbacks, folds and reopenings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_books import Books
from lockbox_node.adapters.store_rows import PartRow, logical_bytes, pack_entries
from tests.fakes.stripes import make_stripe

if TYPE_CHECKING:
    from pathlib import Path

    import apsw


def row_of(seed: object, owner: bytes = b"owner") -> PartRow:
    part = make_stripe(seed).parts[0]
    return PartRow(
        1, part.address, part.descriptor_hash, 1, 1, 9, 0, 0, 0, 2, 300, logical_bytes(part),
        pack_entries(part.entries), -1, owner, b"",
    )  # fmt: skip


def commit(connection: apsw.Connection, books: Books, *rows: PartRow) -> None:
    connection.execute("BEGIN")
    for row in rows:
        books.came(row)
    books.save()
    connection.execute("COMMIT")
    books.saved()


def test_digests_and_usage_survive_a_reopening_folded_or_not(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    books = Books(connection)
    commit(connection, books, row_of(1), row_of(2))
    books.fold()
    commit(connection, books, row_of(3))
    seen = books.digests()
    assert sum(one.count for one in seen) == 3
    connection.close()
    again = Books(store_schema.open_database(tmp_path, b""))
    assert again.digests() == seen
    assert again.used_bytes(b"owner") == again.tally.logical_bytes > 0
    again.fold()
    assert Books(again._connection).digests() == seen


def test_what_went_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    books = Books(connection)
    row = row_of(1)
    commit(connection, books, row)
    connection.execute("BEGIN")
    books.went(row)
    books.save()
    connection.execute("COMMIT")
    books.saved()
    assert books.digests() == []
    assert books.used_bytes(b"owner") == 0
    assert connection.execute("SELECT count(*) FROM usage").get == 0


def test_a_refused_request_is_not_counted(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    books = Books(connection)
    connection.execute("BEGIN")
    mark = books.mark()
    connection.execute("SAVEPOINT request")
    books.came(row_of(1))
    connection.execute("ROLLBACK TO request")
    books.back_to(mark)
    books.came(row_of(2))
    books.save()
    connection.execute("COMMIT")
    books.saved()
    assert (books.tally.stripes, sum(one.count for one in books.digests())) == (1, 1)


def test_trash_is_in_no_digest_and_comes_back(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    books = Books(connection)
    commit(connection, books, row_of(1))
    before = books.digests()
    books.trashed(row_of(1))
    books.saved()
    assert books.digests() == []
    assert books.tally.trash_bytes == books.tally.logical_bytes
    books.recovered(row_of(1))
    books.saved()
    assert books.digests() == before
    assert books.tally.trash_bytes == 0
