"""Accepting: bounds on those who come, and what the log says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog.testing
import trio
import trio.testing

from lockbox_node.rpc.connection import ConnectionParams
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.server import ServerParams
from protocol.codec import encode_call
from protocol.messages import (
    Message,
    Ping,
    Pong,
)
from tests.rpc.world import CLIENT, read_all, speak, world

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer


PING = Ping(7)


async def test_a_peer_that_says_nothing_is_let_go(autojump_clock: MockClock) -> None:
    async with world() as w:
        stream, node = await speak(w, b"")
        assert await read_all(stream) == b""
        assert trio.current_time() == 5.0
        assert node.server is not None
        assert node.server.turned_away == {"SLOW": 1}


async def test_peers_that_did_not_say_hello_are_bounded(autojump_clock: MockClock) -> None:
    async with world() as w:
        _, node = await speak(w, b"")
        await trio.sleep(1)
        second = await w.hub.network("raw", w.network.client(1).leaf).dial("node1", 7420)
        assert await read_all(second) == b""
        assert node.server is not None
        assert node.server.turned_away == {"BUSY": 1}


async def test_a_peer_that_goes_during_hello_is_counted(autojump_clock: MockClock) -> None:
    async with world() as w:
        stream, node = await speak(w, b"")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert node.server is not None
        assert node.server.turned_away == {"GONE": 1}


async def test_visits_of_one_peer_are_bounded(autojump_clock: MockClock) -> None:
    async with world() as w:
        node = await w.node(server_params=ServerParams(visits_max=2))
        parties = [await w.client() for _ in range(3)]
        connections = [await party.pool.connection(node.contact) for party in parties]
        await trio.testing.wait_all_tasks_blocked()
        assert [connection.closed for connection in connections] == [False, False, True]
        parties[0].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert await parties[2].pool.request(node.contact, PING) == Pong(7, 1)


async def test_when_all_room_is_taken_the_longest_idle_visitor_goes(autojump_clock: MockClock) -> None:
    async with world() as w:
        node = await w.node(server_params=ServerParams(visitors_max=2))
        parties = []
        for number in range(3):
            parties.append(await w.client(w.network.client(number)))
            await parties[-1].pool.request(node.contact, PING)
            await trio.sleep(1)
        ready = [party.pool.ready(node.identity.id) is not None for party in parties]
        assert ready == [False, True, True]


async def test_busy_visitors_are_not_sent_away_for_another(autojump_clock: MockClock) -> None:
    def hold(_request: Ping, _peer: Peer, _answer: Answer[Message]) -> None:
        return

    async with world() as w:
        node = await w.node(routes=[Route(Ping, hold)], server_params=ServerParams(visitors_max=1))
        one, two = await w.client(w.network.client(1)), await w.client(w.network.client(2))
        one.pool.post(node.contact, PING, lambda _: None)
        await trio.sleep(1)
        connection = await two.pool.connection(node.contact)
        await trio.sleep(1)
        assert connection.closed
        assert one.pool.connections()


async def test_a_visitor_that_reads_nothing_is_dropped(autojump_clock: MockClock) -> None:
    async with world(capacity=4000) as w:
        params = ServerParams(connection=ConnectionParams(stall_timeout_s=5.0))
        node, client = await w.node(server_params=params), await w.client()
        await client.pool.connection(node.contact)
        w.hub.streams[0][0]._incoming._capacity = 0
        client.pool.post(node.contact, PING, lambda _: None)
        await trio.sleep(10)
        assert node.server is not None
        assert node.server.visitors == 0


async def test_logs_name_no_client(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as lines:
        await offend()
    assert [line["peer"] for line in lines if line["event"] == "peer_broke_protocol"] == ["client"]
    assert CLIENT.id.hex()[:8] not in str(lines)
    assert "raw" not in str(lines)


async def offend() -> None:
    """A client that breaks the protocol after its Hello."""
    async with world() as w:
        stream, _ = await speak(w, encode_call(0, CLIENT.hello()))
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\xff\xff\xff\xff")
        await read_all(stream)
