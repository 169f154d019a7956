"""Groups, savepoints, staged files and housekeeping of the writer, without trio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_files import BigFiles, BigHeader
from lockbox_node.adapters.store_requests import Bury, Expire, Merge, Put, Write
from lockbox_node.adapters.store_rows import logical_bytes
from lockbox_node.adapters.store_writer import StoreWriter
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import RequestRefused, StoreFull
from lockbox_node.ports import PutOutcome
from tests.fakes.stripes import OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAR = 2**40
PARAMS = StoreParams(
    ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, inside_bytes_max=2000, idle_rows_max=4
)
WAL_HEADER_BYTES = 32
BIG = 2000  # bytes of each of two shards: more than stays inside


@dataclass
class Desk:
    """A writer and its directory."""

    path: Path
    clock: FixedClock
    writer: StoreWriter
    files: BigFiles

    def big_names(self) -> list[str]:
        return sorted(path.name for path in (self.path / "big").glob("*/*"))

    def keep_house(self) -> None:
        while self.writer.idle():
            pass


def desk_at(path: Path, params: StoreParams = PARAMS) -> Desk:
    connection = store_schema.open_database(path, b"")
    files = BigFiles(path)
    files.prepare()
    clock = FixedClock()
    return Desk(path, clock, StoreWriter(path, connection, files, params, clock), files)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = desk_at(tmp_path)
    yield desk
    desk.writer.close()


def test_a_refused_request_is_taken_out_of_its_group(desk: Desk) -> None:
    stripe = make_stripe(1)
    puts = [Put(stripe.parts[0], (), OWNER), Put(stripe.parts[1], (), OWNER), Put(make_stripe(2).parts[0], (), OWNER)]
    results = desk.writer.commit(puts)
    assert [type(result) for result in results] == [PutOutcome, RequestRefused, PutOutcome]
    assert desk.writer.figures().stripes == 2


def test_requests_of_one_group_see_one_another_in_order(desk: Desk) -> None:
    stripe = make_stripe(1)
    group: list[Write] = [
        Put(stripe.parts[0], (), OWNER),
        Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, FAR),
        Put(stripe.parts[0], (), OWNER),
    ]
    results = desk.writer.commit(group)
    assert [type(result) for result in results] == [PutOutcome, type(None), RequestRefused]
    assert desk.writer.figures().logical_bytes == 0


def test_the_file_of_a_request_that_is_refused_in_its_group_goes(desk: Desk) -> None:
    stripe = make_stripe(1, shard_bytes=BIG)
    desk.writer.commit(
        [Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, FAR), Put(stripe.parts[0], (), OWNER)]
    )
    assert desk.big_names() == []


def test_two_equal_large_puts_of_one_group_leave_one_part(desk: Desk) -> None:
    part = make_stripe(1, shard_bytes=BIG).parts[0]
    results = desk.writer.commit([Put(part, (), OWNER), Put(part, (), OWNER)])
    assert [type(result) for result in results] == [PutOutcome, PutOutcome]
    assert desk.writer.figures().stripes == 1
    desk.keep_house()
    assert len(desk.big_names()) == 1


def test_a_full_store_writes_no_file(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, StoreParams(free_floor_bytes=2**62, inside_bytes_max=2000))
    (result,) = desk.writer.commit([Put(make_stripe(1, shard_bytes=BIG).parts[0], (), OWNER)])
    assert isinstance(result, StoreFull)
    assert desk.big_names() == []
    desk.writer.close()


def test_counters_come_back_with_the_database(tmp_path: Path) -> None:
    desk = desk_at(tmp_path)
    desk.writer.commit([Put(make_stripe(number).parts[0], (), OWNER) for number in range(5)])
    desk.writer.commit([Merge((make_stripe("pointer").table,), ())])
    before = desk.writer.figures()
    desk.writer.close()
    desk = desk_at(tmp_path)
    after = desk.writer.figures()
    assert (after.stripes, after.shards, after.pointers) == (5, 10, 1)
    assert after.logical_bytes == before.logical_bytes
    desk.writer.close()


def test_files_without_a_row_are_swept_after_a_start_and_others_stay(tmp_path: Path) -> None:
    desk = desk_at(tmp_path)
    desk.writer.commit([Put(make_stripe(1, shard_bytes=BIG).parts[0], (), OWNER)])
    kept = desk.big_names()
    orphan = BigHeader(b"\x05" * 32, bytes(32), 1, 5, 0, 1, 3)
    desk.files.write(orphan, [b"abc"])
    desk.writer.close()
    desk = desk_at(tmp_path)
    desk.keep_house()
    assert desk.big_names() == kept
    desk.writer.close()


def test_expired_pointers_go_when_it_is_quiet(desk: Desk) -> None:
    desk.writer.commit([Merge(tuple(make_stripe(number).table for number in range(9)), ())])
    assert desk.writer.figures().pointers == 9
    desk.clock.now += PARAMS.pointer_ttl_s
    desk.keep_house()
    assert desk.writer.figures().pointers == 0


def test_the_wal_is_empty_when_it_is_quiet(desk: Desk) -> None:
    desk.writer.commit([Put(make_stripe(1).parts[0], (), OWNER)])
    assert desk.writer.wal_pages > 0
    desk.keep_house()
    assert desk.writer.wal_pages == 0
    assert (desk.path / "shards.db-wal").stat().st_size == 0


def test_free_pages_go_back_to_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockbox_node.adapters.store_writer.FREE_PAGES_KEPT", 10)
    desk = desk_at(tmp_path)
    desk.writer.commit([Put(make_stripe(number).parts[0], (), OWNER) for number in range(100)])
    full = desk.writer.figures().disk_bytes
    stripes = [make_stripe(number) for number in range(100)]
    desk.writer.commit([Bury(s.signer.tombstone(1), s.signer.address, 1, FAR) for s in stripes])
    desk.keep_house()
    assert desk.writer.figures().disk_bytes < full / 2
    desk.writer.close()


def test_the_figures_are_what_the_disk_says(desk: Desk) -> None:
    """database, WAL and large files, in use and after housekeeping; logical and trash are what was put."""
    parts = [make_stripe(number, shard_bytes=BIG if number % 3 == 0 else 300).parts[0] for number in range(30)]
    desk.writer.commit([Put(part, (), OWNER) for part in parts])
    for _ in range(2):
        files = [path for path in desk.path.rglob("*") if path.is_file() and "-shm" not in path.name]
        taken = sum(path.stat().st_size for path in files if path.name not in ("STORE", "ballast", "lock"))
        assert abs(desk.writer.figures().disk_bytes - taken) <= WAL_HEADER_BYTES
        desk.keep_house()
    desk.clock.now = parts[0].lease_until_unix_s
    while any(isinstance(moved, int) and moved for moved in desk.writer.commit([Expire(desk.clock.now, 0)])):
        pass
    figures = desk.writer.figures()
    assert (figures.logical_bytes, figures.trash_bytes) == (0, sum(logical_bytes(part) for part in parts))
    assert figures.reserved_bytes == (desk.path / "ballast").stat().st_blocks * 512 == PARAMS.ballast_bytes
