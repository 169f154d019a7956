"""A crash at any await: between two steps of a node's tasks, counted from now.

Trio tells before each step of each task; a node's tasks are known by a context variable that its root task set, which
every task that comes of it inherits. What that one step still does has no effect, since network and disk are gone.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

mark: ContextVar[str] = ContextVar("mark", default="")
"""Which life of which node a task belongs to."""


class _AtStep(trio.abc.Instrument):
    def __init__(self, wanted: str, steps: int, act: Callable[[], None]) -> None:
        self._wanted, self._left, self._act = wanted, steps, act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio."""
        if task.context.get(mark) == self._wanted:
            self._left -= 1
            if self._left <= 0:
                self.disarm()
                self._act()

    def disarm(self) -> None:
        """Never act."""
        self._left = -1
        trio.lowlevel.remove_instrument(self)


def marked() -> list[tuple[str, str]]:
    """Mark and name of every task that has a mark, system tasks too: what a node that has ended must not have."""
    found: list[tuple[str, str]] = []
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        if name := task.context.get(mark):
            found.append((name, task.name))
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return sorted(found)


def at_step(wanted: str, steps: int, act: Callable[[], None]) -> Callable[[], None]:
    """Call `act` before step `steps` (1 = the next) of the tasks marked `wanted`. Call what is returned to disarm."""
    assert steps >= 1
    instrument = _AtStep(wanted, steps, act)
    trio.lowlevel.add_instrument(instrument)

    def disarm() -> None:
        if instrument._left > 0:
            instrument.disarm()

    return disarm
