"""The operator's HTTP over real sockets: pages, limits, TLS, and an end that nobody can delay."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog
import trio
import trio.testing
import trustme

from lockbox_node.errors import ConfigError
from lockbox_node.observe.web import Application, Pages, TlsFiles, WebParams, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.real

HOST = "127.0.0.1"
METRICS = b"lockbox_uptime_seconds 1.0\n"


def application(*reasons: str) -> Application:
    """An application of a node that is not ready for these reasons."""
    return Application(Pages(not_ready=lambda: reasons, metrics=lambda: METRICS))


@asynccontextmanager
async def served(
    app: Application, *, tls: TlsFiles | None = None, params: WebParams | None = None
) -> AsyncIterator[int]:
    """Serve on a free port of the loopback; cut off at the end."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(partial(serve, app, HOST, 0, tls=tls, params=params))
            nursery.cancel_scope.cancel()


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(stream: trio.abc.Stream, request: str, body: bytes = b"") -> Answer:
    """Send one request ("GET /health") and read its response; the connection goes on."""
    head = f"{request} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {len(body)}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    received = b""
    while b"\r\n\r\n" not in received:
        received += await some(stream)
    top, _, received = received.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    expected = 0 if request.startswith("HEAD") else int(headers["content-length"])
    while len(received) < expected:
        received += await some(stream)
    return Answer(int(first.split()[1]), headers, received)


async def some(stream: trio.abc.Stream) -> bytes:
    """At least one byte."""
    data = bytes(await stream.receive_some())
    assert data, "the server closed the connection"
    return data


async def get(port: int, path: str) -> Answer:
    """One request on its own connection."""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        return await ask(stream, f"GET {path}")


async def get_over_tls(port: int, path: str, authority: trustme.CA) -> tuple[Answer, str | None]:
    """The same over TLS, and the version that was agreed on."""
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    transport = await trio.open_tcp_stream(HOST, port)
    async with trio.SSLStream(transport, trust, server_hostname=HOST, https_compatible=True) as stream:
        return await ask(stream, f"GET {path}"), stream.version()


async def test_health_says_alive() -> None:
    async with served(application("not joined")) as port:
        answer = await get(port, "/health")
    assert (answer.status, json.loads(answer.body)) == (200, {"alive": True})


async def test_a_ready_node_says_so() -> None:
    async with served(application()) as port:
        answer = await get(port, "/ready")
    assert (answer.status, json.loads(answer.body)) == (200, {"ready": True, "reasons": []})


async def test_a_node_that_is_not_ready_gives_its_reasons() -> None:
    async with served(application("the store is full")) as port:
        answer = await get(port, "/ready")
    assert (answer.status, json.loads(answer.body)) == (503, {"ready": False, "reasons": ["the store is full"]})


async def test_metrics_come_as_prometheus_text() -> None:
    async with served(application()) as port:
        answer = await get(port, "/metrics")
    assert (answer.body, answer.headers["content-type"]) == (METRICS, "text/plain; version=0.0.4; charset=utf-8")
    assert "server" not in answer.headers


async def test_other_pages_and_methods_are_refused_and_the_connection_goes_on() -> None:
    async with served(application()) as port, await trio.open_tcp_stream(HOST, port) as stream:
        codes = [
            (await ask(stream, "GET /nothing")).status,
            (await ask(stream, "POST /health", b"x" * 1000)).status,
            (await ask(stream, "HEAD /health")).status,
            (await ask(stream, "GET /health")).status,
        ]
    assert codes == [404, 405, 200, 200]


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n"]
)
async def test_garbage_ends_that_connection_only(garbage: bytes) -> None:
    async with served(application()) as port:
        stream = await trio.open_tcp_stream(HOST, port)
        async with stream:
            await stream.send_all(garbage)
        assert (await get(port, "/health")).status == 200


