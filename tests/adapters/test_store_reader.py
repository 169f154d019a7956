"""Groups of reads: bounded by bytes, in one snapshot, scans in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_reader import MORE, Check, CheckResult, Damage, Get, HeldWith, Look, StoreReader
from lockbox_node.adapters.store_requests import Bury, Put
from lockbox_node.adapters.store_writer import StoreWriter
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import SlotView, StripePart
from protocol.errors import ErrorCode
from tests.fakes.stripes import OWNER, FixedClock, make_stripe, node_of

if TYPE_CHECKING:
    from pathlib import Path

FAR = 2**40
PARAMS = StoreParams(
    ballast_bytes=4096,
    free_floor_bytes=0,
    free_floor_percent=0.0,
    inside_bytes_max=1000,
    read_group_bytes_max=5000,
    scan_rows_max=4,
)
Pair = tuple[StoreWriter, StoreReader]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    connection = store_schema.open_database(tmp_path, b"")
    files = BigFiles(tmp_path)
    files.prepare()
    clock = FixedClock()
    reading = store_schema.connect(tmp_path / store_schema.DATABASE)
    return StoreWriter(tmp_path, connection, files, PARAMS, clock), StoreReader(reading, files, PARAMS, clock)


def test_a_group_stops_at_its_bytes(pair: Pair) -> None:
    writer, reader = pair
    parts = [make_stripe(number, shard_bytes=2000).parts[0] for number in range(4)]
    writer.commit([Put(part, (), OWNER) for part in parts])
    results = reader.read([Get(part.address, part.descriptor_hash) for part in parts])
    assert results == parts[:2]


def test_a_part_that_goes_while_it_is_read_is_not_called_corrupt(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = pair
    stripe = make_stripe(1, shard_bytes=2000)
    part = stripe.parts[0]
    writer.commit([Put(part, (), OWNER)])
    verified = reader._verified

    def deleted_meanwhile(row: object) -> StripePart:
        writer.commit([Bury(stripe.signer.tombstone(1), part.address, 1, FAR)])
        while writer.idle():
            pass
        return verified(row)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "_verified", deleted_meanwhile)
    (result,) = reader.read([Get(part.address, part.descriptor_hash)])
    assert isinstance(result, LockboxError)
    assert result.code is ErrorCode.BUSY
    monkeypatch.undo()
    (result,) = reader.read([Get(part.address, part.descriptor_hash)])
    assert isinstance(result, ShardMissing)


def test_a_lost_file_is_damage(pair: Pair, tmp_path: Path) -> None:
    writer, reader = pair
    part = make_stripe(1, shard_bytes=2000).parts[0]
    writer.commit([Put(part, (), OWNER)])
    for path in (tmp_path / "big").glob("*/*"):
        path.unlink()
    (result,) = reader.read([Get(part.address, part.descriptor_hash)])
    assert isinstance(result, Damage)
    assert result.rid is not None


def test_a_scan_goes_on_in_pages(pair: Pair) -> None:
    writer, reader = pair
    writer.commit([Put(make_stripe(number).parts[0], (), OWNER) for number in range(10)])
    scan = HeldWith(node_of(1))
    pages = 1
    while reader.read([scan]) == [MORE]:
        pages += 1
    assert pages == 3
    assert len({summary.address for summary in scan.found}) == 10


def test_a_look_shows_no_shards(pair: Pair) -> None:
    writer, reader = pair
    part = make_stripe(1).parts[0]
    writer.commit([Put(part, (), OWNER)])
    (view,) = reader.read([Look(part.address)])
    assert isinstance(view, SlotView)
    assert view.parts[0].shards == ()
    assert view.parts[0].slots == part.slots


def test_a_check_ends_after_one_part_while_somebody_waits(pair: Pair) -> None:
    writer, reader = pair
    parts = [make_stripe(number).parts[0] for number in range(3)]
    writer.commit([Put(part, (), OWNER) for part in parts])
    after, steps = b"", 0
    while True:
        (result,) = reader.read([Check(after, 4)], lambda: True)
        assert isinstance(result, CheckResult)
        assert result.checked.parts == 1
        after, steps = result.checked.after, steps + 1
        if result.checked.done:
            break
    assert steps == 3
    (result,) = reader.read([Check(b"", 4)], lambda: False)
    assert isinstance(result, CheckResult)
    assert result.checked.parts == 3
