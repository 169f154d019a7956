"""When a group is taken: alone at once, in company together, never later than the window."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from lockbox_node.adapters.store_queue import RequestQueue
from lockbox_node.core.gathering import Gathering

WINDOW_S, ENOUGH = 10.0, 8


def ignore(_result: object) -> None:
    """Nobody is told."""


@pytest.fixture
def queue() -> RequestQueue[int]:
    return RequestQueue(Gathering(WINDOW_S, ENOUGH))


async def crowded(queue: RequestQueue[int]) -> None:
    """Groups of eight came lately."""
    for _ in range(30):
        for number in range(ENOUGH):
            queue.append(number, ignore)
        await queue.gather()
        queue.clear()


async def test_one_alone_waits_for_nobody(queue: RequestQueue[int], autojump_clock: trio.testing.MockClock) -> None:
    queue.append(1, ignore)
    await queue.gather()
    assert (trio.current_time(), len(queue)) == (0.0, 1)


async def test_who_asks_in_the_same_turn_of_the_loop_shares_the_group(
    queue: RequestQueue[int], autojump_clock: trio.testing.MockClock
) -> None:
    async def ask(number: int) -> None:
        await trio.lowlevel.checkpoint()
        queue.append(number, ignore)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
        await queue.wait(1)
        await queue.gather()
        assert len(queue) == 5


async def test_a_crowded_queue_waits_its_window(
    queue: RequestQueue[int], autojump_clock: trio.testing.MockClock
) -> None:
    await crowded(queue)
    queue.append(1, ignore)
    before = trio.current_time()
    await queue.gather()
    assert trio.current_time() - before == pytest.approx(WINDOW_S)


async def test_the_wait_ends_when_enough_have_come(
    queue: RequestQueue[int], autojump_clock: trio.testing.MockClock
) -> None:
    await crowded(queue)
    queue.append(0, ignore)
    before = trio.current_time()

    async def others() -> None:
        for number in range(1, ENOUGH):
            await trio.sleep(0.5)
            queue.append(number, ignore)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await queue.gather()
        assert len(queue) == ENOUGH
        assert trio.current_time() - before == pytest.approx(0.5 * (ENOUGH - 1))


async def test_what_was_not_served_is_next(queue: RequestQueue[int]) -> None:
    for number in range(4):
        queue.append(number, ignore)
    taken = [queue.pop() for _ in range(3)]
    queue.put_back(taken[1:])
    assert [queue.pop()[0] for _ in range(len(queue))] == [1, 2, 3]


async def test_waiting_ends_by_itself_or_when_woken(
    queue: RequestQueue[int], autojump_clock: trio.testing.MockClock
) -> None:
    await queue.wait(3)
    assert trio.current_time() == pytest.approx(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.wait, 100)
        await trio.testing.wait_all_tasks_blocked()
        queue.wake()
    assert trio.current_time() == pytest.approx(3)


async def test_what_is_cleared_is_owed_an_answer(queue: RequestQueue[int]) -> None:
    queue.append(1, ignore)
    assert queue.clear() == [ignore]
    assert len(queue) == 0
