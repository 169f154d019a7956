"""The store on a real disk: kills, flipped bits, foreign directories, full queues, and a disk that fails."""

from __future__ import annotations

import contextlib
import resource
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, LockboxError, ShardCorrupt, ShardMissing, StoreFull
from lockbox_node.ports import PutOutcome, StripePart, settled
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from tests.fakes.store_damage import flip_shard_bit
from tests.fakes.stripes import OWNER, FixedClock, make_stripe, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.real
PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, idle_s=0.01)
BIG: dict[str, Any] = {"groups": 4, "shard_bytes": 20_000}


@contextlib.asynccontextmanager
async def serving(data_dir: Path, params: StoreParams = PARAMS) -> AsyncIterator[ShardStoreFile]:
    store = ShardStoreFile.open(data_dir, params, FixedClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: ShardStoreFile, part: StripePart) -> PutOutcome:
    return await settled(partial(store.put, part, (), OWNER))


async def get(store: ShardStoreFile, part: StripePart) -> StripePart:
    return await settled(partial(store.get, part.address, part.descriptor_hash))


async def until(condition: trio.Event) -> None:
    with trio.fail_after(5):
        await condition.wait()


async def wait_until_swept(store: ShardStoreFile) -> None:
    """Housekeeping has run through all folders when a truncated WAL shows in the figures."""
    before = -1
    while store.figures().disk_bytes != before:
        before = store.figures().disk_bytes
        await trio.sleep(0.5)


def rows_of(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_everything_is_there_after_a_clean_stop(tmp_path: Path) -> None:
    small, big = make_stripe(1).parts[0], make_stripe(2, **BIG).parts[0]
    async with serving(tmp_path) as store:
        await put(store, small)
        await put(store, big)
        before = store.figures()
    assert not (tmp_path / "shards.db-wal").exists()
    async with serving(tmp_path) as store:
        assert await get(store, small) == small
        assert await get(store, big) == big
        after = store.figures()
    assert (after.stripes, after.shards, after.logical_bytes) == (2, 6, before.logical_bytes)


async def test_a_flipped_bit_in_a_database_page_is_never_a_wrong_byte(tmp_path: Path) -> None:
    parts = [make_stripe(number).parts[0] for number in range(50)]
    async with serving(tmp_path) as store:
        for part in parts:
            await put(store, part)
    path = tmp_path / "shards.db"
    raw = bytearray(path.read_bytes())
    victim = parts[20].shards[0]
    raw[raw.index(victim) + 5] ^= 1
    path.write_bytes(raw)
    told: list[bytes] = []
    async with serving(tmp_path) as store:
        store.on_corrupt = lambda address, _hash: told.append(address)
        with pytest.raises(ShardCorrupt):
            await get(store, parts[20])
        intact = 0
        for part in parts:
            with contextlib.suppress(ShardCorrupt):
                assert await get(store, part) == part
                intact += 1
        assert intact >= 45
        await put(store, make_stripe("others still go in").parts[0])
        assert parts[20].address in told
        await put(store, parts[20])
        assert await get(store, parts[20]) == parts[20]
        tombstone = make_stripe(20).signer.tombstone(1)
        await settled(partial(store.delete, tombstone, parts[20].address, 1, 2**40))
        with pytest.raises(ShardMissing):
            await get(store, parts[20])
        assert not store.broken


async def test_a_corrupt_file_goes_to_quarantine_and_goes_for_good_when_it_is_replaced(tmp_path: Path) -> None:
    part = make_stripe(1, **BIG).parts[0]
    told = trio.Event()
    async with serving(tmp_path) as store:
        store.on_corrupt = lambda _address, _hash: told.set()
        await put(store, part)
        flip_shard_bit(tmp_path, part)
        with pytest.raises(ShardCorrupt):
            await get(store, part)
        await until(told)
        assert len(list((tmp_path / "quarantine").iterdir())) == 1
        assert not list((tmp_path / "big").glob("*/*"))
        await put(store, part)
        assert await get(store, part) == part
        await wait_until_swept(store)
        assert not list((tmp_path / "quarantine").iterdir())


async def test_a_missing_file_is_a_corrupt_part(tmp_path: Path) -> None:
    part = make_stripe(1, **BIG).parts[0]
    async with serving(tmp_path) as store:
        await put(store, part)
        for path in (tmp_path / "big").glob("*/*"):
            path.unlink()
        with pytest.raises(ShardCorrupt):
            await get(store, part)
        await put(store, make_stripe(2).parts[0])
        assert store.figures().corrupt == 1


async def test_the_files_of_deleted_parts_go_when_it_is_quiet(tmp_path: Path) -> None:
    stripe = make_stripe(1, **BIG)
    async with serving(tmp_path) as store:
        await put(store, stripe.parts[0])
        await settled(partial(store.delete, stripe.signer.tombstone(1), stripe.signer.address, 1, 2**40))
        await wait_until_swept(store)
        assert not list((tmp_path / "big").glob("*/*"))


async def test_a_second_daemon_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path):
        code = (
            "from pathlib import Path; from lockbox_node.adapters.shard_store import ShardStoreFile;"
            "from lockbox_node.core.storage_params import StoreParams; from tests.fakes.stripes import FixedClock;"
            f"ShardStoreFile.open(Path({str(tmp_path)!r}), StoreParams(), FixedClock())"
        )
        ended = await trio.run_process([sys.executable, "-c", code], capture_stderr=True, check=False)
        assert b"another lockbox-node already runs" in ended.stderr
    ShardStoreFile.open(tmp_path, PARAMS, FixedClock()).close()


