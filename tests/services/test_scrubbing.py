"""A scrub sees every part in its time, finds damage, and forgets little of where it was."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.scrub_pace import ScrubParams, decoded
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import Answer, Checked, Owner, settled
from lockbox_node.services.scrubbing import SCRUB_NOTE, Scrubber
from protocol.errors import ErrorCode
from simulations.memory_store import MemoryStore
from tests.fakes.memory_store import later
from tests.fakes.stripes import DAY_S, FixedClock, Stripe, make_stripe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

OWNER = Owner(b"owner", 1 << 40)
PARAMS = ScrubParams(step_parts=2)


class WatchedStore(MemoryStore):
    """Knows when it was asked to check; busy, slow or broken when a test says so."""

    busy = 0
    why = ""

    delay_s = 0.0  # how long a step takes

    def __init__(self) -> None:
        super().__init__(StoreParams(), FixedClock())
        self.checks: list[tuple[float, bytes]] = []
        self.notes_kept = 0

    @property
    def broken(self) -> str:
        return self.why

    def check(self, after: bytes, limit: int, answer: Answer[Checked]) -> None:
        if self.busy:
            self.busy -= 1
            return answer(LockboxError("too much waits", "later", ErrorCode.BUSY))
        self.checks.append((trio.current_time(), after))
        if not self.delay_s:
            return super().check(after, limit, answer)
        trio.lowlevel.spawn_system_task(later, self.delay_s, partial(super().check, after, limit, answer))
        return None

    def note(self, name: str, value: bytes, answer: Answer[None]) -> None:
        self.notes_kept += 1
        super().note(name, value, answer)


async def filled(count: int, delay_s: float = 0.0) -> tuple[WatchedStore, list[Stripe]]:
    """A store with `count` stripes, in the order of their addresses."""
    store = WatchedStore()
    stripes = sorted((make_stripe(number) for number in range(count)), key=lambda stripe: stripe.signer.address)
    for stripe in stripes:
        await settled(partial(store.put, stripe.parts[0], (), OWNER))
    store.delay_s = delay_s
    return store, stripes


@asynccontextmanager
async def running(store: WatchedStore, params: ScrubParams = PARAMS, seed: int = 1) -> AsyncIterator[Scrubber]:
    scrub = Scrubber(store, trio.current_time, FixedClock(), Random(seed), params)
    async with trio.open_nursery() as nursery:
        await nursery.start(scrub.run)
        yield scrub
        nursery.cancel_scope.cancel()


def noted_cursor(store: WatchedStore) -> bytes:
    state = decoded(store.notes[SCRUB_NOTE], 1e12)
    assert state is not None
    return state.cursor


async def test_a_scheduled_pass_is_spread_over_its_cycle_and_then_the_next_begins(autojump_clock: MockClock) -> None:
    store, stripes = await filled(40)
    async with running(store) as scrub:
        cycle_s = scrub.state.cycle_s
        assert 25 * DAY_S <= cycle_s <= 35 * DAY_S
        await trio.sleep(cycle_s / 2)
        assert 0.3 < scrub.state.progress < 0.7
        assert scrub.state.parts == pytest.approx(20, abs=6)
        await trio.sleep(cycle_s / 2 - 1)
        assert scrub.word == "waiting"
        assert 0 < scrub.due_in_s <= 1
        assert scrub.state.last is not None
        assert scrub.state.last.parts == 40
        began = [at for at, _ in store.checks]
        assert max(later - earlier for earlier, later in pairwise(began)) < cycle_s / 4
        await trio.sleep(2)
        assert scrub.state.number == 2
        assert scrub.state.cycle_s != cycle_s
    assert [after for _, after in store.checks[:3]] == [
        b"",
        *(stripes[n].signer.address + stripes[n].parts[0].descriptor_hash for n in (1, 3)),
    ]


async def test_one_asked_for_sees_everything_at_once_from_the_start(autojump_clock: MockClock) -> None:
    store, _ = await filled(41, delay_s=0.5)
    async with running(store, ScrubParams(step_parts=2, share_now=0.5)) as scrub:
        await trio.sleep(10 * DAY_S)
        assert 0 < scrub.state.parts < 41
        number = await scrub.start_now()
        assert await scrub.start_now() == number, "it is under way"
        await trio.sleep(21 * 2 * 0.5 - 2)
        assert scrub.word == "running", "half of the time is the others'"
        await trio.sleep(4)
        assert scrub.state.last is not None
        assert (scrub.state.last.number, scrub.state.last.parts) == (number, 41)
        assert scrub.word == "waiting"
        assert scrub.due_in_s > 24 * DAY_S


async def test_one_that_is_late_leaves_nine_tenths_of_the_time_to_others(autojump_clock: MockClock) -> None:
    store, _ = await filled(40, delay_s=1.0)
    async with running(store, ScrubParams(cycle_min_s=1.0, cycle_max_s=1.0, step_parts=2)):
        await trio.sleep(100)
    began = [at for at, _ in store.checks]
    steps = [later - earlier for earlier, later in pairwise(began)]
    assert min(steps) >= 10 - 1e-6
    assert max(steps) < 13, "the note too takes time"


async def test_damage_is_told_counted_and_remembered(autojump_clock: MockClock) -> None:
    store, stripes = await filled(20)
    told: list[bytes] = []
    store.on_corrupt = lambda address, _hash: told.append(address)
    for number in (3, 11):
        store.corrupt(stripes[number].signer.address, stripes[number].parts[0].descriptor_hash)
    async with running(store) as scrub:
        await scrub.start_now()
        await trio.sleep(1)
        assert told == [stripes[number].signer.address for number in (3, 11)]
        assert scrub.state.last is not None
        assert scrub.state.last.corrupt == scrub.corrupt == 2
    async with running(store) as scrub:
        assert scrub.state.last is not None
        assert scrub.state.last.corrupt == 2, "over a restart too"
        assert scrub.corrupt == 0


async def test_a_paused_scrub_stays_paused_over_a_restart_until_it_is_resumed(autojump_clock: MockClock) -> None:
    store, _ = await filled(40)
    async with running(store) as scrub:
        await trio.sleep(8 * DAY_S)
        await scrub.pause()
        parts = scrub.state.parts
        await trio.sleep(DAY_S)
        assert (scrub.word, scrub.state.parts) == ("paused", parts)
    async with running(store) as scrub:
        await trio.sleep(90 * DAY_S)
        assert (scrub.word, scrub.state.parts, scrub.state.number) == ("paused", parts, 1)
        await scrub.resume()
        await trio.sleep(DAY_S)
        assert scrub.state.last is not None
        assert (scrub.state.last.number, scrub.state.last.parts) == (1, 40), "it went on where it stood, late"


async def test_a_pass_asked_for_lifts_a_pause_and_obeys_a_new_one(autojump_clock: MockClock) -> None:
    store, _ = await filled(40, delay_s=1.0)
    async with running(store) as scrub:
        await scrub.pause()
        number = await scrub.start_now()
        await trio.sleep(10)
        await scrub.pause()
        parts = scrub.state.parts
        await trio.sleep(100)
        assert 0 < parts <= scrub.state.parts <= parts + 2, "a step that was under way ends"
        assert await scrub.start_now() == number, "the same pass goes on"
        await trio.sleep(100)
        assert scrub.state.last is not None
        assert scrub.state.last.parts == 40


async def test_a_crash_forgets_at_most_a_thousand_parts_and_one_step(autojump_clock: MockClock) -> None:
    store, stripes = await filled(60)
    params = ScrubParams(step_parts=4, note_every_parts=10, share_now=0.5)
    order = [stripe.signer.address + stripe.parts[0].descriptor_hash for stripe in stripes]
    async with running(store, params) as scrub:
        await scrub.start_now()
        while scrub.state.running:
            seen = order.index(scrub.state.cursor) + 1 if scrub.state.cursor else 0
            cursor = noted_cursor(store)
            noted = order.index(cursor) + 1 if cursor else 0
            assert seen - noted < 10 + 4
            await trio.lowlevel.checkpoint()


async def test_a_crash_forgets_at_most_half_a_minute_of_slow_steps(autojump_clock: MockClock) -> None:
    store, _ = await filled(60, delay_s=8.0)
    async with running(store, ScrubParams(step_parts=1, share_now=0.5)) as scrub:
        await scrub.start_now()
        kept: list[tuple[float, bytes]] = []
        for _ in range(600):
            await trio.sleep(1)
            kept.append((trio.current_time(), noted_cursor(store)))
            if not scrub.state.running:
                break
            since = next(at for at, cursor in kept if cursor == kept[-1][1])
            assert trio.current_time() - since <= 30 + 2 * 8 + 8 + 1


async def test_a_restart_goes_on_after_the_noted_cursor(autojump_clock: MockClock) -> None:
    store, _ = await filled(40)
    async with running(store):
        await trio.sleep(12 * DAY_S)
    cursor, before = noted_cursor(store), len(store.checks)
    assert cursor
    async with running(store) as scrub:
        await trio.sleep(DAY_S * 3)
        assert scrub.state.number == 1
    assert store.checks[before][1] == cursor


async def test_a_busy_store_is_waited_for(autojump_clock: MockClock) -> None:
    store, _ = await filled(10)
    async with running(store) as scrub:
        store.busy = 5
        await scrub.start_now()
        await trio.sleep(5 * PARAMS.busy_wait_s - 1)
        assert scrub.state.parts == 0
        await trio.sleep(2)
        assert scrub.state.last is not None
        assert scrub.state.last.parts == 10


async def test_a_broken_store_is_not_scrubbed(autojump_clock: MockClock) -> None:
    store, _ = await filled(10)
    store.why = "the disk is gone"
    async with running(store) as scrub:
        await trio.sleep(DAY_S)
        assert (store.checks, scrub.word) == ([], "stopped")
        with pytest.raises(LockboxError, match="the disk is gone"):
            await scrub.start_now()


async def test_an_empty_store_is_scrubbed_in_no_time(autojump_clock: MockClock) -> None:
    store, _ = await filled(0)
    async with running(store) as scrub:
        await scrub.start_now()
        await trio.sleep(1)
        assert (scrub.word, scrub.state.progress) == ("waiting", 1.0)


async def test_a_rest_too_short_for_the_clock_to_show_is_none(autojump_clock: MockClock) -> None:
    store, _ = await filled(1)
    asked: Counter[float] = Counter()
    await trio.sleep(1e6 / 3)
    started = trio.current_time()  # long after the clock began: its steps are coarser than those of the uptime

    def uptime_s() -> float:
        asked[trio.current_time()] += 1
        assert asked[trio.current_time()] < 100, "the scrub turns round and round in one moment"
        return 0.1 + trio.current_time() - started

    scrub = Scrubber(store, uptime_s, FixedClock(), Random(1), ScrubParams(cycle_min_s=40, cycle_max_s=60))
    async with trio.open_nursery() as nursery:
        await nursery.start(scrub.run)
        await trio.sleep(5000)
        nursery.cancel_scope.cancel()
    assert 80 < scrub.state.number <= 126


async def test_a_note_that_cannot_be_read_begins_anew(autojump_clock: MockClock) -> None:
    store, _ = await filled(10)
    await settled(partial(store.note, SCRUB_NOTE, b"?"))
    async with running(store) as scrub:
        assert (scrub.state.number, scrub.word) == (1, "running")
