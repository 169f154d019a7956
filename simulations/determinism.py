"""One seed, one run: in any process, on any machine with these versions.

Trio shuffles its run queue with a generator of its own, seeded from the system, and the order of a set of bytes
follows a salt of the process: both are fixed here, and nowhere else. Time is virtual and jumps as soon as every task
waits. Some of trio's names here are private: a test with two processes stands guard over them (STYLE, five
conditions of determinism). Trio breaks ties between equal deadlines by the address of an object, which changes from
process to process; that orders cancellations only, and the run queue is sorted before it is shuffled.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from typing import TYPE_CHECKING, TypeVar

import trio
from trio._core import _run
from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

HASH_SEED = "0"
GC_OBJECTS = 100_000  # allocations between two collections: a run makes millions of objects that live on


def virtual_clock() -> MockClock:
    """A MockClock with autojump that lands on the next deadline itself, not a rounding error beside it."""
    clock = MockClock(autojump_threshold=0)
    now = 0.0

    def current_time() -> float:
        return now

    def jump() -> None:
        nonlocal now
        deadline = GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if now < deadline < math.inf:
            now = deadline

    clock.current_time = current_time  # type: ignore[method-assign]  # trio lets nobody derive from it
    clock._autojump = jump  # type: ignore[method-assign]
    return clock


def run(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """`trio.run(main)` in virtual time, scheduled by `seed`. Equal runs need a process started by `fixed_hashes`."""
    scheduler: object = _run._r
    assert hasattr(scheduler, "seed")
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler.seed(seed)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final for everybody else
    threshold = gc.get_threshold()
    gc.set_threshold(GC_OBJECTS)
    try:
        return trio.run(main, clock=virtual_clock())
    finally:
        gc.set_threshold(*threshold)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


def fixed_hashes(module: str, arguments: list[str]) -> None:
    """Become `python -m module arguments` with PYTHONHASHSEED=0, unless this process has it already."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        command = [sys.executable, *_flags(), "-m", module, *arguments]
        os.execve(sys.executable, command, environment)  # noqa: S606  # this same program


def _flags() -> list[str]:
    """Options of the interpreter that a second start must keep."""
    return [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
