"""Tests on a clock that jumps to whatever is waited for.

A fixture cannot give it to a test: only the arguments of the test itself can.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def run_in_no_time(
    main: Callable[[], Awaitable[object]], *, clock: trio.abc.Clock | None = None, instruments: tuple[object, ...] = ()
) -> object:
    """trio.run on such a clock."""
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0))


def mark(items: list[pytest.Item], folder: Path) -> None:
    """Every async test below `folder` runs in virtual time."""
    for item in items:
        if folder in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_in_no_time))
