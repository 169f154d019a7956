"""Leases end while the clock is believed, trash goes after a week of uptime, and no clock deletes anything early."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.storage_params import LeaseParams, StoreParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import Owner, settled
from lockbox_node.rpc.hello import Peer
from lockbox_node.services.leases import UPTIME_NOTE, WALL_NOTE, Leases
from protocol.certificates import Role
from protocol.errors import ErrorCode
from simulations.memory_store import MemoryStore
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, Stripe, make_stripe, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from lockbox_node.ports import Answer

OWNER = Owner(b"owner", 1 << 40)
HOUR_S = 3600


class MovingClock:
    """Wall time that moves with trio's, and jumps when a test says so; true time never jumps."""

    def __init__(self, began_unix_s: float = NOW_UNIX_S) -> None:
        self._lead_s = began_unix_s - trio.current_time()
        self.ahead_s = 0.0

    @property
    def lead_s(self) -> float:
        """Of true time over trio's clock."""
        return self._lead_s

    def now_unix_s(self) -> float:
        """See the port."""
        return trio.current_time() + self._lead_s + self.ahead_s


@dataclass
class Line:
    """An open connection to a node that has told its time."""

    peer: Peer
    opened: float


@dataclass
class Neighbours:
    """Nodes with right clocks, each of an operator of its own."""

    clock: MovingClock
    count: int = 3
    greeted: list[bytes] = field(default_factory=list)
    _opened: dict[int, float] = field(default_factory=dict)

    def connections(self) -> list[Line]:
        return [Line(self._peer(number), self._opened.setdefault(number, 0.0)) for number in range(self.count)]

    def greet(self, node: bytes) -> None:
        self.greeted.append(node)
        for number in range(self.count):
            if node_of(number) == node:
                self._opened[number] = trio.current_time()

    def _peer(self, number: int) -> Peer:
        operator = f"operator {number}"
        return Peer(node_of(number), Role.NODE, operator, "host", Downgrade.NONE, None, b"", 0.0, self.clock.lead_s)


class BusyStore(MemoryStore):
    """Has no room for `expire`, or calls `before_expire` first, as a test says."""

    busy = False

    def expire(self, now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        if self.busy:
            return answer(LockboxError("too much waits", "later", ErrorCode.BUSY))
        return super().expire(now_unix_s, uptime_s, answer)


@asynccontextmanager
async def running(store: MemoryStore, near: Neighbours, look_every_s: float = 300) -> AsyncIterator[Leases]:
    params = LeaseParams(look_every_s=look_every_s)
    leases = Leases(store, near.clock, near.connections, near.greet, params)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(leases.run)
        yield leases
        nursery.cancel_scope.cancel()


async def filled(clock: MovingClock, *leases_s: int) -> tuple[BusyStore, list[Stripe]]:
    store = BusyStore(StoreParams(), clock)
    stripes = [make_stripe(number, lease_s=lease_s) for number, lease_s in enumerate(leases_s)]
    for stripe in stripes:
        await settled(partial(store.put, stripe.parts[0], (), OWNER))
    return store, stripes


async def test_what_is_over_goes_to_trash_and_a_week_later_for_good(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, *[HOUR_S] * 5, 30 * DAY_S)
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(HOUR_S + 700)
        assert (leases.expired, leases.emptied) == (5, 0)
        assert store.figures().trash_stripes == 5
        await trio.sleep(7 * DAY_S - 1300)
        assert store.figures().stripes == 6
        await trio.sleep(1900)
        assert store.figures().stripes == 1
        assert (leases.expired, leases.emptied) == (5, 5)


async def test_the_first_look_is_after_a_minute(autojump_clock: MockClock) -> None:
    clock = MovingClock(NOW_UNIX_S + 2 * HOUR_S)
    store, _ = await filled(clock, HOUR_S)
    async with running(store, Neighbours(clock), 60) as leases:
        await trio.sleep(59)
        assert leases.reason == "nobody was asked for the time yet"
        await trio.sleep(2)
        assert leases.trusted
        assert leases.expired == 1


async def test_without_three_peers_nothing_ends(autojump_clock: MockClock) -> None:
    clock = MovingClock(NOW_UNIX_S + 2 * HOUR_S)
    store, _ = await filled(clock, HOUR_S)
    near = Neighbours(clock, count=2)
    async with running(store, near) as leases:
        await trio.sleep(DAY_S)
        assert leases.expired == 0
        assert leases.reason == "only 2 of 3 peers that are needed have told their time"
        near.count = 3
        await trio.sleep(601)
        assert leases.expired == 1
        assert leases.reason == ""


async def test_a_clock_that_jumps_ahead_ends_nothing_and_one_that_is_set_right_does_after_an_hour(
    autojump_clock: MockClock,
) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, 2 * HOUR_S)
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(601)
        assert leases.trusted
        clock.ahead_s = 400 * DAY_S
        await trio.sleep(9 * DAY_S)
        assert "jumped" in leases.reason
        assert store.figures().trash_stripes == 0
        clock.ahead_s = 0.0
        await trio.sleep(HOUR_S - 120)
        assert store.figures().trash_stripes == 0
        await trio.sleep(1000)
        assert leases.trusted
        assert store.figures().trash_stripes == 1


