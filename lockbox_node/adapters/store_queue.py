"""One queue of a shard store: requests that wait with their answers, and the moment at which a group of them is taken.

Whatever is asked in one turn of the event loop shares a group. Beyond that a crowded queue waits a moment for company
(core.gathering, docs/decisions/0002); the wait ends as soon as enough have come. Only the trio thread uses it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lockbox_node.core.gathering import Gathering
    from lockbox_node.ports import Answer

R = TypeVar("R")


class RequestQueue(Generic[R]):
    """Requests in the order of their arrival. Its bounds are its owner's to keep."""

    def __init__(self, crowd: Gathering) -> None:
        self._crowd = crowd
        self._waiting: deque[tuple[R, Answer[Any]]] = deque()
        self._awake = trio.Event()
        self._enough: trio.Event | None = None  # while somebody gathers

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, request: R, answer: Answer[Any]) -> None:
        """One more waits."""
        self._waiting.append((request, answer))
        self._awake.set()
        if self._enough is not None and self._crowd.is_enough(len(self._waiting)):
            self._enough.set()

    def put_back(self, pairs: Iterable[tuple[R, Answer[Any]]]) -> None:
        """What was taken and not served waits again, first."""
        self._waiting.extendleft(reversed(list(pairs)))
        self._awake.set()

    def peek(self) -> R:
        """The request that is next."""
        return self._waiting[0][0]

    def pop(self) -> tuple[R, Answer[Any]]:
        """Take the next."""
        return self._waiting.popleft()

    def clear(self) -> list[Answer[Any]]:
        """Nobody waits any more; the answers that are owed."""
        owed = [answer for _, answer in self._waiting]
        self._waiting.clear()
        return owed

    def wake(self) -> None:
        """Let `wait` return though nothing may have come."""
        self._awake.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when something waits, when woken, or after `timeout_s`."""
        if not self._waiting:
            self._awake = trio.Event()
            with trio.move_on_after(timeout_s):
                await self._awake.wait()

    async def gather(self) -> None:
        """Wait for company, if it is to be expected; something waits when this is called."""
        seen = 0
        while len(self._waiting) > seen:  # those who run in this turn of the loop
            seen = len(self._waiting)
            await trio.lowlevel.checkpoint()
        wait_s = self._crowd.wait_s(len(self._waiting))
        if wait_s:
            self._enough = trio.Event()
            with trio.move_on_after(wait_s):
                await self._enough.wait()
            self._enough = None
        self._crowd.took(len(self._waiting))
