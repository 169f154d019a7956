"""The operator's HTTP: /health (alive), /ready (joined, store writable, certificate valid), /metrics.

Loopback in the clear, anything else only with TLS. Every connection is bounded: how many there are, how long one may
idle or take to send a request, and live. The connections are ours, since hypercorn's own server has no limit on them;
hypercorn speaks HTTP on each, starlette routes. Both are loaded by the first connection: a node that nobody asks
starts without them. Source: CONTRACT, HTTP of a node.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio

from lockbox_node.errors import ConfigError
from lockbox_node.observe.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from hypercorn.config import Config as HttpConfig
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WebParams:
    """Limits of the operator's HTTP."""

    connections_max: int = 32
    backlog: int = 32
    keep_alive_s: float = 30.0  # for the first request line and headers, and between two requests
    handshake_s: float = 10.0
    connection_s: float = 600.0  # from accept to the end, whatever happens; also frees us of who never reads
    header_bytes_max: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages say: `not_ready` returns the reasons (none = ready), `metrics` the text of `CONTENT_TYPE`.

    A reason is a sentence for an operator; it names no asset and no client.
    """

    not_ready: Callable[[], Sequence[str]]
    metrics: Callable[[], bytes]


class Application:
    """The ASGI application; built when first asked, since starlette takes a while to load."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._app: Starlette | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if self._app is None:
            self._app = _starlette(self._pages)
        await self._app(scope, receive, send)


def _starlette(pages: Pages) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def health(request: Request) -> Response:
        return JSONResponse({"alive": True}, headers=_FRESH)

    async def ready(request: Request) -> Response:
        reasons = list(pages.not_ready())
        status = 503 if reasons else 200
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=status, headers=_FRESH)

    async def metrics(request: Request) -> Response:
        return Response(pages.metrics(), headers={**_FRESH, "content-type": CONTENT_TYPE})

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("page_failed", exc_info=error)
        return PlainTextResponse("internal error\n", status_code=500)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    return Starlette(routes=routes, exception_handlers={Exception: failed})


_FRESH = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    tls: TlsFiles | None = None,
    params: WebParams | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; started with the bound port (`port` 0 takes a free one).

    ConfigError when `host` is not loopback and `tls` is None, when the TLS files cannot be used, or when the address
    cannot be bound.
    """
    limits = params or WebParams()
    context = _tls_context(host, tls)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=limits.backlog)
    except OSError as error:
        raise ConfigError(f"cannot serve HTTP on {host}:{port}: {error.strerror}", "choose a free address") from error
    task_status.started(listeners[0].socket.getsockname()[1])
    server = _Server(app, context, limits)
    async with trio.open_nursery() as connections:
        await trio.serve_listeners(server.handle, listeners, handler_nursery=connections)


def _tls_context(host: str, tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        if not _is_loopback(host):
            raise ConfigError(
                f"HTTP on {host} would be open to the network in the clear",
                "listen on 127.0.0.1, or name a certificate and a key",
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot use the HTTP certificate {tls.certificate} with the key {tls.key}",
            "check that both exist, are PEM, and belong together",
        ) from error
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server:
    """One guard around each connection: a limit, a deadline, and no failure that leaves it."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None, params: WebParams) -> None:
        self._app = app
        self._tls = tls
        self._params = params
        self._open = 0
        self._speak: Callable[[Stream], Awaitable[None]] | None = None

    async def handle(self, transport: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        if self._open >= self._params.connections_max:
            await trio.aclose_forcefully(transport)
            return
        self._open += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_close_after, transport, self._params.connection_s)
                await self._converse(transport)
                nursery.cancel_scope.cancel()
        except Exception:  # a server's listener must outlive whatever one connection does
            _log.exception("http_connection_failed")
        finally:
            self._open -= 1

    async def _converse(self, transport: trio.SocketStream) -> None:
        if self._speak is None:
            self._speak = _http(self._app, self._params)
        if self._tls is None:
            await self._speak(transport)
        else:
            await self._speak(trio.SSLStream(transport, self._tls, server_side=True, https_compatible=True))


async def _close_after(transport: trio.SocketStream, seconds: float) -> None:
    """Close the socket when the time is over or when this is cancelled.

    hypercorn shields its sends, and one to a peer that does not read would otherwise outlive every deadline and hang
    the stop of the node; closing the socket under it ends it.
    """
    try:
        await trio.sleep(seconds)
    finally:
        transport.socket.close()


def _http(app: ASGIApp, params: WebParams) -> Callable[[Stream], Awaitable[None]]:
    """What speaks HTTP on one stream. Loads hypercorn."""
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState
    from hypercorn.utils import wrap_app

    config = _http_config(Config(), params)
    framework: Any = app  # two libraries' types of one standard, ASGI
    wrapped = wrap_app(framework, config.wsgi_max_body_size, "asgi")
    server: Callable[[Any], Awaitable[None]] = partial(
        TCPServer, wrapped, config, WorkerContext(None), ConnectionState({})
    )
    return server


def _http_config(config: HttpConfig, params: WebParams) -> HttpConfig:
    config.accesslog = None  # it would name clients
    config.errorlog = None  # `failed` and the guard of `_Server` log what goes wrong
    config.include_server_header = False
    config.keep_alive_timeout = params.keep_alive_s
    config.ssl_handshake_timeout = params.handshake_s
    config.h11_max_incomplete_size = params.header_bytes_max
    return config
