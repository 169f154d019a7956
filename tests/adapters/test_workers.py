"""Threads under a limiter."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from lockbox_node.adapters.workers import ThreadWorkers

pytestmark = pytest.mark.real


async def test_the_result_comes_back_from_another_thread() -> None:
    here = threading.get_ident()
    there = await ThreadWorkers(trio.CapacityLimiter(1)).run(threading.get_ident)
    assert there != here


async def test_what_the_work_raises_reaches_the_caller() -> None:
    def fail() -> None:
        raise ZeroDivisionError("in the thread")

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        await ThreadWorkers(trio.CapacityLimiter(1)).run(fail)


async def test_the_limiter_bounds_how_many_run_at_once() -> None:
    running, most, lock, gate = 0, 0, threading.Lock(), threading.Event()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                gate.set()
        assert gate.wait(10)
        with lock:
            running -= 1

    workers = ThreadWorkers(trio.CapacityLimiter(2))
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(workers.run, work)
    assert most == 2


async def test_a_cancelled_caller_waits_for_the_end_of_the_work() -> None:
    done, go = threading.Event(), threading.Event()

    def work() -> None:
        assert go.wait(10)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ThreadWorkers(trio.CapacityLimiter(1)).run, work)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        nursery.start_soon(_let_go_later, done, go)
    assert done.is_set()


async def _let_go_later(done: threading.Event, go: threading.Event) -> None:
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        go.set()
