"""Dials, crossings, back-off, caps and pins of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.connection import ConnectionParams
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.pool import Contact, PoolParams
from protocol.certificates import Role
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import Message, Ping, Pong
from tests.rpc.world import Party, World, world

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer

PING = Ping(7)


async def ordered(w: World) -> tuple[Party, Party]:
    """Two nodes, the one of the lower id first."""
    first, second = await w.node(), await w.node()
    return (first, second) if first.identity.id < second.identity.id else (second, first)


async def test_a_request_dials_once_and_uses_the_connection_again(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        for _ in range(3):
            assert await client.pool.request(node.contact, PING) == Pong(7, 1)
        assert w.hub.dials == [("client", "node1")]
        assert client.pool.figures().open == 1
        assert node.pinged_by == [client.identity.id] * 3


async def test_one_dial_is_in_flight_and_all_waiters_share_it(autojump_clock: MockClock) -> None:
    async with world(delay_s=0.1) as w:
        client, node = await w.client(), await w.node()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.pool.request, node.contact, PING)
        assert len(w.hub.dials) == 1
        assert len(node.pinged_by) == 10


async def test_a_dial_outlives_the_waiter_that_began_it(autojump_clock: MockClock) -> None:
    async with world(delay_s=1.0) as w:
        client, node = await w.client(), await w.node()
        answers: list[Message | LockboxError] = []
        with trio.move_on_after(0.5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.pool.request, node.contact, PING)
                await trio.sleep(0.1)
                client.pool.post(node.contact, PING, answers.append)
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert answers == [Pong(7, 1)]
        assert len(w.hub.dials) == 1


async def test_addresses_are_tried_in_turn(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        w.hub.silent.add("hangs")
        contact = Contact(node.contact.node, ("nonsense", "nobody:1", "hangs:7420", "node1:7420"))
        assert await client.pool.request(contact, PING) == Pong(7, 1)
        assert trio.current_time() >= PoolParams().dial_timeout_s


@pytest.mark.parametrize("addresses", [(), ("nonsense",), ("host:port",)])
async def test_a_contact_without_a_good_address_cannot_be_reached(addresses: tuple[str, ...]) -> None:
    async with world() as w:
        client = await w.client()
        with pytest.raises(PeerUnreachable):
            await client.pool.connection(Contact(NodeId(b"n" * 32), addresses))


async def test_another_node_at_the_address_is_not_taken_for_the_wanted_one(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        with pytest.raises(PeerUnreachable, match="not the wanted 6e6e6e6e"):
            await client.pool.connection(Contact(NodeId(b"n" * 32), ("node1:7420",)))
        await trio.sleep(0.1)
        assert client.pool.connections() == node.pool.connections() == []


async def test_a_node_does_not_dial_itself(autojump_clock: MockClock) -> None:
    async with world() as w:
        node = await w.node()
        with pytest.raises(PeerUnreachable, match="itself"):
            await node.pool.connection(node.contact)
        with pytest.raises(LockboxError, match="itself"):
            await node.pool.connect_address("node1", 7420)


async def test_failures_are_backed_off_and_news_resets_them(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        w.hub.down.add(node.host)

        async def fails() -> int:
            with pytest.raises(PeerUnreachable):
                await client.pool.connection(node.contact)
            return len(w.hub.dials)

        assert [await fails(), await fails()] == [1, 1]
        await trio.sleep(0.2)
        assert [await fails(), await fails()] == [2, 2]
        await trio.sleep(0.3)
        assert await fails() == 2
        client.pool.reset_backoff(node.identity.id)
        assert await fails() == 3
        w.hub.down.clear()
        await trio.sleep(0.2)
        assert await client.pool.request(node.contact, PING) == Pong(7, 1)
        assert client.pool.figures().dials_failed == 3


async def test_the_other_direction_uses_the_same_connection(autojump_clock: MockClock) -> None:
    async with world() as w:
        one, two = await w.node(), await w.node()
        await one.pool.request(two.contact, PING)
        assert await two.pool.request(one.contact, PING) == Pong(7, 1)
        assert len(w.hub.dials) == 1


async def test_an_accepted_connection_serves_those_who_wait_for_a_dial(autojump_clock: MockClock) -> None:
    async with world() as w:
        one, two = await w.node(), await w.node()
        w.hub.silent.add(two.host)
        answers: list[Message | LockboxError] = []
        one.pool.post(two.contact, PING, answers.append)
        await trio.sleep(0.1)
        await two.pool.request(one.contact, PING)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Pong(7, 1)]


async def test_of_crossing_dials_the_lower_ids_stays(autojump_clock: MockClock) -> None:
    async with world(delay_s=0.1) as w:
        low, high = await ordered(w)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(low.pool.request, high.contact, PING)
            nursery.start_soon(high.pool.request, low.contact, PING)
        assert len(w.hub.dials) == 2
        kept = low.pool.ready(high.identity.id), high.pool.ready(low.identity.id)
        assert [connection is not None and connection.dialled for connection in kept] == [True, False]
        await trio.sleep(5)
        assert {theirs.peer_host: ours.closed for ours, theirs in w.hub.streams} == {low.host: False, high.host: True}
        assert (low.pool.figures().open, high.pool.figures().open) == (1, 1)


async def test_a_node_that_comes_anew_replaces_its_old_connection(autojump_clock: MockClock) -> None:
    async with world() as w:
        low, high = await ordered(w)
        old = await low.pool.connection(high.contact)
        await trio.sleep(60)
        high.pool.release(low.identity.id)  # it forgot the old one, as a restart does
        new = await high.pool.connection(low.contact)
        await trio.testing.wait_all_tasks_blocked()
        current = low.pool.ready(high.identity.id)
        assert current is not None
        assert current is not old
        assert await low.pool.request(high.contact, PING) == Pong(7, 1)
        await trio.sleep(5)
        assert old.closed
        assert not new.closed


async def test_a_released_connection_finishes_what_is_asked(autojump_clock: MockClock) -> None:
    held: list[Answer[Message]] = []

    def hold(_request: Ping, _peer: Peer, answer: Answer[Message]) -> None:
        held.append(answer)

    async with world() as w:
        client, node = await w.client(), await w.node(routes=[Route(Ping, hold)])
        answers: list[Message | LockboxError] = []
        client.pool.post(node.contact, PING, answers.append)
        await trio.sleep(0.1)
        client.pool.release(node.identity.id)
        client.pool.release(node.identity.id)
        await trio.sleep(10)
        assert client.pool.ready(node.identity.id) is None
        held[0](Pong(7, 1))
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Pong(7, 1)]
        await trio.sleep(3)
        assert w.hub.streams[0][0].closed


async def test_connections_of_one_node_are_bounded(autojump_clock: MockClock) -> None:
    def hold(_request: Ping, _peer: Peer, _answer: Answer[Message]) -> None:
        return

    async with world() as w:
        one, two = await w.node(), await w.node(routes=[Route(Ping, hold)])
        for _ in range(8):
            one.pool.post(two.contact, PING, lambda _: None)
            await trio.sleep(0.1)
            one.pool.release(two.identity.id)
        await trio.sleep(0.1)
        assert sum(not ours.closed for ours, _ in w.hub.streams) <= PoolParams().retired_max + 1


async def test_idle_connections_go_at_the_caps_and_pinned_ones_stay(autojump_clock: MockClock) -> None:
    async with world() as w:
        client = await w.client(pool_params=PoolParams(soft_max=3, hard_max=4, evict_idle_s=30.0))
        nodes = [await w.node() for _ in range(7)]
        ids = [node.identity.id for node in nodes]
        client.pool.pin([ids[0]])
        for node in nodes[:4]:
            await client.pool.request(node.contact, PING)
            await trio.sleep(1)
        assert client.pool.figures().open == 4  # above the soft cap, but none was idle for long
        await client.pool.request(nodes[4].contact, PING)
        await trio.sleep(1)
        assert [client.pool.ready(node) is not None for node in ids] == [True, False, True, True, True, False, False]
        await trio.sleep(60)
        await client.pool.request(nodes[5].contact, PING)
        assert [client.pool.ready(node) is not None for node in ids] == [True, False, False, False, True, True, False]
        assert client.pool.figures().evicted == 3


async def test_at_the_hard_cap_with_all_in_use_nothing_more_is_dialled(autojump_clock: MockClock) -> None:
    async with world() as w:
        client = await w.client(pool_params=PoolParams(soft_max=1, hard_max=1))
        one, two = await w.node(), await w.node()
        client.pool.pin([one.identity.id])
        await client.pool.request(one.contact, PING)
        with pytest.raises(LockboxError) as caught:
            await client.pool.request(two.contact, PING)
        assert caught.value.code is ErrorCode.BUSY


async def test_dials_in_flight_are_bounded(autojump_clock: MockClock) -> None:
    async with world() as w:
        client = await w.client(pool_params=PoolParams(dials_max=2))
        w.hub.silent.add("hangs")
        answers: list[Message | LockboxError] = []
        for name in (b"a", b"b", b"c"):
            client.pool.post(Contact(NodeId(name * 32), ("hangs:1",)), PING, answers.append)
        assert isinstance(answers[0], LockboxError)
        assert answers[0].code is ErrorCode.BUSY
        await trio.sleep(6)
        assert [type(answer) for answer in answers[1:]] == [PeerUnreachable] * 2


async def test_dials_keep_to_their_rate(autojump_clock: MockClock) -> None:
    async with world() as w:
        client = await w.client(pool_params=PoolParams(dial_rate=1.0, dial_burst=2.0))
        for name in (b"a", b"b", b"c", b"d"):
            client.pool.post(Contact(NodeId(name * 32), ("nobody:1",)), PING, lambda _: None)
        await trio.sleep(0.5)
        assert len(w.hub.dials) == 2
        await trio.sleep(1.6)
        assert len(w.hub.dials) == 4


async def test_a_bootstrap_address_gives_whoever_stands_there(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        connection = await client.pool.connect_address("node1", 7420)
        assert connection.peer.id == node.identity.id
        assert await client.pool.connection(node.contact) is connection
        assert await client.pool.connect_address("node1", 7420) is connection
        assert len(w.hub.dials) == 1
        with pytest.raises(PeerUnreachable):
            await client.pool.connect_address("::1", 7420)


async def test_bootstrap_addresses_remembered_are_bounded(autojump_clock: MockClock) -> None:
    async with world() as w:
        client = await w.client(pool_params=PoolParams(addresses_max=1))
        for number in (1, 2):
            await w.node()
            await client.pool.connect_address(f"node{number}", 7420)
        assert len(client.pool._node_at) == 1


async def test_a_pool_that_stops_tells_all_who_wait(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(pool_params=PoolParams(dial_burst=1.0, dial_rate=1.0)), await w.node()
        w.hub.silent.add(node.host)
        answers: list[Message | LockboxError] = []
        client.pool.post(node.contact, PING, answers.append)
        client.pool.post(Contact(NodeId(b"n" * 32), ("nobody:1",)), PING, answers.append)
        await trio.testing.wait_all_tasks_blocked()
        client.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        client.pool.post(node.contact, PING, answers.append)
        assert [str(answer) for answer in answers] == ["the pool has stopped"] * 3


async def test_a_lost_connection_is_dialled_anew(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        await client.pool.request(node.contact, PING)
        w.hub.streams[0][0].lose()
        await trio.testing.wait_all_tasks_blocked()
        assert client.pool.ready(node.identity.id) is None
        assert await client.pool.request(node.contact, PING) == Pong(7, 1)


async def test_a_stalled_peer_is_dropped_by_the_pool(autojump_clock: MockClock) -> None:
    async with world(capacity=1000) as w:
        params = PoolParams(connection=ConnectionParams(stall_timeout_s=5.0))
        client, node = await w.client(pool_params=params), await w.node()
        connection = await client.pool.connection(node.contact)
        w.hub.streams[0][1]._incoming._capacity = 0
        answers: list[Message | LockboxError] = []
        connection.post(PING, answers.append)
        await trio.sleep(10)
        assert [str(answer) for answer in answers] == ["the peer reads nothing"]


async def test_a_pool_takes_nobody_but_nodes(autojump_clock: MockClock) -> None:
    async with world() as w:
        pretender = w.network.client(9)
        await w.node(identity=pretender)
        client = await w.client()
        with pytest.raises(PeerUnreachable, match="is a client, not a node"):
            await client.pool.connect_address("node1", 7420)
        assert pretender.role is Role.CLIENT
