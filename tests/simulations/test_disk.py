"""A simulated disk loses only what nobody was told of, through crashes, stops and old images."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import ConfigError, LockboxError, ShardMissing
from lockbox_node.ports import PutOutcome, settled
from protocol.errors import ErrorCode
from simulations.disk import DiskTimes, SimDisk
from tests.fakes.stripes import OWNER, FixedClock, make_stripe
from tests.simulations.disks import (
    PARTS,
    SEEDS,
    crashed_while_putting,
    failure_of,
    get,
    make_disk,
    put,
    serving,
    state_of,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


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
        for part in (PARTS[0], PARTS[2]):
            await put(store, part)
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
        image.parts.corrupt(PARTS[2].address, PARTS[2].descriptor_hash)
        assert [await state_of(store, PARTS[2]) for store in (old, new)] == ["torn", "kept"]


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