def test_a_database_of_another_store_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ShardStoreFile.open(tmp_path / name, PARAMS, FixedClock()).close()
    (tmp_path / "a" / "STORE").write_bytes((tmp_path / "b" / "STORE").read_bytes())
    with pytest.raises(ConfigError, match="belongs to store"):
        ShardStoreFile.open(tmp_path / "a", PARAMS, FixedClock())


def test_a_lost_database_is_not_an_empty_store(tmp_path: Path) -> None:
    ShardStoreFile.open(tmp_path, PARAMS, FixedClock()).close()
    (tmp_path / "shards.db").unlink()
    with pytest.raises(ConfigError, match="disk is missing"):
        ShardStoreFile.open(tmp_path, PARAMS, FixedClock())


def test_the_data_dir_of_another_node_is_refused(tmp_path: Path) -> None:
    ShardStoreFile.open(tmp_path, PARAMS, FixedClock(), NodeId(node_of(1))).close()
    ShardStoreFile.open(tmp_path, PARAMS, FixedClock(), NodeId(node_of(1))).close()
    with pytest.raises(ConfigError, match="not of"):
        ShardStoreFile.open(tmp_path, PARAMS, FixedClock(), NodeId(node_of(2)))


def test_a_full_queue_answers_busy_at_once(tmp_path: Path) -> None:
    params = StoreParams(group_requests_max=2, write_queue_max=4, read_queue_max=4, idle_s=0.01)
    store = ShardStoreFile.open(tmp_path, params, FixedClock())
    answers: list[object] = []
    for number in range(6):
        store.put(make_stripe(number).parts[0], (), OWNER, answers.append)
        store.get(make_stripe(number).parts[0].address, make_stripe(number).parts[0].descriptor_hash, answers.append)
    assert len(answers) == 4
    assert all(isinstance(answer, LockboxError) and answer.code is ErrorCode.BUSY for answer in answers)
    store.close()
    assert len(answers) == 12
    store.put(make_stripe(1).parts[0], (), OWNER, answers.append)
    assert isinstance(answers[-1], LockboxError)


async def test_a_disk_below_its_floor_takes_nothing_but_deletes(tmp_path: Path) -> None:
    async with serving(tmp_path, StoreParams(ballast_bytes=4096, free_floor_bytes=2**62, idle_s=0.01)) as store:
        for shape in ({}, BIG):
            with pytest.raises(StoreFull):
                await put(store, make_stripe(1, **shape).parts[0])
        await settled(
            partial(store.delete, make_stripe(1).signer.tombstone(1), make_stripe(1).signer.address, 1, 2**40)
        )
        assert store.figures().tombstones == 1
    assert not list((tmp_path / "big").glob("*/*"))


@contextlib.contextmanager
def failing_disk(limit_bytes: int) -> Iterator[None]:
    """No file may grow beyond the limit: the kernel answers writes with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("shape", [{}, {"groups": 4, "shard_bytes": 200_000}], ids=["database", "file"])
async def test_a_write_error_makes_the_store_read_only_for_good(tmp_path: Path, shape: dict[str, Any]) -> None:
    first = make_stripe("before").parts[0]
    told: list[str] = []
    async with serving(tmp_path) as store:
        store.on_broken = told.append
        await put(store, first)
        with failing_disk(100_000), contextlib.suppress(LockboxError):
            for number in range(200):
                await put(store, make_stripe(number, **shape).parts[0])
        with pytest.raises(LockboxError, match="read-only"):
            await put(store, make_stripe("after").parts[0])
        assert await get(store, first) == first
        assert len(told) == 1
        assert store.broken
    async with serving(tmp_path) as store:
        assert await get(store, first) == first
        await put(store, make_stripe("after").parts[0])
