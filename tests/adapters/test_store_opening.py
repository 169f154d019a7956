"""When a store is salvaged: at its start, while it serves, and not again and again."""

from __future__ import annotations

import contextlib
import errno
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.disk import DISK, Disk
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.adapters.store_requests import Put
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, LockboxError
from lockbox_node.ports import StripePart, settled
from tests.fakes.stripes import OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

pytestmark = pytest.mark.real
PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, idle_s=0.01)
PARTS = [make_stripe(number).parts[0] for number in range(30)]


@contextlib.asynccontextmanager
async def serving(data_dir: Path, told: list[int], disk: Disk = DISK) -> AsyncIterator[ShardStoreFile]:
    store = ShardStoreFile.open(data_dir, PARAMS, FixedClock(), disk=disk)
    store.on_lost = told.append
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def fill(data_dir: Path) -> None:
    async with serving(data_dir, []) as store:
        for part in PARTS:
            await settled(partial(store.put, part, (), OWNER))


async def get(store: ShardStoreFile, part: StripePart) -> StripePart:
    return await settled(partial(store.get, part.address, part.descriptor_hash))


def zero_page(data_dir: Path, name: str) -> None:
    """Zero the root page of a table or an index."""
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    page = int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).get)
    connection.close()
    zero(data_dir, page)


def zero(data_dir: Path, page: int) -> None:
    with open(data_dir / store_schema.DATABASE, "r+b") as file:
        file.seek((page - 1) * store_schema.PAGE_BYTES)
        file.write(bytes(store_schema.PAGE_BYTES))


@pytest.mark.parametrize("name", ["meta", "digest", "note"])
async def test_a_start_meets_damage_and_goes_on(tmp_path: Path, name: str) -> None:
    await fill(tmp_path)
    zero_page(tmp_path, name)
    told: list[int] = []
    async with serving(tmp_path, told) as store:
        assert told == [0]
        for part in PARTS:
            assert await get(store, part) == part
        assert (store.figures().salvaged, store.figures().stripes) == (1, len(PARTS))
    async with serving(tmp_path, told) as store:
        assert (told, store.figures().salvaged) == ([0], 0)


async def test_a_first_page_of_zeros_is_salvaged(tmp_path: Path) -> None:
    await fill(tmp_path)
    zero(tmp_path, 1)
    async with serving(tmp_path, []) as store:
        assert await get(store, PARTS[3]) == PARTS[3]


async def test_damage_met_while_serving_is_mended_while_others_wait(tmp_path: Path) -> None:
    await fill(tmp_path)
    zero_page(tmp_path, "tomb")
    told: list[int] = []
    async with serving(tmp_path, told) as store:
        assert told == []
        late = make_stripe("late").parts[0]
        with pytest.raises(LockboxError, match="damaged"):
            await settled(partial(store.put, late, (), OWNER))
        await settled(partial(store.put, late, (), OWNER))
        assert told == [0]
        assert await get(store, late) == late
        assert await get(store, PARTS[29]) == PARTS[29]
        assert store.figures().stripes == len(PARTS) + 1
        assert not store.broken


async def test_a_reader_that_meets_damage_wakes_the_salvage(tmp_path: Path) -> None:
    await fill(tmp_path)
    zero_page(tmp_path, "part_identity")
    mended = trio.Event()
    async with serving(tmp_path, []) as store:
        store.on_lost = lambda _lost: mended.set()
        with pytest.raises(LockboxError):
            await settled(partial(store.summaries, b"", 100))
        with trio.fail_after(20):
            await mended.wait()
        assert len(await settled(partial(store.summaries, b"", 100))) == len(PARTS)