async def test_a_jump_between_two_steps_of_ending_stops_it(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, *[60] * 20, *[30 * DAY_S] * 20)
    steps = 0
    expire = store.expire

    def jumping(now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        nonlocal steps
        steps += 1
        expire(now_unix_s, uptime_s, answer)
        if steps == 2:
            clock.ahead_s = 400 * DAY_S

    store.expire = jumping  # type: ignore[method-assign]
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(DAY_S)
        assert steps == 2
        assert 0 < leases.expired <= 20, "nothing that has a lease"
        assert store.figures().stripes == 40


async def test_a_frozen_clock_empties_no_trash_either(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, 60)
    async with running(store, Neighbours(clock)):
        await trio.sleep(HOUR_S)
        assert store.figures().trash_stripes == 1
        clock.ahead_s = -2 * HOUR_S
        await trio.sleep(9 * DAY_S)
        assert store.figures().trash_stripes == 1


async def test_after_a_month_off_parts_go_to_trash_and_stay_for_a_week_of_uptime(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, 10 * DAY_S, 90 * DAY_S)
    async with running(store, Neighbours(clock)):
        await trio.sleep(DAY_S)
    clock = MovingClock(NOW_UNIX_S + 31 * DAY_S)
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(301)
        assert (leases.expired, store.figures().trash_stripes) == (1, 1)
        await trio.sleep(7 * DAY_S - 600)
        assert store.figures().stripes == 2
    clock = MovingClock(NOW_UNIX_S + 300 * DAY_S)
    async with running(store, Neighbours(clock)):
        await trio.sleep(1600)
        assert store.figures().stripes == 1, "a week of uptime is over, the other went to trash now"
        assert store.figures().trash_stripes == 1


async def test_uptime_goes_on_over_restarts_and_a_crash_loses_a_minute_of_it(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock)
    async with running(store, Neighbours(clock), 60) as leases:
        await trio.sleep(1000)
        assert leases.uptime_s == 1000
    await trio.sleep(5000)
    async with running(store, Neighbours(clock)) as leases:
        assert 1000 - 60 <= leases.uptime_s <= 1000
        assert leases.uptime_s > 0


async def test_a_start_before_the_last_noted_time_freezes(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock, 60)
    async with running(store, Neighbours(clock, count=0)):
        await trio.sleep(DAY_S)
    clock = MovingClock(NOW_UNIX_S + DAY_S / 2)
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(HOUR_S)
        assert "jumped" in leases.reason
        assert leases.expired == 0
        await trio.sleep(HOUR_S)
        assert leases.expired == 1


async def test_notes_that_cannot_be_read_keep_everything(autojump_clock: MockClock) -> None:
    clock = MovingClock(NOW_UNIX_S + DAY_S)
    store, _ = await filled(clock, 60)
    for name in (UPTIME_NOTE, WALL_NOTE):
        await settled(partial(store.note, name, b"?"))
    async with running(store, Neighbours(clock)) as leases:
        assert leases.uptime_s == 0
        await trio.sleep(600)
        assert not leases.trusted
        assert leases.expired == 0


async def test_a_busy_store_is_asked_again_later(autojump_clock: MockClock) -> None:
    clock = MovingClock(NOW_UNIX_S + DAY_S)
    store, _ = await filled(clock, 60)
    store.busy = True
    async with running(store, Neighbours(clock)) as leases:
        await trio.sleep(301)
        assert leases.expired == 0
        store.busy = False
        await trio.sleep(601)
        assert leases.expired == 1


async def test_peers_are_greeted_anew_before_their_time_is_too_old(autojump_clock: MockClock) -> None:
    clock = MovingClock()
    store, _ = await filled(clock)
    near = Neighbours(clock)
    async with running(store, near, HOUR_S) as leases:
        await trio.sleep(30 * DAY_S)
        assert leases.trusted
        assert set(near.greeted) == {node_of(number) for number in range(3)}
        assert len(near.greeted) <= 3 * 15
