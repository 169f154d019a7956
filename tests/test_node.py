"""Whole Nodes over a memory network: they start in order, find each other, hear of damage, and end in order."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import PeerUnreachable
from lockbox_node.node import STOP_GRACE_S, Node
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.announcing import NodeState
from protocol.messages import FindNode, Nodes, Ping, Pong
from tests.fakes.memory_store import BreakingStore
from tests.fakes.nodes import Town

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@pytest.fixture
def town() -> Town:
    return Town()


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """The nodes, started one after the other; they must end by themselves once they are asked to stop."""
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                assert await nursery.start(node.run) == 7420
            yield
            for node in nodes:
                node.stop.set()


def contact(node: Node) -> Contact:
    return Contact(node.announcer.id, tuple(node.announcer.record.addresses))


async def test_a_started_node_serves_and_is_active(town: Town, autojump_clock: MockClock) -> None:
    node = town.node(1)
    async with running(node), town.asker(town.authority.client(1)) as pool:
        assert node.joined
        assert node.announcer.record.state == NodeState.ACTIVE
        assert isinstance(await pool.request(contact(node), Ping(1)), Pong)
        found = await pool.request(contact(node), FindNode(bytes(32), 20))
        assert isinstance(found, Nodes)
        assert found.records == [node.announcer.signed]


async def test_three_nodes_find_each_other_and_end_with_nothing_left(town: Town, autojump_clock: MockClock) -> None:
    nodes = [town.node(1), town.node(2, [1]), town.node(3, [1])]
    ids = {node.announcer.id for node in nodes}
    async with running(*nodes):
        await trio.sleep(10)
        for node in nodes:
            assert set(node.discovery.alive()) == ids
            assert {one.node for one in node.discovery.candidates()} == ids
    assert not town.hub.listeners
    assert all(ours.closed and theirs.closed for ours, theirs in town.hub.streams)
    assert all(not node.pool.connections() for node in nodes)


async def test_who_stops_says_so_before_its_connections_close(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running(first, second):
        await trio.sleep(5)
        began = trio.current_time()
        second.stop.set()
        await trio.sleep(0.5)
        assert first.machine.members[second.announcer.id].record.state == NodeState.LEAVING
        assert ("node2", 7420) not in town.hub.listeners
        assert trio.current_time() - began < STOP_GRACE_S
        await trio.sleep(15)
        assert list(first.discovery.alive()) == [first.announcer.id]


async def test_a_stop_before_anybody_answered_ends_the_start_too(town: Town, autojump_clock: MockClock) -> None:
    town.hub.silent.add("node9")
    node = town.node(1, [9])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await trio.sleep(0.1)
        assert not node.joined
        node.stop.set()
        with trio.fail_after(2):
            while town.hub.listeners:  # noqa: ASYNC110  # the run has no event for its end
                await trio.sleep(0.1)


async def test_a_node_that_cannot_reach_its_bootstrap_starts_and_joins_later(
    town: Town, autojump_clock: MockClock
) -> None:
    late, first = town.node(2, [1]), town.node(1)
    async with running(late):
        assert not late.joined
        async with running(first):
            await trio.sleep(10)
            assert late.joined


@pytest.mark.parametrize("named", [True, False])
async def test_found_damage_makes_healing_look_at_everything(
    town: Town, autojump_clock: MockClock, named: bool
) -> None:
    node = town.node(1)
    async with running(node):
        await trio.sleep(60)
        asked: list[float] = []
        summaries = node.store.summaries

        def watched(*arguments: object) -> None:
            asked.append(trio.current_time())
            summaries(*arguments)  # type: ignore[arg-type]

        node.store.summaries = watched  # type: ignore[method-assign,assignment]
        now = trio.current_time()
        if named:
            node.store.on_corrupt(b"address", b"hash")  # type: ignore[arg-type]
        else:
            node.store.on_lost(1)
        await trio.sleep(0.1)
        assert asked[0] == now


async def test_a_broken_store_is_announced_so_that_nobody_places_there(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running(first, second):
        await trio.sleep(5)
        assert isinstance(second.store, BreakingStore)
        second.store.fail("the disk is gone")
        await trio.sleep(2)
        assert second.announcer.record.free_class == 0
        assert second.announcer.record.state == NodeState.DRAINING
        assert first.discovery.failing() == {second.announcer.id}
        assert first.machine.members[second.announcer.id].record.free_class == 0
        assert [one.node for one in first.discovery.candidates()] == [first.announcer.id]


async def test_a_store_that_breaks_while_the_node_joins_is_announced_too(town: Town, autojump_clock: MockClock) -> None:
    node = town.node(1)
    assert isinstance(node.store, BreakingStore)
    node.store.fail("the disk is gone")
    async with running(node):
        await trio.sleep(5)
        assert node.announcer.record.state == NodeState.DRAINING


async def test_a_drain_is_announced_and_outlives_a_stop_which_is_none_itself(
    town: Town, autojump_clock: MockClock
) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running(first):
        async with running(second):
            await second.draining.begin()
            await trio.sleep(2)
            assert first.discovery.failing() == {second.announcer.id}
        store = second.store
        assert isinstance(store, BreakingStore)
        again = town.node(2, [1], store=store, epoch=2)
        async with running(again):
            await trio.sleep(2)
            assert again.announcer.record.state == NodeState.DRAINING
            assert await again.draining.end()
            await trio.sleep(2)
            assert first.discovery.failing() == set()
        third = town.node(2, [1], store=store, epoch=3)
        async with running(third):
            assert third.announcer.record.state == NodeState.ACTIVE


async def test_a_newcomer_makes_the_pointers_be_told_again(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running(first):
        await trio.sleep(600)
        told = first.pointers._renew_at
        async with running(second):
            await trio.sleep(1)
            assert first.pointers._renew_at < told


async def test_a_node_that_was_cut_off_is_found_dead_and_comes_back(town: Town, autojump_clock: MockClock) -> None:
    nodes = [town.node(1), town.node(2, [1]), town.node(3, [1])]
    async with running(*nodes):
        await trio.sleep(5)
        town.cut(3)
        await trio.sleep(15)
        assert nodes[2].announcer.id not in nodes[0].discovery.alive()
        with pytest.raises(PeerUnreachable):
            await nodes[0].pool.request(contact(nodes[2]), Ping(1))
        town.hub.down.clear()
        await trio.sleep(90)
        assert nodes[2].announcer.id in nodes[0].discovery.alive()
        assert len(nodes[2].discovery.alive()) == 3
