"""Answers of requests that were posted together: callbacks put them in, one task takes them out.

No task per request: `answer_to(key)` is the callback of one posted request, `take(deadline)` waits until at least one
answer has come. Answers that come after their waiter has lost interest are only kept until the object is gone.
Bounded by the number of requests that its owner posts, each of which answers once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
AGAIN_S_MIN = 0.05
AGAIN = (ErrorCode.BUSY, ErrorCode.RATE_LIMITED, ErrorCode.GRANTS_TOO_FEW)

Outcome = Message | LockboxError


class Replies(Generic[Key]):
    """A box of (key, reply or error) with one waiting task."""

    def __init__(self) -> None:
        self._come: list[tuple[Key, Outcome]] = []
        self._news = trio.Event()
        self.pending = 0

    def answer_to(self, key: Key) -> Callable[[Outcome], None]:
        """The callback for one request; counts it as pending until it is called."""
        self.pending += 1

        def answer(outcome: Outcome) -> None:
            self.pending -= 1
            self._come.append((key, outcome))
            self._news.set()

        return answer

    def come(self) -> list[tuple[Key, Outcome]]:
        """All answers that have come, maybe none; never waits."""
        come, self._come = self._come, []
        return come

    async def take(self, deadline: float) -> list[tuple[Key, Outcome]]:
        """All answers that have come, at least one; none only when `deadline` (trio time) passes first."""
        if not self._come:
            with trio.move_on_at(deadline):
                await self._news.wait()
        self._news = trio.Event()
        return self.come()


def again_after_s(outcome: Outcome) -> float | None:
    """In how many seconds the same peer may be asked again, when that is what it said; None for everything else."""
    if isinstance(outcome, LockboxError) and outcome.code in AGAIN:
        return max(AGAIN_S_MIN, outcome.retry_after_s)
    return None
