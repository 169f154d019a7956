"""The index that is written behind: what it finds is the same before, while and after it catches up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import apsw
import pytest

from lockbox_node.adapters import store_names
from lockbox_node.adapters.store_names import page_with
from lockbox_node.adapters.store_requests import Bury, Merge, Put
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError
from protocol.ids import NodeId
from protocol.messages import HolderEntry, HolderTable
from tests.fakes.stepped_store import SteppedStore
from tests.fakes.stripes import OWNER, make_stripe, node_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lockbox_node.ports import StripeSummary

PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, scan_rows_max=3)


@pytest.fixture
def stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SteppedStore]:
    monkeypatch.setattr(store_names, "FOLD_ROWS", 4)
    monkeypatch.setattr(store_names, "BLOCK", 3)
    stepped = SteppedStore(tmp_path, PARAMS)
    yield stepped
    stepped.close()


def put(stepped: SteppedStore, *numbers: int) -> None:
    for number in numbers:
        part = make_stripe(number, holders=range(number, number + 10)).parts[0]
        stepped.store._writer.commit([Put(part, (), OWNER)])


def found(stepped: SteppedStore, node: int) -> list[bytes]:
    answer: list[StripeSummary] | LockboxError = stepped.ask(partial(stepped.store.held_with, NodeId(node_of(node))))
    assert not isinstance(answer, LockboxError)
    return [summary.address for summary in answer]


def addresses(*numbers: int) -> list[bytes]:
    return [make_stripe(number).signer.address for number in numbers]


def part_row(stepped: SteppedStore, number: int) -> int:
    sql = "SELECT rid FROM part WHERE address = ?"
    return int(stepped.store._writer._connection.execute(sql, (make_stripe(number).signer.address,)).get)


def indexed(stepped: SteppedStore) -> list[int]:
    """The row ids in the index."""
    rids = set()
    for block, places in stepped.store._writer._connection.execute("SELECT block, places FROM named"):
        rids |= {block * store_names.BLOCK + place for place in store_names._unpack(places)}
    return sorted(rids)


def test_parts_are_found_before_while_and_after_the_index_catches_up(stepped: SteppedStore) -> None:
    put(stepped, *range(7))
    assert found(stepped, 5) == addresses(*range(6))
    assert stepped.store._writer._changes.names.fold()
    assert found(stepped, 5) == addresses(*range(6))
    put(stepped, 7, 8)
    stepped.rest()
    put(stepped, 9)
    assert found(stepped, 9) == addresses(*range(10))
    assert found(stepped, 15) == addresses(6, 7, 8, 9)


def test_what_is_found_comes_page_by_page_over_the_end_of_the_index(stepped: SteppedStore) -> None:
    put(stepped, *range(5))
    stepped.rest()
    put(stepped, *range(5, 9))
    connection = stepped.store._reader._connection
    after, seen = -1, []
    while page := page_with(connection, node_of(8), after, 2):
        seen += [row.address for row in page]
        after = page[-1].rid
    assert seen == addresses(*range(9))


def test_the_index_follows_tables_and_deletes(stepped: SteppedStore) -> None:
    put(stepped, 1, 2)
    stepped.rest()
    table = make_stripe(1, holders=range(1, 11)).table
    late = HolderTable(table.address, 1, table.descriptor_hash, [HolderEntry(3, node_of(50), 9)])
    stepped.store._writer.commit([Merge((late,), ())])
    assert found(stepped, 50) == addresses(1)
    gone = make_stripe(2)
    stepped.store._writer.commit([Bury(gone.signer.tombstone(1), gone.signer.address, 1, 2**40)])
    assert found(stepped, 5) == addresses(1)
    assert indexed(stepped) == [part_row(stepped, 1)]


def test_a_row_whose_parts_are_all_gone_goes_too(stepped: SteppedStore) -> None:
    put(stepped, *range(5))
    stepped.rest()
    gone = [make_stripe(number) for number in range(5)]
    stepped.store._writer.commit([Bury(one.signer.tombstone(1), one.signer.address, 1, 2**40) for one in gone])
    assert stepped.store._writer._connection.execute("SELECT count(*) FROM named").get == 0


def test_what_a_failed_transaction_would_have_changed_is_forgotten(stepped: SteppedStore) -> None:
    put(stepped, 1, 2)
    stepped.rest()
    writer, gone = stepped.store._writer, make_stripe(1)
    writer._connection.set_commit_hook(lambda: True)
    with pytest.raises(apsw.ConstraintError):
        writer.commit([Bury(gone.signer.tombstone(1), gone.signer.address, 1, 2**40)])
    writer._connection.set_commit_hook(None)
    put(stepped, 3)
    assert found(stepped, 5) == addresses(1, 2, 3)
    assert indexed(stepped) == [part_row(stepped, 1), part_row(stepped, 2)]


def test_a_checkpoint_catches_up_only_when_enough_parts_wait(stepped: SteppedStore) -> None:
    put(stepped, 1)
    stepped.rest()
    put(stepped, 2, 3, 4)
    stepped.store._writer.checkpoint()
    assert indexed(stepped) == [part_row(stepped, 1)]
    put(stepped, 5)
    stepped.store._writer.checkpoint()
    assert len(indexed(stepped)) == 5


def test_a_reopened_store_goes_on_where_the_index_ended(tmp_path: Path) -> None:
    stepped = SteppedStore(tmp_path, PARAMS)
    put(stepped, 1)
    stepped.rest()
    put(stepped, 2)
    stepped.close()
    stepped = SteppedStore(tmp_path, PARAMS)
    put(stepped, 3)
    assert found(stepped, 5) == addresses(1, 2, 3)
    stepped.rest()
    assert found(stepped, 5) == addresses(1, 2, 3)
    stepped.close()
