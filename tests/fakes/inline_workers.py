"""Workers for virtual time: a thread takes real time, over which a mock clock jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class InlineWorkers:
    """Runs at once, counting."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, fn: Callable[[], T]) -> T:
        self.runs += 1
        await trio.lowlevel.checkpoint()
        return fn()
