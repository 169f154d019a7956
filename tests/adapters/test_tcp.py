"""TLS over loopback: what a good peer gets, and that nobody else gets anything."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import structlog.testing
import trio
import trio.testing

from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
from lockbox_node.adapters.tcp import ALPN, TcpNetwork, TcpParams, TcpStream, Turned
from lockbox_node.errors import ConfigError, PeerUnreachable
from lockbox_node.ports import PeerHandler, PeerStream
from protocol.certificates import Role
from protocol.errors import ErrorCode
from tests.adapters.conftest import Authority

pytestmark = pytest.mark.real

T = TypeVar("T")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")


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


@pytest.fixture
async def node(authority: Authority) -> NodeIdentity:
    return await authority.node()


@pytest.fixture
def client(authority: Authority) -> ClientIdentity:
    return authority.client()


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


async def test_two_nodes_talk_and_know_each_others_leaf(node: NodeIdentity, authority: Authority) -> None:
    other = await authority.node()
    leaves: list[tuple[bytes, str]] = []

    async def handler(stream: PeerStream) -> None:
        leaves.append((stream.peer_leaf, stream.peer_host))
        await echo(stream)

    async with serving(TcpNetwork(node), handler) as port:
        stream = await TcpNetwork(other).dial("127.0.0.1", port)
        await stream.send_all(b"hello")
        assert await received(stream, 5) == b"hello"
        assert stream.peer_leaf == node.chain[0]
        assert leaves == [(other.chain[0], "127.0.0.1")]
        await stream.aclose()


async def test_large_data_passes_whole_in_both_directions_at_once(node: NodeIdentity, client: ClientIdentity) -> None:
    data = os.urandom(9 << 20)
    async with serving(TcpNetwork(node)) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            assert await received(stream, len(data)) == data
        await stream.aclose()


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 32_768, 65_537])
async def test_records_of_every_size_arrive(node: NodeIdentity, client: ClientIdentity, size: int) -> None:
    async with serving(TcpNetwork(node)) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        data = os.urandom(size)
        await stream.send_all(data)
        assert await received(stream, size) == data
        await stream.send_all(b"")
        await stream.send_all(b"x")
        assert await received(stream, 1) == b"x"
        await stream.aclose()


async def test_a_buffer_smaller_than_a_record_loses_nothing(node: NodeIdentity, client: ClientIdentity) -> None:
    async with serving(TcpNetwork(node)) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        await stream.send_all(bytes(range(256)) * 8)
        small = memoryview(bytearray(7))
        got = b""
        while len(got) < 2048:
            got += bytes(small[: await stream.receive_into(small)])
        assert got == bytes(range(256)) * 8
        await stream.aclose()


async def test_a_clean_close_reads_as_zero_on_the_other_side(node: NodeIdentity, client: ClientIdentity) -> None:
    ends: list[int] = []

    async def handler(stream: PeerStream) -> None:
        ends.append(await stream.receive_into(memoryview(bytearray(10))))
        await stream.aclose()

    async with serving(TcpNetwork(node), handler) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert ends == [0]


async def test_an_end_without_close_notify_is_a_broken_stream(node: NodeIdentity, client: ClientIdentity) -> None:
    outcome: list[str] = []
    ended = trio.Event()

    async def handler(stream: PeerStream) -> None:
        try:
            await stream.receive_into(memoryview(bytearray(10)))
        except PeerUnreachable as error:
            outcome.append(error.message)
        await stream.aclose()
        ended.set()

    async with serving(TcpNetwork(node), handler) as port:
        tls = await in_thread(lambda port: raw_tls(port, client.client_context()), port)
        tls.close()  # no unwrap: FIN without close_notify
        with trio.fail_after(5):
            await ended.wait()
    assert outcome == ["the connection to the peer broke"]


async def test_after_a_cancelled_send_the_stream_is_dead_for_both_tasks(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    async with serving(TcpNetwork(node), deaf) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        told: list[PeerUnreachable] = []

        async def read() -> None:
            try:
                await stream.receive_into(memoryview(bytearray(10)))
            except PeerUnreachable as error:
                told.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_when_blocked, scope)
                await stream.send_all(bytes(64 << 20))
            assert scope.cancelled_caught
        assert len(told) == 1
        with pytest.raises(PeerUnreachable, match="cut short"):
            await stream.send_all(b"more")
        await stream.aclose()


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.1)
    scope.cancel()


async def test_closing_wakes_the_reader_and_does_not_wait_for_a_deaf_peer(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    async with serving(TcpNetwork(node), deaf) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        told: list[PeerUnreachable] = []

        async def use(send: bool) -> None:
            try:
                if send:
                    await stream.send_all(bytes(64 << 20))
                else:
                    await stream.receive_into(memoryview(bytearray(10)))
            except PeerUnreachable as error:
                told.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, True)
            nursery.start_soon(use, False)
            await trio.testing.wait_all_tasks_blocked(0.1)
            with trio.fail_after(1):
                await stream.aclose()
                await stream.aclose()
        assert len(told) == 2
        with pytest.raises(PeerUnreachable, match="closed here"):
            await stream.receive_into(memoryview(bytearray(10)))


async def test_the_reference_implementation_understands_us(node: NodeIdentity, client: ClientIdentity) -> None:
    async with serving(TcpNetwork(node)) as port:
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, client.client_context(), https_compatible=False)
        data = os.urandom(100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            got = b""
            while len(got) < len(data):
                got += await stream.receive_some()
        assert got == data
        await stream.aclose()


@needs_openssl
async def test_a_key_update_in_the_middle_is_survived(node: NodeIdentity, authority: Authority) -> None:
    certificate, key = authority.client_files()
    root = authority.home / "root.pem"
    root.write_text(ssl.DER_cert_to_PEM_cert(authority.root.der))
    command = ["openssl", "s_client", "-alpn", ALPN, "-cert", str(certificate), "-key", str(key), "-CAfile", str(root)]
    async with serving(TcpNetwork(node)) as port, trio.open_nursery() as nursery:
        process = await nursery.start(
            lambda task_status: trio.run_process(
                [*command, "-connect", f"127.0.0.1:{port}"],
                stdin=-1,
                stdout=-1,
                stderr=-2,
                check=False,
                task_status=task_status,
            )
        )
        seen = b""

        async def until(words: bytes) -> None:
            nonlocal seen
            with trio.fail_after(10):
                while words not in seen:
                    seen += await process.stdout.receive_some()

        await process.stdin.send_all(b"before\n")
        await until(b"before\n")
        await process.stdin.send_all(b"K\n")
        await until(b"KEYUPDATE\n")
        await process.stdin.send_all(b"after\n")
        await until(b"after\n")
        await process.stdin.send_all(b"Q\n")


async def test_an_expired_certificate_still_connects(node: NodeIdentity, authority: Authority) -> None:
    files = authority.client_files(terms=authority.terms(-10, -1))
    expired = ClientIdentity.load(authority.network, *files, authority.clock)
    async with serving(TcpNetwork(node)) as port:
        assert await is_served(expired, port)


async def test_guests_and_operators_connect(node: NodeIdentity, authority: Authority) -> None:
    async with serving(TcpNetwork(node)) as port:
        assert await is_served(ClientIdentity.guest(authority.network), port)
        assert await is_served(authority.client(Role.OPERATOR), port)


async def test_a_renewed_leaf_serves_new_connections_and_leaves_old_ones_alone(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    async with serving(TcpNetwork(node)) as port:
        network = TcpNetwork(client)
        old = await network.dial("127.0.0.1", port)
        await node.renew()
        new = await network.dial("127.0.0.1", port)
        assert new.peer_leaf == node.chain[0] != old.peer_leaf
        for stream in (old, new):
            await stream.send_all(b"hello")
            assert await received(stream, 5) == b"hello"
            await stream.aclose()


# --- who gets nothing -------------------------------------------------------------------------------------------


async def settle_down(network: TcpNetwork, reason: Turned, count: int = 1) -> None:
    with trio.fail_after(5):
        while network.turned_away[reason] < count or network.open_connections:
            await trio.lowlevel.checkpoint()


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
            except ConnectionError:
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
            with trio.fail_after(5):
                while network.accept_errors < 2:
                    await trio.lowlevel.checkpoint()
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


# --- dialling and listening -------------------------------------------------------------------------------------


async def test_dialling_where_nobody_listens_is_unreachable(client: ClientIdentity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(PeerUnreachable, match=f"127.0.0.1:{port} cannot be reached") as caught:
        await TcpNetwork(client).dial("127.0.0.1", port)
    assert caught.value.hint


async def test_dialling_somebody_silent_ends_at_the_deadline(client: ClientIdentity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(PeerUnreachable, match=r"did not answer within 0\.1 s"):
            await TcpNetwork(client, params=TcpParams(dial_timeout_s=0.1)).dial("127.0.0.1", port)


async def test_dialling_a_node_of_another_network_says_so(client: ClientIdentity, foreign: Authority) -> None:
    network = TcpNetwork(await foreign.node())
    async with serving(network) as port:
        with pytest.raises(PeerUnreachable, match="not a member of this network") as caught:
            await TcpNetwork(client).dial("127.0.0.1", port)
        assert caught.value.code is ErrorCode.NOT_A_MEMBER
        await settle_down(network, Turned.REFUSED_US)


async def test_dialling_something_that_is_no_tls_says_so(client: ClientIdentity) -> None:
    async def shout(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail ready\r\n" * 10)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, shout, 0)
        with pytest.raises(PeerUnreachable, match=r"does not speak TLS 1\.3"):
            await TcpNetwork(client).dial("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def test_an_address_in_use_is_a_configuration_error(node: NodeIdentity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            await TcpNetwork(node, "127.0.0.1", port).serve(echo)


async def test_a_port_can_be_listened_on_again_at_once(node: NodeIdentity, client: ClientIdentity) -> None:
    async with serving(TcpNetwork(node)) as port:
        assert await is_served(client, port)
    async with serving(TcpNetwork(node, "127.0.0.1", port)) as again:
        assert again == port
        assert await is_served(client, port)


async def test_loopback_of_ipv6_works_where_there_is_one(node: NodeIdentity, client: ClientIdentity) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    async with serving(TcpNetwork(node, "::1")) as port:
        stream = await TcpNetwork(client).dial("::1", port)
        await stream.send_all(b"six")
        assert await received(stream, 3) == b"six"
        await stream.aclose()
