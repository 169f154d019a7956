"""Far away on loopback: what it costs to dial, ask and close; nothing is lost; partitions work over distances too.

Times are judged from below only: delay can be added by a busy machine, never taken away.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.adapters.delayed_network import UNDER_WAY_BYTES_MAX, DelayedNetwork, round_trip_s
from lockbox_node.adapters.parted_network import PartedNetwork
from lockbox_node.adapters.tcp import TcpNetwork, TcpStream, Turned
from lockbox_node.errors import ConfigError, PeerUnreachable
from tests.adapters.peers import deaf, echo, received, serving, settle_down

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
    from lockbox_node.ports import PeerStream

pytestmark = pytest.mark.real

HERE, THERE = "127.9.1.1", "127.9.2.1"
RTT_S = 0.2
LARGE = 3 * UNDER_WAY_BYTES_MAX // 2


@pytest.fixture
def delays(tmp_path: Path) -> Path:
    path = tmp_path / "latency.json"
    far_ms = 1000 * RTT_S
    round_trips = {"frankfurt": {"frankfurt": 1, "sydney": far_ms}, "sydney": {"frankfurt": far_ms, "sydney": 1}}
    path.write_text(json.dumps({"places": {THERE: "sydney"}, "elsewhere": "frankfurt", "round_trip_ms": round_trips}))
    return path


def network(identity: NodeIdentity, delays: Path, host: str = THERE) -> DelayedNetwork:
    return DelayedNetwork(identity, host, 0, delays.parent / "partition.json", delays)


async def test_a_dial_takes_two_round_trips_and_a_question_one(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    async with serving(network(node, delays)) as port:
        began = trio.current_time()
        stream = await TcpNetwork(client).dial(THERE, port)
        dialled = trio.current_time()
        assert dialled - began >= 2 * RTT_S
        for _ in range(3):
            asked = trio.current_time()
            await stream.send_all(b"hello")
            assert await received(stream, 5) == b"hello"
            assert trio.current_time() - asked >= RTT_S
        await stream.aclose()


async def test_either_way_takes_half_of_it(node: NodeIdentity, client: ClientIdentity, delays: Path) -> None:
    heard: list[float] = []

    async def listen(stream: PeerStream) -> None:
        await stream.receive_into(memoryview(bytearray(1)))
        heard.append(trio.current_time())
        await stream.send_all(b"x")
        await stream.aclose()

    async with serving(network(node, delays), listen) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        asked = trio.current_time()
        await stream.send_all(b"x")
        await received(stream, 1)
        assert heard[0] - asked >= RTT_S / 2
        assert trio.current_time() - heard[0] >= RTT_S / 2
        await stream.aclose()


async def test_a_place_is_where_the_file_says_and_not_what_anybody_claims(node: NodeIdentity, delays: Path) -> None:
    async with serving(network(node, delays, HERE)) as port:
        stream = await PartedNetwork(node, THERE, 0, delays.parent / "partition.json").dial(HERE, port)
        asked = trio.current_time()
        await stream.send_all(b"hello")
        await received(stream, 5)
        assert trio.current_time() - asked >= RTT_S
        await stream.aclose()


async def test_bytes_come_whole_and_in_order_also_more_than_may_be_under_way(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    content = os.urandom(LARGE)
    async with serving(network(node, delays)) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, content)
            assert await received(stream, len(content)) == content
        await stream.aclose()


async def test_so_much_may_be_under_way_and_then_the_sender_waits(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    sent = 0
    async with serving(network(node, delays), deaf) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        with trio.move_on_after(1):
            while sent < 8 * UNDER_WAY_BYTES_MAX:
                await stream.send_all(bytes(1 << 20))
                sent += 1 << 20
        await stream.aclose()
    assert UNDER_WAY_BYTES_MAX <= sent < 4 * UNDER_WAY_BYTES_MAX


async def test_last_words_come_although_they_are_followed_by_the_end(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    async def refuse(stream: PeerStream) -> None:
        await stream.send_all(b"no")
        await stream.aclose()

    async with serving(network(node, delays), refuse) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        assert await received(stream, 2) == b"no"
        assert await stream.receive_into(memoryview(bytearray(1))) == 0
        await stream.aclose()


async def test_last_words_come_although_the_daemon_ends(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    said = trio.Event()

    async def part(stream: PeerStream) -> None:
        try:
            await stream.receive_into(memoryview(bytearray(1)))
            await stream.send_all(b"bye")
            said.set()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(network(node, delays).serve, part)
        stream = await TcpNetwork(client).dial(THERE, port)
        await stream.send_all(b"x")
        await said.wait()
        nursery.cancel_scope.cancel()
    assert await received(stream, 3) == b"bye"
    await stream.aclose()


async def test_the_end_of_a_peer_is_heard_half_a_round_trip_later(
    node: NodeIdentity, client: ClientIdentity, delays: Path
) -> None:
    ended = trio.Event()

    async def handler(stream: PeerStream) -> None:
        await echo(stream)
        ended.set()

    far = network(node, delays)
    async with serving(far, handler) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        await stream.send_all(b"x")
        await received(stream, 1)
        left = trio.current_time()
        await stream.aclose()
        await ended.wait()
        assert trio.current_time() - left >= RTT_S / 2


async def test_who_breaks_off_during_the_handshake_leaves_nothing_behind(node: NodeIdentity, delays: Path) -> None:
    far = network(node, delays)
    async with serving(far) as port:
        stream = await trio.open_tcp_stream(THERE, port)
        await stream.aclose()
        await settle_down(far, Turned.GONE)


async def test_a_cut_across_a_distance_is_silent_and_heals(node: NodeIdentity, delays: Path) -> None:
    orders = delays.parent / "partition.json"
    far, near = network(node, delays), network(node, delays, HERE)
    async with serving(far) as port:
        stream = await near.dial(THERE, port)
        orders.write_text(json.dumps({HERE: [THERE], THERE: [HERE]}))
        far.obey()
        near.obey()
        await stream.send_all(b"hello")
        with trio.move_on_after(3 * RTT_S) as silence:
            await received(stream, 1)
        assert silence.cancelled_caught
        orders.unlink()
        far.obey()
        near.obey()
        assert await received(stream, 5) == b"hello"
        await stream.aclose()


async def test_a_peer_that_breaks_off_is_noticed(node: NodeIdentity, client: ClientIdentity, delays: Path) -> None:
    async def break_off(stream: PeerStream) -> None:
        assert isinstance(stream, TcpStream)
        await stream.receive_into(memoryview(bytearray(1)))
        with socket.socket(fileno=os.dup(stream.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)  # without close_notify
        await stream.aclose()

    async with serving(network(node, delays), break_off) as port:
        stream = await TcpNetwork(client).dial(THERE, port)
        await stream.send_all(b"x")
        with pytest.raises(PeerUnreachable):
            await stream.receive_into(memoryview(bytearray(1)))
        await stream.aclose()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"places": {}, "elsewhere": "x", "round_trip_ms": {}}',
        '{"places": {}, "elsewhere": "x", "round_trip_ms": {"x": {"x": "1"}}}',
        '{"places": {}, "elsewhere": "x", "round_trip_ms": {"x": {"x": -1}}}',
        '{"places": {}, "elsewhere": "x", "round_trip_ms": {"x": {"x": NaN}}}',
        '{"places": [], "elsewhere": "x", "round_trip_ms": {"x": {"x": 1}}}',
    ],
)
def test_a_file_without_use_is_a_configuration_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="how far away"):
        round_trip_s(path, HERE, THERE)


def test_no_file_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        round_trip_s(tmp_path / "none", HERE, THERE)


async def test_only_a_loopback_address_may_have_delays(node: NodeIdentity, delays: Path) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        network(node, delays, "0.0.0.0")
