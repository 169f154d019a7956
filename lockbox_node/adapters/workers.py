"""Threads for long computations, under a limiter that the daemon owns.

Hashing and erasure coding release the GIL, so that they gain from threads; AEADs hold it and do not. A handover to a
thread and back costs tens of microseconds: nothing under 1 ms belongs here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ThreadWorkers:
    """The Workers port. `limiter` bounds how many threads run at once."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter

    async def run(self, fn: Callable[[], T]) -> T:
        """The result of `fn`, or what it raised. A cancelled caller waits for the end: a thread cannot be cut."""
        return await trio.to_thread.run_sync(fn, limiter=self._limiter)