async def test_a_page_that_fails_is_answered_logged_and_harmless() -> None:
    def broken() -> bytes:
        raise RuntimeError("broken")

    app = Application(Pages(not_ready=tuple, metrics=broken))
    with structlog.testing.capture_logs() as logs:
        async with served(app) as port:
            answer = await get(port, "/metrics")
            health = await get(port, "/health")
    assert (answer.status, health.status) == (500, 200)
    assert [line["event"] for line in logs] == ["page_failed"]


async def test_one_connection_too_many_is_closed_at_once() -> None:
    async with (
        served(application(), params=WebParams(connections_max=1)) as port,
        await trio.open_tcp_stream(HOST, port) as first,
    ):
        assert (await ask(first, "GET /health")).status == 200
        async with await trio.open_tcp_stream(HOST, port) as second:
            assert await ends(second)
        assert (await ask(first, "GET /health")).status == 200


async def ends(stream: trio.SocketStream) -> bool:
    """Whether the server closed it without a word."""
    try:
        return not await stream.receive_some()
    except trio.BrokenResourceError:
        return True


async def test_an_idle_connection_is_closed() -> None:
    async with (
        served(application(), params=WebParams(keep_alive_s=0.05)) as port,
        await trio.open_tcp_stream(HOST, port) as stream,
    ):
        assert await ends(stream)


async def test_a_slow_request_is_closed() -> None:
    async with (
        served(application(), params=WebParams(keep_alive_s=0.05)) as port,
        await trio.open_tcp_stream(HOST, port) as stream,
    ):
        await stream.send_all(b"GET /health HTTP/1.1\r\nhost:")
        while await stream.receive_some():
            pass


async def test_no_connection_outlives_its_time() -> None:
    async with (
        served(application(), params=WebParams(connection_s=0.05)) as port,
        await trio.open_tcp_stream(HOST, port) as stream,
    ):
        assert await ends(stream)


async def test_a_peer_that_never_reads_cannot_hang_the_stop() -> None:
    big = Application(Pages(not_ready=tuple, metrics=lambda: b"x" * 64 * 1024 * 1024))
    async with served(big) as port:
        stream = await trio.open_tcp_stream(HOST, port)
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)  # in a send that is far larger than the socket buffers
    await stream.aclose()


async def test_connections_are_cut_when_the_server_stops() -> None:
    async with served(application()) as port:
        stream = await trio.open_tcp_stream(HOST, port)
        assert (await ask(stream, "GET /health")).status == 200
    async with stream:
        assert await ends(stream)


def tls_files(authority: trustme.CA, folder: Path) -> TlsFiles:
    """Certificate and key for the loopback address."""
    leaf = authority.issue_cert(HOST)
    files = TlsFiles(folder / "http.pem", folder / "http.key")
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    files.key.write_bytes(leaf.private_key_pem.bytes())
    return files


async def test_pages_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with served(application(), tls=tls_files(authority, tmp_path)) as port:
        answer, version = await get_over_tls(port, "/health", authority)
    assert (answer.status, version) == (200, "TLSv1.3")


async def test_plain_http_on_the_tls_port_ends_that_connection_only(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with served(application(), tls=tls_files(authority, tmp_path)) as port:
        async with await trio.open_tcp_stream(HOST, port) as stream:
            await stream.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"HTTP" not in await stream.receive_some()
        answer, _ = await get_over_tls(port, "/health", authority)
    assert answer.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
async def test_an_open_address_without_tls_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        await serve(application(), host, 0)


async def test_missing_tls_files_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use the HTTP certificate"):
        await serve(application(), HOST, 0, tls=TlsFiles(tmp_path / "no.pem", tmp_path / "no.key"))


async def test_a_taken_port_is_a_configuration_error() -> None:
    async with served(application()) as port:
        with pytest.raises(ConfigError, match="cannot serve HTTP"):
            await serve(application(), HOST, port)


def test_a_node_that_nobody_asks_does_not_load_the_http_libraries() -> None:
    code = "import sys, lockbox_node.observe.web; sys.exit(not {'hypercorn', 'starlette'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
