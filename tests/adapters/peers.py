"""Both ends of a loopback connection, for the tests of the TCP adapter."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
import trio.testing

from lockbox_node.adapters.tcp import TcpNetwork, TcpStream, Turned
from lockbox_node.errors import PeerUnreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
    from lockbox_node.ports import PeerHandler, PeerStream

T = TypeVar("T")


async def echo(stream: PeerStream) -> None:
    """Send everything back until the peer closes or breaks the stream."""
    buffer = memoryview(bytearray(1 << 18))
    try:
        while count := await stream.receive_into(buffer):
            await stream.send_all(buffer[:count])
    except PeerUnreachable:
        pass
    finally:
        await stream.aclose()


async def deaf(stream: PeerStream) -> None:
    """Read nothing, until the test is over."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await stream.aclose()


@asynccontextmanager
async def serving(network: TcpNetwork, handler: PeerHandler = echo) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(network.serve, handler)
        nursery.cancel_scope.cancel()


async def received(stream: TcpStream, count: int) -> bytes:
    buffer = bytearray(count)
    done = 0
    while done < count:
        got = await stream.receive_into(memoryview(buffer)[done:])
        assert got, "closed too early"
        done += got
    return bytes(buffer)


async def is_served(identity: ClientIdentity | NodeIdentity, port: int) -> bool:
    """Whether a peer gets its own bytes back. In TLS 1.3 only reading tells."""
    try:
        stream = await TcpNetwork(identity).dial("127.0.0.1", port)
    except PeerUnreachable:
        return False
    try:
        await stream.send_all(b"hello")
        return await received(stream, 5) == b"hello"
    except PeerUnreachable:
        return False
    finally:
        await stream.aclose()


def raw_tls(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    return context.wrap_socket(sock, suppress_ragged_eofs=False)


async def in_thread(fn: Callable[[int], T], port: int) -> T:
    return await trio.to_thread.run_sync(fn, port)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop and the kernel work until `condition` holds; TooSlowError after 5 s."""
    with trio.fail_after(5):
        while True:
            if condition():
                return
            await trio.lowlevel.checkpoint()


async def settle_down(network: TcpNetwork, reason: Turned, count: int = 1) -> None:
    """Wait until this many were turned away for `reason` and nobody is left."""
    await until(lambda: network.turned_away[reason] >= count and not network.open_connections)
