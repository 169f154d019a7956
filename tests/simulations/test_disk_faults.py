"""A simulated disk shows every fault as a real one does: no room, rot, failing flushes, too much that waits."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, LockboxError, ShardCorrupt, StoreFull
from lockbox_node.ports import PutOutcome, settled
from protocol.errors import ErrorCode
from simulations.disk import SimDisk
from simulations.memory_store import put_weight
from tests.fakes.stripes import OWNER, FixedClock, make_stripe
from tests.simulations.disks import (
    PARTS,
    SEEDS,
    failure_of,
    get,
    make_disk,
    put,
    serving,
    state_of,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


# Faults


async def test_a_full_disk_takes_nothing_but_deletes_and_small_things(autojump_clock: MockClock) -> None:
    disk = make_disk()
    stripe = make_stripe("told")
    async with serving(disk) as store:
        await put(store, PARTS[0])
        disk.fill()
        assert store.figures().reserved_bytes == 0
        with pytest.raises(StoreFull):
            await put(store, PARTS[1])
        assert await put(store, PARTS[0]) == PutOutcome(())
        await settled(partial(store.merge, (stripe.table,), ()))
        assert store.figures().pointers == 0
        await settled(partial(store.note, "still", b"noted"))
        await settled(partial(store.delete, make_stripe(0).signer.tombstone(1), PARTS[0].address, 1, 2**40))
        assert store.figures().stripes == 0
        assert store.broken == ""
        disk.fill(full=False)
        await put(store, PARTS[1])
        assert await get(store, PARTS[1]) == PARTS[1]


async def test_a_full_disk_takes_no_mended_part(autojump_clock: MockClock) -> None:
    disk = make_disk()
    async with serving(disk) as store:
        await put(store, PARTS[0])
        disk.rot(Random(1))
        assert await state_of(store, PARTS[0]) == "torn"
        disk.fill()
        with pytest.raises(StoreFull):
            await put(store, PARTS[0])


@pytest.mark.parametrize("by", ["get", "check"])
async def test_rot_is_found_told_once_and_remembered(by: str, autojump_clock: MockClock) -> None:
    disk = make_disk()
    told: list[tuple[bytes, bytes]] = []
    async with serving(disk) as store:
        store.on_corrupt = lambda *key: told.append(key)
        for part in PARTS:
            await put(store, part)
        rotten = disk.rot(Random(3))
        assert rotten is not None
        assert store.figures().corrupt == 0
        for _ in range(3):
            if by == "get":
                refused = await failure_of(partial(store.get, *rotten))
                assert isinstance(refused, ShardCorrupt)
            else:
                assert (await settled(partial(store.check, b"", 100))).corrupt == 1
        await settled(partial(store.note, "after", b"the quarantine"))
        assert told == [rotten]
    async with serving(disk) as store:
        assert store.figures().corrupt == 1
        (corrupt,) = [found for found in await settled(partial(store.summaries, b"", 100)) if found.corrupt]
        assert (corrupt.address, corrupt.descriptor_hash) == rotten


async def test_rot_spares_what_is_damaged_already_and_an_empty_disk(autojump_clock: MockClock) -> None:
    disk = make_disk()
    assert disk.rot(Random(1)) is None
    async with serving(disk) as store:
        for part in PARTS[:2]:
            await put(store, part)
        hit = []
        for seed in range(2):
            rotten = disk.rot(Random(seed))
            assert rotten is not None
            hit.append(rotten)
            await settled(partial(store.check, b"", 100))
            await settled(partial(store.note, "after", b"the quarantine"))
        assert sorted(hit) == sorted((part.address, part.descriptor_hash) for part in PARTS[:2])
        assert disk.rot(Random(1)) is None


async def test_rot_that_is_mended_while_it_is_marked_is_not_told(autojump_clock: MockClock) -> None:
    disk = make_disk()
    told: list[tuple[bytes, bytes]] = []
    async with serving(disk) as store:
        store.on_corrupt = lambda *key: told.append(key)
        await put(store, PARTS[0])
        rotten = disk.rot(Random(1))
        assert rotten is not None
        store.drop(*rotten, lambda _result: None)
        assert isinstance(await failure_of(partial(store.get, *rotten)), ShardCorrupt)
        await put(store, PARTS[0])
        await settled(partial(store.note, "after", b"the quarantine"))
        assert told == []
        assert await get(store, PARTS[0]) == PARTS[0]


async def test_a_failing_disk_breaks_the_store_once_and_what_stands_is_still_read(autojump_clock: MockClock) -> None:
    disk = make_disk()
    told: list[str] = []
    async with serving(disk) as store:
        store.on_broken = told.append
        await put(store, PARTS[0])
        disk.fail()
        assert store.broken == ""
        for _ in range(2):
            refused = await failure_of(partial(store.put, PARTS[1], (), OWNER))
            assert "read-only" in str(refused)
        assert "input/output error" in store.broken
        assert told == [store.broken]
        assert await get(store, PARTS[0]) == PARTS[0]
        disk.fail(failing=False)
        assert "read-only" in str(await failure_of(partial(store.put, PARTS[1], (), OWNER)))
        assert await state_of(store, PARTS[1]) == "lost"


async def test_a_failed_flush_is_undecided_until_the_next_life(autojump_clock: MockClock) -> None:
    found = set()
    for seed in SEEDS:
        disk = make_disk(seed)
        async with serving(disk) as store:
            await put(store, PARTS[0])
            disk.fail()
            await failure_of(partial(store.put, PARTS[1], (), OWNER))
            await failure_of(partial(store.put, PARTS[2], (), OWNER))
            if seed % 2:
                disk.crash()
        with pytest.raises(ConfigError):
            disk.open()
        disk.fail(failing=False)
        async with serving(disk) as store:
            assert await state_of(store, PARTS[0]) == "kept"
            assert await state_of(store, PARTS[2]) == "lost"
            found.add((seed % 2, await state_of(store, PARTS[1])))
    assert found == {(crashed, state) for crashed in (0, 1) for state in ("lost", "torn", "kept")}


# Bounds


def test_a_full_queue_answers_busy_at_once() -> None:
    store = make_disk(params=StoreParams(group_requests_max=2, write_queue_max=4, read_queue_max=4)).open()
    answers: list[object] = []
    for part in PARTS[:6]:
        store.put(part, (), OWNER, answers.append)
        store.get(part.address, part.descriptor_hash, answers.append)
    assert len(answers) == 4
    assert all(isinstance(answer, LockboxError) and answer.code is ErrorCode.BUSY for answer in answers)
    store.close()
    assert len(answers) == 12


async def test_a_queue_is_bounded_by_its_bytes_too_and_one_request_always_fits(autojump_clock: MockClock) -> None:
    params = StoreParams(write_queue_bytes_max=1000)
    disk = make_disk(params=params)
    async with serving(disk) as store:
        answers: list[object] = []
        for part in PARTS[:2]:
            store.put(part, (), OWNER, answers.append)
        assert [getattr(answer, "code", None) for answer in answers] == [ErrorCode.BUSY]
        await trio.sleep(1)
        assert answers[1:] == [PutOutcome(())]
        await put(store, PARTS[1])


async def test_room_in_the_queue_comes_back(autojump_clock: MockClock) -> None:
    disk = make_disk(params=StoreParams(write_queue_bytes_max=2 * put_weight(PARTS[0])))
    async with serving(disk) as store:
        answers: list[object] = []
        for first in range(0, 6, 2):
            for part in PARTS[first : first + 2]:
                store.put(part, (), OWNER, answers.append)
            await trio.sleep(1)
        assert answers == [PutOutcome(())] * 6


async def test_a_group_is_bounded_by_its_bytes(autojump_clock: MockClock) -> None:
    disk = make_disk(params=StoreParams(group_bytes_max=1000))
    async with serving(disk) as store:
        moments: list[float] = []
        for part in PARTS[:3]:
            store.put(part, (), OWNER, lambda _result: moments.append(trio.current_time()))
        await trio.sleep(1)
        assert len(set(moments)) == 3


async def test_pointers_whose_time_is_over_are_forgotten(autojump_clock: MockClock) -> None:
    clock = FixedClock()
    disk = SimDisk(StoreParams(pointer_ttl_s=100), clock, Random(1))
    async with serving(disk) as store:
        await settled(partial(store.merge, (make_stripe(1).table,), ()))
        clock.now += 50
        await settled(partial(store.merge, (make_stripe(2).table,), ()))
        assert store.figures().pointers == 2
        clock.now += 60
        await trio.sleep(1000)
        await settled(partial(store.note, "any", b"write"))
        assert store.figures().pointers == 1
