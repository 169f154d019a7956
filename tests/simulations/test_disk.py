"""A simulated disk loses only what nobody was told of, and shows every fault as a real one does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, LockboxError, ShardCorrupt, ShardMissing, StoreFull
from lockbox_node.ports import PutOutcome, StripePart, settled
from protocol.errors import ErrorCode
from simulations.disk import DiskTimes, SimDisk
from tests.fakes.stripes import OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from lockbox_node.ports import Answer
    from simulations.disk import SimStore

T = TypeVar("T")
SEEDS = range(40)
PARTS = [make_stripe(number).parts[0] for number in range(12)]


def make_disk(seed: int = 1, params: StoreParams | None = None) -> SimDisk:
    return SimDisk(params or StoreParams(), FixedClock(), Random(seed))


@asynccontextmanager
async def serving(disk: SimDisk) -> AsyncIterator[SimStore]:
    """A life that ends cleanly, unless the disk crashes in it."""
    store = disk.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: SimStore, part: StripePart, *replaces: bytes) -> PutOutcome:
    return await settled(partial(store.put, part, replaces, OWNER))


async def get(store: SimStore, part: StripePart) -> StripePart:
    return await settled(partial(store.get, part.address, part.descriptor_hash))


async def state_of(store: SimStore, part: StripePart) -> str:
    """What a node finds of a part."""
    try:
        assert await get(store, part) == part
    except ShardMissing:
        return "lost"
    except ShardCorrupt:
        return "torn"
    return "kept"


async def failure_of(start: Callable[[Answer[T]], None]) -> LockboxError:
    with pytest.raises(LockboxError) as caught:
        await settled(start)
    return caught.value


async def crashed_while_putting(seed: int) -> tuple[SimDisk, set[int]]:
    """A disk after a crash at some moment of many puts, and which of PARTS were acknowledged."""
    disk, acknowledged = make_disk(seed, StoreParams(group_requests_max=3)), set()
    async with serving(disk) as store:
        for number, part in enumerate(PARTS):
            store.put(part, (), OWNER, lambda _result, number=number: acknowledged.add(number))  # type: ignore[misc]
        await trio.sleep(Random(seed).uniform(0, 0.010))
        disk.crash()
        told = set(acknowledged)
        await trio.sleep(1)
        assert acknowledged == told
    return disk, acknowledged


# Crashes


async def test_nothing_is_answered_before_the_flush_is_over(autojump_clock: MockClock) -> None:
    disk = SimDisk(StoreParams(), FixedClock(), Random(1), DiskTimes(flush_s=10))
    async with serving(disk) as store:
        answers: list[object] = []
        store.put(PARTS[0], (), OWNER, answers.append)
        await trio.sleep(4.9)
        assert answers == []
        with pytest.raises(ShardMissing):
            await get(store, PARTS[0])
        await trio.sleep(10.2)
        assert answers == [PutOutcome(())]
        assert await get(store, PARTS[0]) == PARTS[0]


async def test_a_crash_loses_only_what_was_not_acknowledged_and_may_keep_some_of_it(autojump_clock: MockClock) -> None:
    found, acknowledged_in_all = set(), 0
    for seed in SEEDS:
        disk, acknowledged = await crashed_while_putting(seed)
        acknowledged_in_all += len(acknowledged)
        async with serving(disk) as store:
            for number, part in enumerate(PARTS):
                state = await state_of(store, part)
                assert state == "kept" or number not in acknowledged
                if number not in acknowledged:
                    found.add(state)
    assert 0 < acknowledged_in_all < len(PARTS) * len(SEEDS)
    assert found == {"lost", "kept", "torn"}


async def test_writes_that_waited_behind_the_flush_are_lost(autojump_clock: MockClock) -> None:
    for seed in SEEDS:
        disk, acknowledged = await crashed_while_putting(seed)
        assert disk.parts.figures().stripes <= len(acknowledged) + 3


async def test_a_torn_part_is_never_served_and_is_told_and_can_be_put_again(autojump_clock: MockClock) -> None:
    torn = 0
    for seed in SEEDS:
        disk, _ = await crashed_while_putting(seed)
        async with serving(disk) as store:
            told: list[tuple[bytes, bytes]] = []
            store.on_corrupt = lambda *key, told=told: told.append(key)
            for part in PARTS:
                if await state_of(store, part) == "torn":
                    torn += 1
                    await put(store, part)
                    assert told == [(part.address, part.descriptor_hash)]
                    assert await get(store, part) == part
    assert torn > 3


async def test_a_new_version_that_a_crash_cuts_never_takes_the_old_one_with_it(autojump_clock: MockClock) -> None:
    old = make_stripe("updated").parts[0]
    new = make_stripe("updated", version=2, replaces=[old.descriptor_hash]).parts[0]
    found = set()
    for seed in SEEDS:
        disk = make_disk(seed)
        async with serving(disk) as store:
            await put(store, old)
            store.put(new, [old.descriptor_hash], OWNER, lambda _result: None)
            await trio.sleep(0.0001)
            disk.crash()
        async with serving(disk) as store:
            found.add((await state_of(store, old), await state_of(store, new)))
    assert found == {("kept", "lost"), ("lost", "kept")}


async def test_an_acknowledged_delete_stays_done(autojump_clock: MockClock) -> None:
    stripe = make_stripe(0)
    for seed in SEEDS:
        disk = make_disk(seed)
        async with serving(disk) as store:
            await put(store, PARTS[0])
            tombstone = stripe.signer.tombstone(1)
            await settled(partial(store.delete, tombstone, PARTS[0].address, 1, 2**40))
            store.put(PARTS[1], (), OWNER, lambda _result: None)
            await trio.sleep(0.0001)
            disk.crash()
        async with serving(disk) as store:
            assert await state_of(store, PARTS[0]) == "lost"
            refused = await failure_of(partial(store.put, PARTS[0], (), OWNER))
            assert refused.code is ErrorCode.STALE


async def test_a_dead_store_never_answers_again(autojump_clock: MockClock) -> None:
    disk = make_disk()
    answers: list[object] = []
    async with serving(disk) as store:
        await put(store, PARTS[0])
        store.put(PARTS[1], (), OWNER, answers.append)
        store.get(PARTS[0].address, PARTS[0].descriptor_hash, answers.append)
        await trio.sleep(0.0001)
        store.note("waiting", b"", answers.append)
        disk.crash()
        store.put(PARTS[2], (), OWNER, answers.append)
        store.get(PARTS[0].address, PARTS[0].descriptor_hash, answers.append)
        await trio.sleep(10)
    assert answers == []


async def test_a_crash_between_two_answers_of_a_group_silences_the_second_only(autojump_clock: MockClock) -> None:
    disk = make_disk()
    answers: list[object] = []

    def first(result: object) -> None:
        answers.append(result)
        disk.crash()

    async with serving(disk) as store:
        store.put(PARTS[0], (), OWNER, first)
        store.put(PARTS[1], (), OWNER, answers.append)
        await trio.sleep(1)
    assert answers == [PutOutcome(())]
    async with serving(disk) as store:
        assert [await state_of(store, part) for part in PARTS[:2]] == ["kept", "kept"]


# Lives


async def test_a_clean_stop_ends_what_the_disk_does_and_refuses_what_waits(autojump_clock: MockClock) -> None:
    disk = make_disk(params=StoreParams(group_requests_max=1))
    answers: list[object] = []
    async with serving(disk) as store:
        store.put(PARTS[0], (), OWNER, answers.append)
        store.put(PARTS[1], (), OWNER, answers.append)
        await trio.sleep(0.0001)
    assert answers[0] == PutOutcome(())
    store.put(PARTS[2], (), OWNER, answers.append)
    store.get(PARTS[0].address, PARTS[0].descriptor_hash, answers.append)
    assert [answer.code for answer in answers[1:] if isinstance(answer, LockboxError)] == [ErrorCode.BUSY] * 3
    async with serving(disk) as store:
        assert [await state_of(store, part) for part in PARTS[:3]] == ["kept", "lost", "lost"]


async def test_the_epoch_rises_with_every_life_and_notes_survive(autojump_clock: MockClock) -> None:
    disk = make_disk()
    for life in (1, 2, 3):
        async with serving(disk) as store:
            assert store.epoch == life
            assert dict(store.notes) == ({} if life == 1 else {"life": bytes([life - 1])})
            await settled(partial(store.note, "life", bytes([life])))
        disk.crash()


async def test_two_stores_never_share_a_disk(autojump_clock: MockClock) -> None:
    disk = make_disk()
    first = disk.open()
    with pytest.raises(ConfigError):
        disk.open()
    first.close()
    disk.open()
    disk.crash()
    assert disk.open().epoch == 3


async def test_an_old_image_holds_what_was_safe_then_and_lives_apart(autojump_clock: MockClock) -> None:
    disk = make_disk()
    async with serving(disk) as store:
        await put(store, PARTS[0])
        await settled(partial(store.note, "then", b"old"))
        store.put(PARTS[1], (), OWNER, lambda _result: None)
        await trio.sleep(0.0001)
        image = disk.snapshot()
        await settled(partial(store.note, "then", b"new"))
        await settled(partial(store.drop, PARTS[0].address, PARTS[0].descriptor_hash))
        assert image.epoch == disk.epoch
    async with serving(image) as old, serving(disk) as new:
        assert [await state_of(old, part) for part in PARTS[:2]] == ["kept", "lost"]
        assert [await state_of(new, part) for part in PARTS[:2]] == ["lost", "kept"]
        assert (old.notes["then"], new.notes["then"]) == (b"old", b"new")
        assert image.rot(Random(1)) is not None
        assert await state_of(new, PARTS[1]) == "kept"


async def test_one_seed_takes_one_course(autojump_clock: MockClock) -> None:
    courses = []
    for _ in range(2):
        disk, acknowledged = await crashed_while_putting(7)
        async with serving(disk) as store:
            began = trio.current_time()
            states = [await state_of(store, part) for part in PARTS]
            courses.append((acknowledged, states, round(trio.current_time() - began, 9)))
    assert courses[0] == courses[1]


async def test_a_slow_disk_takes_longer(autojump_clock: MockClock) -> None:
    disk = make_disk()
    disk.slowness = 1000.0
    async with serving(disk) as store:
        began = trio.current_time()
        await put(store, PARTS[0])
        assert trio.current_time() - began > 0.9


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
