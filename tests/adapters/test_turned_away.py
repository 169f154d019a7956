"""TLS over loopback: who gets no service, why, and that the listener goes on."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio
import trio.testing

from lockbox_node.adapters.tcp import ALPN, TcpNetwork, TcpParams, Turned
from lockbox_node.errors import PeerUnreachable
from protocol.errors import ErrorCode
from tests.adapters.peers import in_thread, is_served, raw_tls, serving, settle_down, until

if TYPE_CHECKING:
    from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
    from tests.adapters.conftest import Authority

pytestmark = pytest.mark.real

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")


# --- who gets nothing -------------------------------------------------------------------------------------------


async def s_client(port: int, *args: str) -> str:
    result = await trio.run_process(
        ["openssl", "s_client", "-ign_eof", "-connect", f"127.0.0.1:{port}", *args],
        stdin=b"hello\n",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert b"hello" not in result.stdout
    return result.stderr.decode()


@needs_openssl
async def test_tls_1_2_gets_no_service(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node)
    async with serving(network) as port:
        assert "alert protocol version" in await s_client(port, "-tls1_2", "-alpn", ALPN)
        await settle_down(network, Turned.OLD_TLS)
        assert await is_served(client, port)
    assert network.turned_away == {Turned.OLD_TLS: 1}


@needs_openssl
async def test_a_peer_without_a_certificate_gets_no_service(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node)
    async with serving(network) as port:
        assert "alert certificate required" in await s_client(port, "-alpn", ALPN)
        await settle_down(network, Turned.NO_CERTIFICATE)
        assert await is_served(client, port)


@needs_openssl
async def test_a_certificate_of_another_network_gets_no_service(
    node: NodeIdentity, client: ClientIdentity, foreign: Authority
) -> None:
    certificate, key = foreign.client_files()
    network = TcpNetwork(node)
    async with serving(network) as port:
        said = await s_client(port, "-alpn", ALPN, "-cert", str(certificate), "-key", str(key))
        assert "alert unknown ca" in said
        await settle_down(network, Turned.FOREIGN_CERTIFICATE)
        assert await is_served(client, port)


async def test_a_foreign_client_that_trusts_us_learns_of_its_refusal_when_it_reads(
    node: NodeIdentity, authority: Authority, foreign: Authority
) -> None:
    stranger = foreign.client().client_context()
    stranger.load_verify_locations(cadata=authority.root.der)
    network = TcpNetwork(node)

    class Contexts:
        def client_context(self) -> ssl.SSLContext:
            return stranger

        server_context = client_context

    async with serving(network) as port:
        stream = await TcpNetwork(Contexts()).dial("127.0.0.1", port)
        with pytest.raises(PeerUnreachable, match="refused our certificate") as caught:
            await stream.receive_into(memoryview(bytearray(10)))
        assert caught.value.code is ErrorCode.NOT_A_MEMBER
        await stream.aclose()
        await settle_down(network, Turned.FOREIGN_CERTIFICATE)


@pytest.mark.parametrize("protocols", [[], ["h2", "http/1.1"]])
async def test_a_peer_of_another_protocol_gets_no_service(
    node: NodeIdentity, client: ClientIdentity, protocols: list[str]
) -> None:
    context = client.client_context()  # a member's certificate: only the protocol is wrong
    context.set_alpn_protocols(protocols)
    network = TcpNetwork(node)

    def ask(port: int) -> bytes:
        with raw_tls(port, context) as tls:
            tls.sendall(b"hello")
            return tls.recv(10)

    async with serving(network) as port:
        with pytest.raises((ssl.SSLEOFError, ConnectionError)):
            await in_thread(ask, port)
        await settle_down(network, Turned.OTHER_PROTOCOL)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Turned.NOT_TLS),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Turned.NOT_TLS),
        (bytes(100), Turned.NOT_TLS),
        (b"\xff" * 100_000, Turned.NOT_TLS),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", Turned.BROKEN),
        (b"\x16\x03\x01\xff\xff" + bytes(70_000), Turned.BROKEN),
        (b"\x16\x03\x01", Turned.GONE),
        (b"", Turned.GONE),
    ],
)
async def test_garbage_gets_no_service_and_the_listener_goes_on(
    node: NodeIdentity, client: ClientIdentity, garbage: bytes, reason: Turned
) -> None:
    network = TcpNetwork(node)

    def throw(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            try:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                return sock.recv(1 << 16)
            except OSError:  # reset while we send, or already gone
                return b""

    async with serving(network) as port:
        assert len(await in_thread(throw, port)) <= 7  # an alert at most
        await settle_down(network, reason)
        assert await is_served(client, port)
    assert network.turned_away == {reason: 1}


async def test_a_peer_that_says_nothing_is_cut_after_the_deadline(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node, params=TcpParams(handshake_timeout_s=0.2))
    async with serving(network) as port:
        silent = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(5):
            assert await silent.receive_some() == b""
        await settle_down(network, Turned.SLOW)
        assert await is_served(client, port)
        await silent.aclose()


async def drip(stream: trio.SocketStream) -> None:
    """One record that never ends, byte by byte."""
    for byte in b"\x16\x03\x01\x40\x00" + bytes(0x4000):
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.02)


async def test_a_peer_that_drips_its_handshake_is_cut_after_the_deadline(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    network = TcpNetwork(node, params=TcpParams(handshake_timeout_s=0.3))
    async with serving(network) as port:
        slow = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await drip(slow)
        await settle_down(network, Turned.SLOW)
        assert await is_served(client, port)
        await slow.aclose()


async def test_idle_handshakes_cannot_keep_others_out(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node, params=TcpParams(handshakes_max=4))
    async with serving(network) as port:
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(10)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert network.open_connections == 4
        assert await is_served(client, port)
        assert network.turned_away[Turned.CROWDED] == 7
        for stream in idle:
            await stream.aclose()
        await settle_down(network, Turned.GONE, 3)


async def test_two_thousand_connections_from_one_address_hold_little_and_keep_nobody_out(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    network = TcpNetwork(node)

    def flood(port: int) -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2_000)]

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        async with serving(network) as port:
            sockets = await in_thread(flood, port)
            with trio.fail_after(30):
                assert await is_served(client, port)
            assert network.open_connections <= TcpParams().handshakes_max + 1
            assert network.turned_away[Turned.CROWDED] >= 2_000 - TcpParams().handshakes_max
            for sock in sockets:
                sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_handshake_cut_at_any_byte_ends_that_connection_only(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    network = TcpNetwork(node)
    flights: list[bytes] = []

    def record(port: int) -> None:
        """One whole handshake by hand, to have the bytes that its steps may be cut at."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.client_context().wrap_bio(incoming, outgoing)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            while True:
                try:
                    tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    done = False
                flights.append(outgoing.read())
                sock.sendall(flights[-1])
                if done:
                    return
                incoming.write(sock.recv(1 << 16))

    def cut(sent: bytes, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while sock.recv(1 << 16):
                    pass

    async with serving(network) as port:
        await in_thread(record, port)
        whole = b"".join(flights)
        steps = sorted({0, 1, 4, 5, 6, *range(16, len(whole), 64), len(flights[0]), len(whole) - 1})
        for step in steps:
            await in_thread(partial(cut, whole[:step]), port)
        with trio.fail_after(10):
            assert await is_served(client, port)
        assert sum(network.turned_away.values()) == len(steps)


async def test_accepted_connections_are_bounded(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node, params=TcpParams(connections_max=2))
    async with serving(network) as port:
        streams = [await TcpNetwork(client).dial("127.0.0.1", port) for _ in range(2)]
        assert not await is_served(client, port)
        assert network.turned_away == {Turned.CROWDED: 1}
        await streams[0].aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await is_served(client, port)
        await streams[1].aclose()


async def test_the_listener_survives_running_out_of_descriptors(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node, params=TcpParams(accept_backoff_s=0.01))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(network) as port:
        early = socket.socket()
        early.setblocking(False)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        filler = [os.dup(0) for _ in range(highest)]  # no hole below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, hard))
        try:
            early.connect_ex(("127.0.0.1", port))
            await until(lambda: network.accept_errors >= 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in filler:
                os.close(descriptor)
            early.close()
        assert await is_served(client, port)


async def test_each_reason_is_logged_once_and_never_with_the_address(node: NodeIdentity) -> None:
    network = TcpNetwork(node)
    with structlog.testing.capture_logs() as logs:
        async with serving(network) as port:
            for _ in range(5):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await stream.aclose()
            await settle_down(network, Turned.NOT_TLS, 5)
    assert [(line["event"], line["reason"]) for line in logs] == [("turned_away", "not_tls")]
    assert "127.0.0" not in str(logs)


async def test_who_comes_too_often_is_closed_before_any_tls(node: NodeIdentity, client: ClientIdentity) -> None:
    network = TcpNetwork(node, params=TcpParams(source_rate=0.001, source_burst=3.0))
    with structlog.testing.capture_logs() as logs:
        async with serving(network) as port:
            for _ in range(3):
                assert await is_served(client, port)
            for _ in range(5):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    assert await stream.receive_some(1) == b""
            assert network.turned_away == {Turned.TOO_OFTEN: 5}
            assert network.accepted == 3
    assert [log["reason"] for log in logs if log["event"] == "turned_away"] == ["too_often"]
    assert "127.0.0.1" not in str(logs)
