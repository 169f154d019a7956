"""What every Network does: TLS over loopback, and the one in memory, at once or with the latency of two regions."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.adapters.identity import Credential
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.errors import PeerUnreachable
from simulations.geography import Geography
from simulations.identities import FakeIdentity, FakeNetwork
from simulations.network import Hub
from simulations.world import World

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lockbox_node.ports import Network, PeerHandler, PeerStream

pytestmark = pytest.mark.real

MUCH = 32 << 20  # more than any buffer on the way holds


class _Contexts:
    """TLS by an identity on paper."""

    def __init__(self, identity: FakeIdentity) -> None:
        self._credential = Credential(identity.root, identity.chain, identity.key)

    def client_context(self) -> ssl.SSLContext:
        return self._credential.client_context

    def server_context(self) -> ssl.SSLContext:
        return self._credential.server_context


@dataclass
class Two:
    """A peer that dials and one that serves."""

    dialler: Network
    server: Network
    host: str
    leaves: tuple[bytes, bytes]

    @asynccontextmanager
    async def serving(self, handler: PeerHandler) -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(self.server.serve, handler)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def talking(self, handler: PeerHandler) -> AsyncIterator[PeerStream]:
        """The dialler's end of a stream whose other end `handler` has."""
        async with self.serving(handler) as port:
            stream = await self.dialler.dial(self.host, port)
            yield stream
            await stream.aclose()


@pytest.fixture(params=["at once", "two regions", "tcp"])
async def two(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Two]:
    authority = FakeNetwork()
    client, node = authority.client(1), authority.node(1)
    leaves = client.leaf(), node.leaf()
    if request.param == "tcp":
        yield Two(TcpNetwork(_Contexts(client)), TcpNetwork(_Contexts(node)), "127.0.0.1", leaves)
        return
    geography = Geography(World(1).rng)
    geography.place("here", "eu-west-1")
    geography.place("there", "eu-central-1")
    hub = Hub(geography=geography if request.param == "two regions" else None)
    await nursery.start(hub.run)
    yield Two(hub.network("here", client.leaf), hub.network("there", node.leaf), "there", leaves)
    nursery.cancel_scope.cancel()


async def echo(stream: PeerStream) -> None:
    """Send everything back."""
    buffer = memoryview(bytearray(1 << 16))
    try:
        while count := await stream.receive_into(buffer):
            await stream.send_all(buffer[:count])
    except PeerUnreachable:
        pass
    finally:
        await stream.aclose()


