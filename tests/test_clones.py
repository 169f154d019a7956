"""Two processes of one node over a memory network: the later life goes on, the other stops; a restart harms nobody."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import ExitCode, Superseded
from lockbox_node.rpc.pool import Contact
from protocol.ids import NodeId
from protocol.messages import Ping, Pong
from tests.fakes.nodes import Town, TownClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

    from lockbox_node.node import Node

HEARD_S = 90.0  # a few rounds of push-pull


class Process:
    """A node that runs, or why it ended."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.error: Superseded | None = None
        self.ended_at = -1.0
        self.killed = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[int]) -> None:
        with self.killed:
            try:
                async with trio.open_nursery() as nursery:
                    task_status.started(await nursery.start(self.node.run))
            except BaseExceptionGroup as group:
                found, others = group.split(Superseded)
                if others is not None or found is None:
                    raise
                self.error = next(_leaves(found))
            self.ended_at = trio.current_time()

    @property
    def running(self) -> bool:
        return self.ended_at < 0


def _leaves(group: BaseExceptionGroup[Superseded]) -> Iterator[Superseded]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


class Place:
    """Where processes are started."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.town = Town()
        self._nursery = nursery
        self._processes: list[Process] = []

    async def start(self, node: Node) -> Process:
        process = Process(node)
        self._processes.append(process)
        with suppress(RuntimeError):  # it ended before it was started: `error` says why
            await self._nursery.start(process.run)
        return process

    def stop(self) -> None:
        for process in self._processes:
            process.node.stop.set()


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 3600
        made = Place(nursery)
        yield made
        made.stop()
    assert not nursery.cancel_scope.cancelled_caught, "an hour was not enough"


@pytest.mark.parametrize("original_ahead_s", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("epochs", [(5, 6), (6, 5)], ids=["the copy is later", "the original is later"])
async def test_of_a_node_and_its_clone_the_earlier_life_stops(
    epochs: tuple[int, int], original_ahead_s: float, autojump_clock: MockClock
) -> None:
    async with place() as here:
        town, clock = here.town, TownClock()
        clock.ahead_s = original_ahead_s
        others = [await here.start(town.node(2)), await here.start(town.node(3, [2]))]
        original = await here.start(town.node(1, [2], epoch=epochs[0], clock=clock))
        await trio.sleep(20)
        copy = await here.start(town.node(1, [3], host="elsewhere", epoch=epochs[1], seed=50))
        await trio.sleep(HEARD_S)
        stays, goes = (copy, original) if epochs[1] > epochs[0] else (original, copy)
        assert stays.running
        assert goes.error is not None
        assert goes.error.exit_code is ExitCode.REFUSED
        assert "another copy of this node" in goes.error.message
        (host,) = goes.node.announcer.record.addresses
        assert (host.partition(":")[0], 7420) not in town.hub.listeners, "it stops serving"
        await trio.sleep(HEARD_S)
        for other in others:
            member = other.node.machine.members[stays.node.announcer.id]
            assert member.record.instance == stays.node.announcer.record.instance
            assert (member.record.state, member.status) == (1, 0)
            reply = await other.node.pool.request(
                Contact(NodeId(member.record.node), tuple(member.record.addresses)), Ping(1)
            )
            assert isinstance(reply, Pong)


async def test_a_clone_that_dials_the_original_is_found_out_without_others(autojump_clock: MockClock) -> None:
    async with place() as here:
        original = await here.start(here.town.node(1, epoch=5))
        copy = await here.start(here.town.node(1, [1], host="elsewhere", epoch=6, seed=50))
        await trio.sleep(5)
        assert copy.running
        assert original.error is not None


async def test_a_clone_of_lower_epoch_that_dials_the_original_does_not_even_start(autojump_clock: MockClock) -> None:
    async with place() as here:
        original = await here.start(here.town.node(1, epoch=6))
        copy = await here.start(here.town.node(1, [1], host="elsewhere", epoch=5, seed=50))
        await trio.sleep(5)
        assert original.running
        assert copy.error is not None


@pytest.mark.parametrize("then_ahead_s", [-200.0, 0.0, 200.0])
async def test_an_ordinary_restart_harms_nobody(then_ahead_s: float, autojump_clock: MockClock) -> None:
    async with place() as here:
        town, clock = here.town, TownClock()
        clock.ahead_s = then_ahead_s  # in its earlier life
        other = await here.start(town.node(2))
        before = await here.start(town.node(1, [2], epoch=5, clock=clock))
        await trio.sleep(20)
        before.killed.cancel()
        await trio.sleep(1)
        after = await here.start(town.node(1, [2, 1], [before.node.announcer.signed], epoch=6, seed=50))
        await trio.sleep(HEARD_S)
        assert after.running
        member = other.node.machine.members[after.node.announcer.id]
        assert (member.record.epoch, member.status) == (6, 0)
        assert after.node.announcer.record == member.record


@pytest.mark.parametrize("copy_ahead_s", [-200.0, 0.0, 200.0])
async def test_a_copy_that_has_ended_does_not_stop_the_original(copy_ahead_s: float, autojump_clock: MockClock) -> None:
    async with place() as here:
        clock = TownClock()
        clock.ahead_s = copy_ahead_s
        other = await here.start(here.town.node(2))
        copy = await here.start(here.town.node(1, [2], host="elsewhere", epoch=9, seed=50, clock=clock))
        await trio.sleep(20)
        copy.killed.cancel()
        original = await here.start(here.town.node(1, [2], epoch=5))
        await trio.sleep(HEARD_S)
        assert original.running
        assert other.node.machine.members[original.node.announcer.id].record.epoch == 5
