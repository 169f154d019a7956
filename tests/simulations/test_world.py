"""What a seed decides, what is written down, and clocks that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from lockbox_node.observe import logging
from simulations.identities import NOW_UNIX_S
from simulations.world import RECENT, DriftingClock, InlineWorkers, SeededEntropy, Trace, World, who

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[World]:
    """A world that listens to the product's log."""
    world = World(1)
    world.listen()
    yield world
    logging.configure(strict=True)


def test_each_name_has_its_own_chance() -> None:
    drawn = World(1).rng("a").random()
    assert drawn == World(1).rng("a").random()
    assert drawn != World(1).rng("b").random()
    assert drawn != World(2).rng("a").random()


async def test_a_trace_tells_order_time_and_content_apart() -> None:
    def trace_of(*events: str) -> str:
        trace = Trace()
        for event in events:
            trace.add(event, 1)
        return trace.hash

    first = trace_of("a", "b")
    assert first == trace_of("a", "b")
    assert first != trace_of("b", "a")
    assert first != trace_of("a")
    await trio.sleep(1)
    assert first != trace_of("a", "b")


async def test_the_last_events_are_kept_in_words() -> None:
    trace = Trace()
    for number in range(RECENT + 1):
        trace.add("event", number)
    trace.add("noise", "x")
    assert trace.events == RECENT + 2
    assert [line.split() for line in trace.last(2, frozenset({"noise"}))] == [
        ["0.000000", "event", str(RECENT - 1)],
        ["0.000000", "event", str(RECENT)],
    ]


async def test_a_log_line_is_an_event_and_an_exception_is_a_defect(world: World) -> None:
    log = structlog.get_logger()
    who.set("node7")
    log.info("it.happened", number=3)
    log.debug("nobody.cares")
    assert world.trace.last(2) == ["    0.000000 info node7 it.happened number=3"]
    assert world.defects == []
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it.failed")
    assert "node7 it.failed" in world.defects[0]
    assert "ValueError: broken" in world.defects[0]


async def test_a_clock_drifts_and_jumps() -> None:
    clock = DriftingClock(ahead_s=5)
    assert clock.now_unix_s() == NOW_UNIX_S + 5
    await trio.sleep(10)
    clock.drift(1.5)
    assert clock.now_unix_s() == NOW_UNIX_S + 15
    await trio.sleep(10)
    assert clock.now_unix_s() == NOW_UNIX_S + 30
    clock.jump(-100)
    assert clock.now_unix_s() == NOW_UNIX_S - 70


def test_entropy_follows_its_seed() -> None:
    def drawn(seed: str) -> bytearray:
        SeededEntropy(seed).fill(buffer := bytearray(16))
        return buffer

    assert drawn("a") == drawn("a") != drawn("b")


async def test_workers_work_where_they_are() -> None:
    assert await InlineWorkers().run(lambda: 7) == 7
