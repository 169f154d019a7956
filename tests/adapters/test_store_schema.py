"""Settings, format and migrations of the database."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, RequestRefused
from lockbox_node.ports import StripeSummary, settled
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from tests.fakes.stripes import OWNER, FixedClock, make_stripe, node_of


@pytest.mark.parametrize("number", [3_040_001, 3_051_002])
def test_an_sqlite_with_the_wal_reset_defect_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=r"3\.51\.3 or later"):
        store_schema.require_sqlite(number)


def test_ours_is_new_enough() -> None:
    store_schema.require_sqlite(3_051_003)
    store_schema.require_sqlite(int(apsw.SQLITE_VERSION_NUMBER))


def test_a_new_database_has_the_settings_that_durability_rests_on(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "page_size": 4096,
        "auto_vacuum": 2,
        "wal_autocheckpoint": 0,
        "checksum_verification": "1",
        "application_id": store_schema.APPLICATION_ID,
        "user_version": len(store_schema.MIGRATIONS),
    }
    assert {name: connection.execute(f"PRAGMA {name}").get for name in wanted} == wanted
    assert not connection.execute("PRAGMA mmap_size").get
    connection.close()
    assert (tmp_path / store_schema.DATABASE).read_bytes()[20] == store_schema.CHECKSUM_BYTES


def test_row_ids_of_an_unfinished_run_are_skipped(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        connection = store_schema.open_database(tmp_path, b"")
        ids.append(int(connection.execute("SELECT next_rid FROM meta").get))
        connection.close()
    assert ids[1] - ids[0] == store_schema.RID_SKIP


def test_a_database_of_a_later_program_is_refused(tmp_path: Path) -> None:
    connection = store_schema.open_database(tmp_path, b"")
    connection.execute(f"PRAGMA user_version={len(store_schema.MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(ConfigError, match="format"):
        store_schema.open_database(tmp_path, b"")


def test_a_database_without_page_checksums_is_refused(tmp_path: Path) -> None:
    plain = apsw.Connection(str(tmp_path / store_schema.DATABASE))
    plain.execute("CREATE TABLE t(a)")
    plain.close()
    with pytest.raises(ConfigError, match="no page checksums"):
        store_schema.open_database(tmp_path, b"")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / store_schema.DATABASE).write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError):
        store_schema.open_database(tmp_path, b"")


def test_a_lost_marker_is_written_again(tmp_path: Path) -> None:
    store_schema.open_database(tmp_path, b"").close()
    marker = (tmp_path / "STORE").read_text()
    (tmp_path / "STORE").unlink()
    store_schema.open_database(tmp_path, b"").close()
    assert (tmp_path / "STORE").read_text() == marker


@pytest.mark.parametrize("number", range(1, len(store_schema.MIGRATIONS)))
async def test_a_database_of_every_earlier_format_opens_with_all_that_it_held(tmp_path: Path, number: int) -> None:
    """Each: five small parts, a large one, a pointer, a tombstone, as the program of that time wrote them."""
    with tarfile.open(Path(__file__).parent / "stores" / f"format{number}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    params = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0)
    store = ShardStoreFile.open(tmp_path, params, FixedClock(), node_of(1))
    parts = [make_stripe(seed).parts[1] for seed in range(5)]
    parts.append(make_stripe("big", groups=4, shard_bytes=20_000).parts[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for part in parts:
            assert await settled(partial(store.get, part.address, part.descriptor_hash)) == part
        with pytest.raises(RequestRefused) as refused:
            await settled(partial(store.put, make_stripe("gone", version=3).parts[0], (), OWNER))
        assert refused.value.code is ErrorCode.STALE
        holder = NodeId(parts[0].entries[0].node)
        sharing = sum(any(entry.node == holder for entry in part.entries) for part in parts)
        named: list[StripeSummary] = await settled(partial(store.held_with, holder))
        assert len(named) == sharing
        digests = await settled(store.digests)
        assert sum(one.count for one in digests) == len(parts)
        figures = store.figures()
        nursery.cancel_scope.cancel()
    assert (figures.stripes, figures.pointers, figures.tombstones, figures.trash_stripes) == (6, 1, 1, 0)
    connection = store_schema.connect(tmp_path / store_schema.DATABASE)
    assert connection.execute("PRAGMA user_version").get == len(store_schema.MIGRATIONS)
    assert connection.execute("SELECT sum(bytes), sum(parts) FROM usage").get == (figures.logical_bytes, 6)


def test_the_epoch_rises_with_every_start(tmp_path: Path) -> None:
    params = StoreParams(ballast_bytes=4096)
    epochs = []
    for _ in range(3):
        store = ShardStoreFile.open(tmp_path, params, FixedClock())
        epochs.append(store.epoch)
        store.close()
    assert epochs == [1, 2, 3]
