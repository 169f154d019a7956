"""TLS over loopback: what a good peer gets, how streams end, how dialling fails."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
from lockbox_node.adapters.tcp import ALPN, TcpNetwork, TcpParams, TcpStream, Turned
from lockbox_node.errors import ConfigError, PeerUnreachable
from protocol.certificates import Role
from protocol.errors import ErrorCode
from tests.adapters.peers import deaf, echo, in_thread, is_served, raw_tls, received, serving, settle_down

if TYPE_CHECKING:
    from lockbox_node.ports import PeerStream
    from tests.adapters.conftest import Authority

pytestmark = pytest.mark.real

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")


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
        scope = trio.CancelScope()
        told: list[PeerUnreachable] = []

        async def read() -> None:
            try:
                await stream.receive_into(memoryview(bytearray(10)))
            except PeerUnreachable as error:
                told.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(cancel_when_blocked, scope)
            with scope:
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


async def test_two_tasks_that_want_the_same_direction_end_the_stream(
    node: NodeIdentity, client: ClientIdentity
) -> None:
    told: list[PeerUnreachable] = []

    async def read(stream: TcpStream) -> None:
        try:
            await stream.receive_into(memoryview(bytearray(10)))
        except PeerUnreachable as error:
            told.append(error)

    async with serving(TcpNetwork(node), deaf) as port:
        stream = await TcpNetwork(client).dial("127.0.0.1", port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, stream)
            nursery.start_soon(read, stream)
        await stream.aclose()
    assert len(told) == 2


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
        start = partial(trio.run_process, [*command, "-connect", f"127.0.0.1:{port}"], check=False)
        process = await nursery.start(partial(start, stdin=-1, stdout=-1, stderr=-2))
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
