"""The kept thread: order, errors, cancellation, its end."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from lockbox_node.adapters.kept_thread import KeptThread


async def test_jobs_run_in_one_other_thread_and_answer_or_raise() -> None:
    with KeptThread("kept") as thread:
        first = await thread.run(threading.get_ident)
        assert first == await thread.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 // 0)
        assert await thread.run(lambda: 7) == 7


async def test_jobs_run_in_the_order_of_their_asking() -> None:
    order: list[int] = []
    gate = threading.Event()
    with KeptThread("kept") as thread:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, gate.wait)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(5):
                nursery.start_soon(thread.run, lambda number=number: order.append(number))
                await trio.testing.wait_all_tasks_blocked()
            assert order == []
            gate.set()
    assert order == [0, 1, 2, 3, 4]


async def test_a_cancelled_caller_waits_for_the_end_of_its_job() -> None:
    gate = threading.Event()
    done: list[bool] = []

    async def ask(thread: KeptThread) -> None:
        done.append(await thread.run(lambda: gate.wait(10)))

    with KeptThread("kept") as thread:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, thread)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            gate.set()
    assert done == [True]


async def test_the_thread_ends_with_its_block() -> None:
    with KeptThread("kept and closed"):
        (found,) = (one for one in threading.enumerate() if one.name == "kept and closed")
    await trio.to_thread.run_sync(found.join, 10)
    assert not found.is_alive()