async def deaf(stream: PeerStream) -> None:
    """Read nothing."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await stream.aclose()


async def received(stream: PeerStream, count: int) -> bytes:
    buffer = memoryview(bytearray(count))
    done = 0
    while done < count:
        got = await stream.receive_into(buffer[done:])
        assert got, "closed too early"
        done += got
    return bytes(buffer)


async def told(work: Callable[[], Awaitable[object]], said: list[PeerUnreachable]) -> None:
    """Do `work`, which ends with PeerUnreachable."""
    with pytest.raises(PeerUnreachable) as caught:
        await work()
    said.append(caught.value)


async def test_both_know_the_leaf_and_the_host_of_the_other(two: Two) -> None:
    seen: list[tuple[bytes, str]] = []

    async def handler(stream: PeerStream) -> None:
        seen.append((stream.peer_leaf, stream.peer_host))
        await echo(stream)

    async with two.talking(handler) as stream:
        await stream.send_all(b"hello")
        assert await received(stream, 5) == b"hello"
        assert (stream.peer_leaf, stream.peer_host) == (two.leaves[1], two.host)
    assert seen[0][0] == two.leaves[0]
    assert seen[0][1]


async def test_bytes_arrive_in_order_however_they_are_cut(two: Two) -> None:
    data = bytes(range(256)) * 2000
    async with two.talking(echo) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(data), 7001):
                await stream.send_all(data[start : start + 7001])

        nursery.start_soon(send)
        assert await received(stream, len(data)) == data


async def test_a_small_buffer_takes_what_fits_and_loses_nothing(two: Two) -> None:
    async with two.talking(echo) as stream:
        await stream.send_all(memoryview(b"0123456789"))
        small, got = memoryview(bytearray(3)), b""
        while len(got) < 10:
            count = await stream.receive_into(small)
            assert 0 < count <= 3
            got += small[:count]
        assert got == b"0123456789"


async def test_a_clean_close_reads_as_zero_behind_the_last_byte(two: Two) -> None:
    async def handler(stream: PeerStream) -> None:
        await stream.send_all(b"bye")
        await stream.aclose()

    async with two.talking(handler) as stream:
        assert await received(stream, 3) == b"bye"
        buffer = memoryview(bytearray(10))
        assert await stream.receive_into(buffer) == 0
        assert await stream.receive_into(buffer) == 0


async def test_nothing_can_be_sent_for_long_to_one_who_closed(two: Two) -> None:
    async def handler(stream: PeerStream) -> None:
        await stream.aclose()

    async with two.talking(handler) as stream:
        with pytest.raises(PeerUnreachable), trio.fail_after(30):
            await stream.send_all(bytes(MUCH))
        with pytest.raises(PeerUnreachable):
            await stream.send_all(b"more")


async def test_nobody_listening_is_unreachable(two: Two) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(PeerUnreachable) as caught:
        await two.dialler.dial(two.host, port)
    assert caught.value.hint


async def test_a_name_of_nobody_is_unreachable(two: Two) -> None:
    with pytest.raises(PeerUnreachable):
        await two.dialler.dial("nobody.invalid", 7420)


async def test_after_serve_ended_nobody_listens_and_its_streams_are_closed(two: Two) -> None:
    async with two.serving(deaf) as port:
        stream = await two.dialler.dial(two.host, port)
        await stream.send_all(b"hello")
    with suppress(PeerUnreachable):  # what it did not read makes TCP break off instead
        assert await stream.receive_into(memoryview(bytearray(10))) == 0
    await stream.aclose()
    with pytest.raises(PeerUnreachable):
        await two.dialler.dial(two.host, port)
    async with two.serving(echo) as port:  # and it may be begun again
        stream = await two.dialler.dial(two.host, port)
        await stream.send_all(b"hello")
        assert await received(stream, 5) == b"hello"
        await stream.aclose()


async def test_a_reader_that_is_away_makes_the_sender_wait(two: Two) -> None:
    go_on = trio.Event()

    async def handler(stream: PeerStream) -> None:
        await go_on.wait()
        await echo(stream)

    async with two.talking(handler) as stream, trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await stream.send_all(bytes(MUCH))
            sent.set()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert not sent.is_set()
        go_on.set()
        await received(stream, MUCH)
        await sent.wait()


async def test_after_a_cancelled_send_the_stream_is_dead_for_both_tasks(two: Two) -> None:
    said: list[PeerUnreachable] = []
    async with two.talking(deaf) as stream:
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told, lambda: stream.receive_into(memoryview(bytearray(10))), said)
            nursery.start_soon(cancel_when_blocked, scope)
            with scope:
                await stream.send_all(bytes(MUCH))
            assert scope.cancelled_caught
        assert len(said) == 1
        with pytest.raises(PeerUnreachable, match="cut short"):
            await stream.send_all(b"more")


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.1)
    scope.cancel()


async def test_a_cut_send_is_a_break_for_the_peer_and_no_clean_end(two: Two) -> None:
    said: list[PeerUnreachable] = []
    over = trio.Event()

    async def handler(stream: PeerStream) -> None:
        async def read_all() -> None:
            while await stream.receive_into(memoryview(bytearray(1 << 16))):
                pass

        await began.wait()
        await told(read_all, said)
        await stream.aclose()
        over.set()

    began = trio.Event()
    async with two.talking(handler) as stream:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_blocked, scope)
                await stream.send_all(bytes(MUCH))
        began.set()
        await over.wait()
    assert len(said) == 1


async def test_closing_tells_both_tasks_and_waits_for_nobody(two: Two) -> None:
    said: list[PeerUnreachable] = []
    async with two.talking(deaf) as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told, lambda: stream.receive_into(memoryview(bytearray(10))), said)
            nursery.start_soon(told, lambda: stream.send_all(bytes(MUCH)), said)
            await trio.testing.wait_all_tasks_blocked(0.1)
            with trio.fail_after(5):
                await stream.aclose()
                await stream.aclose()
        assert len(said) == 2
        with pytest.raises(PeerUnreachable, match="closed here"):
            await stream.receive_into(memoryview(bytearray(10)))
        with pytest.raises(PeerUnreachable, match="closed here"):
            await stream.send_all(b"more")