async def test_a_backup_ends_before_its_database_is_exchanged(tmp_path: Path) -> None:
    await fill(tmp_path)
    mended = trio.Event()
    async with serving(tmp_path, []) as store:
        store.on_lost = lambda _lost: mended.set()
        store.holds += 1
        store._writer.damaged = True
        for number in range(3):  # groups of their own: between two of them a salvage would begin
            await settled(partial(store.put, make_stripe(("late", number)).parts[0], (), OWNER))
        assert not mended.is_set()
        store.holds -= 1
        await settled(partial(store.note, "cursor", b""))
        with trio.fail_after(20):
            await mended.wait()


async def test_a_disk_that_goes_on_losing_pages_makes_the_store_read_only(tmp_path: Path) -> None:
    await fill(tmp_path)
    broken: list[str] = []
    async with serving(tmp_path, []) as store:
        store.on_broken = broken.append
        for _ in range(2):
            store._writer.damaged = True
            with contextlib.suppress(LockboxError):
                await settled(partial(store.note, "cursor", b""))
            with contextlib.suppress(LockboxError):
                await settled(partial(store.note, "cursor", b""))
        assert ["damaged again" in why for why in broken] == [True]
        with pytest.raises(LockboxError, match="read-only"):
            await settled(partial(store.put, make_stripe("late").parts[0], (), OWNER))
        assert await get(store, PARTS[0]) == PARTS[0]


async def test_without_room_for_a_rebuilt_database_the_store_is_read_only(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with serving(tmp_path, []) as store:
        (tmp_path / "shards.salvage").mkdir()
        store._writer.damaged = True
        with contextlib.suppress(LockboxError):
            await settled(partial(store.note, "cursor", b""))
        with pytest.raises(LockboxError, match="could not be rebuilt"):
            await settled(partial(store.put, make_stripe("late").parts[0], (), OWNER))
        assert await get(store, PARTS[0]) == PARTS[0]


class UnreadableFiles(Disk):
    """Large files cannot be read."""

    def read(self, path: Path, spans: Iterable[tuple[int, int]]) -> tuple[bytes, ...]:
        raise OSError(errno.EIO, "Input/output error", str(path))


async def test_why_a_store_is_read_only_names_no_asset(tmp_path: Path) -> None:
    large = make_stripe("large", shard_bytes=100_000).parts[0]
    async with serving(tmp_path, []) as store:
        await settled(partial(store.put, large, (), OWNER))
    zero_page(tmp_path, "part")
    disk = UnreadableFiles()
    async with serving(tmp_path, [], disk) as store:
        for _ in range(2):
            with contextlib.suppress(LockboxError):
                await settled(partial(store.put, large, (), OWNER))
        assert "Input/output error" in store.broken
        assert large.address.hex() not in store.broken


async def test_damage_without_the_store_s_marker_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "STORE").unlink()
    zero(tmp_path, 1)
    with pytest.raises(ConfigError):
        ShardStoreFile.open(tmp_path, PARAMS, FixedClock())


def put_request(number: int) -> Put:
    return Put(make_stripe(("wal", number)).parts[0], (), OWNER)


async def test_a_torn_wal_is_doubted_and_a_damaged_one_loses_nothing(tmp_path: Path) -> None:
    await fill(tmp_path)
    store = ShardStoreFile.open(tmp_path, PARAMS, FixedClock())
    for number in range(3):
        store._writer._changes.room_bytes = 2**40
        store._writer.commit([put_request(number)])
    raw = (tmp_path / "shards.db-wal").read_bytes()
    store._writer.let_go()
    store._reader.close()
    for at, salvaged in ((len(raw) - 100, 0), (2000, 1)):
        path = tmp_path / f"copy{at}"
        path.mkdir()
        for name in ("shards.db", "STORE"):
            (path / name).write_bytes((tmp_path / name).read_bytes())
        (path / "shards.db-wal").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        told: list[int] = []
        async with serving(path, told) as again:
            assert (told, again.figures().salvaged) == ([0], salvaged)
            for number in range(2):
                part = make_stripe(("wal", number)).parts[0]
                assert await get(again, part) == part
