"""One thread that is kept for one purpose: jobs run in the order in which they were given, answers come back to trio.

Handing a job to a thread of trio's pool and back costs about a third more of a short job than to one that already
waits for it (docs/decisions/0006), and a lone put is a short job.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Job = tuple["Callable[[], Any]", trio.lowlevel.Task]


class KeptThread:
    """Made and used inside trio, in a `with`: at its end the thread ends, after the jobs that it was given."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. It cannot be cancelled: a thread cannot be cut."""
        self._jobs.put((work, trio.lowlevel.current_task()))
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _raise_cancel: trio.lowlevel.Abort.FAILED)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, task = job
            self._token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.capture(work))
            del job, work, task
