"""The Network port over TCP and TLS 1.3: the stdlib's SSLSocket on the descriptor, driven by trio.

Rules. No MemoryBIO and no helper thread: a step that would block waits for its direction and is tried again. A TLS
write that was begun must be retried with the same buffer, so a send that was cut leaves a dead stream. A peer that
ends without close_notify broke the stream; it did not close it. Whatever comes to the port is counted by reason,
logged at most once a minute per reason and never with its address. In TLS 1.3 a client learns that its certificate
was refused only at its first read. Source: RFC 8446; python ssl, Notes on non-blocking sockets.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog
import trio

from lockbox_node.core.arrivals import Arrivals
from lockbox_node.errors import ConfigError, PeerUnreachable
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import PeerHandler

ALPN = "lockbox/1"
SLICE_BYTES_MAX = 1 << 20  # of one TLS write
RECORD_BYTES = 1 << 14  # plaintext of a full TLS record (RFC 8446, section 5.1)
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TcpParams:
    """Limits of the listener and the dialler."""

    dial_timeout_s: float = 5.0  # name, TCP and TLS together
    handshake_timeout_s: float = 5.0  # of a peer that came to us
    handshakes_max: int = 128  # in flight; one more cuts the oldest
    source_rate: float = 200.0  # connections a second from one IPv4 address or IPv6 /48; one more is closed at once
    source_burst: float = 2000.0  # a hundred nodes behind one address, and their clients, start together
    connections_max: int = 2048  # accepted and not ended yet; one more is closed at once
    backlog: int = 1024
    accept_backoff_s: float = 0.1  # after EMFILE and its kin
    accept_batch_max: int = 64  # accepts before other tasks get their turn
    log_interval_s: float = 60.0  # between two log lines about one reason


DEFAULTS = TcpParams()


class Turned(StrEnum):
    """Why a peer that came to the port got no service. The labels of a counter."""

    NOT_TLS = "not_tls"
    OLD_TLS = "old_tls"
    NO_CERTIFICATE = "no_certificate"
    FOREIGN_CERTIFICATE = "foreign_certificate"
    OTHER_PROTOCOL = "other_protocol"  # TLS was right, ALPN was not
    REFUSED_US = "refused_us"  # it did not take our certificate
    GONE = "gone"  # left during the handshake
    SLOW = "slow"
    CROWDED = "crowded"  # handshakes_max or connections_max
    TOO_OFTEN = "too_often"  # from one place
    BROKEN = "broken"


_TURNED_BY_REASON = {
    "WRONG_VERSION_NUMBER": Turned.NOT_TLS,
    "HTTP_REQUEST": Turned.NOT_TLS,
    "HTTPS_PROXY_REQUEST": Turned.NOT_TLS,
    "UNEXPECTED_MESSAGE": Turned.NOT_TLS,
    "RECORD_LAYER_FAILURE": Turned.NOT_TLS,
    "NO_PROTOCOLS_AVAILABLE": Turned.OLD_TLS,
    "UNSUPPORTED_PROTOCOL": Turned.OLD_TLS,
    "VERSION_TOO_LOW": Turned.OLD_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Turned.NO_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": Turned.FOREIGN_CERTIFICATE,
    "UNEXPECTED_EOF_WHILE_READING": Turned.GONE,
}


class TlsContexts(Protocol):
    """Gives the context of the moment: it changes when the leaf certificate is renewed."""

    def client_context(self) -> ssl.SSLContext:
        """For a connection that we dial."""
        ...

    def server_context(self) -> ssl.SSLContext:
        """For a connection that came to us."""
        ...


class TcpStream:
    """PeerStream over one non-blocking SSLSocket, which it owns. At most one reader and one sender at a time."""

    def __init__(self, tls: ssl.SSLSocket, peer_leaf: bytes, peer_host: str) -> None:
        self._tls = tls
        self._lost: str = ""  # why nothing goes any more
        self.peer_leaf = peer_leaf
        self.peer_host = peer_host

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed: for what the system may be told about it."""
        return self._tls.fileno()

    async def receive_into(self, buffer: memoryview) -> int:
        """Bytes received, as many as are at hand and fit; 0 = the peer closed cleanly. PeerUnreachable otherwise."""
        assert len(buffer) > 0
        total = await self._io(partial(self._tls.recv_into, buffer))
        # One read gives one record. A full one mostly has another behind it; a short one was the end of a write.
        while 0 < total < len(buffer) and (self._tls.pending() or total % RECORD_BYTES == 0):
            try:
                count = self._tls.recv_into(buffer[total:])
            except OSError:
                break  # nothing more now, or an error that the next call meets again
            if count == 0:
                break
            total += count
        return total

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. After a cancelled or failed send the stream is dead. PeerUnreachable when it broke."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._io(partial(self._tls.send, rest[:SLICE_BYTES_MAX])) :]
        except BaseException:
            self._break("a send was cut short")
            raise

    async def aclose(self) -> None:
        """Close at once, with close_notify if it can go out without waiting."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """What `aclose` does, for callers that may not wait. Tasks that wait on the stream get PeerUnreachable."""
        if self._tls.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._tls)
        if not self._lost:
            with suppress(OSError, ValueError):
                self._tls.unwrap()  # sends close_notify and does not wait for the peer's
        self._lost = self._lost or "it was closed here"
        self._tls.close()

    async def _io(self, step: Callable[[], int]) -> int:
        if self._lost:
            raise PeerUnreachable(f"the connection is gone: {self._lost}", "connect again")
        try:
            return await _finished(self._tls, step)
        except trio.ClosedResourceError:
            raise PeerUnreachable("the connection was closed here", "connect again") from None
        except trio.BusyResourceError:
            # TLS wants to answer a key update while the other task waits for the same direction. Nodes never ask
            # for one, so this peer is no node of ours.
            self._break("the peer asked for a key update")
            raise PeerUnreachable("the peer asked for a key update", "connect again") from None
        except (OSError, ValueError) as error:
            self._break("it broke")
            raise _unreachable(error) from None

    def _break(self, why: str) -> None:
        """Nothing goes through any more, and the other task learns it now; the descriptor stays until the close."""
        self._lost = self._lost or why
        if self._tls.fileno() >= 0:
            trio.lowlevel.notify_closing(self._tls)
            with suppress(OSError):
                socket.socket.shutdown(self._tls, socket.SHUT_RDWR)  # SSLSocket.shutdown would drop TLS first


class TcpNetwork:
    """The Network port. `host` and `port` are where `serve` listens (port 0: any free one); a dialler needs none."""

    def __init__(
        self, contexts: TlsContexts, host: str = "127.0.0.1", port: int = 0, params: TcpParams = DEFAULTS
    ) -> None:
        self._contexts = contexts
        self._host, self._port, self._params = host, port, params
        self._handshakes: OrderedDict[int, trio.CancelScope] = OrderedDict()  # oldest first
        self._log_again_at: dict[str, float] = {}  # by reason; the reasons are few
        self._next = 0
        self._arrivals = Arrivals(params.source_rate, params.source_burst)
        self.turned_away: Counter[Turned] = Counter()
        self.accepted = 0  # handshakes that ended well, since the start
        self.open_connections = 0  # of those that came to us, in handshake or served
        self.accept_errors = 0

    async def dial(self, host: str, port: int) -> TcpStream:
        """A stream to the peer at host:port. PeerUnreachable when nobody answers, or TLS fails (NOT_A_MEMBER then)."""
        where = f"{host}:{port}"
        with trio.move_on_after(self._params.dial_timeout_s):
            try:
                sock = await self._connected(host, port)
                return await _shaken(sock, self._contexts.client_context(), host, server_side=False)
            except (OSError, ValueError) as error:
                raise _unreachable(error, where) from None
        raise PeerUnreachable(f"{where} did not answer within {self._params.dial_timeout_s:g} s", "is it running?")

    async def serve(
        self, handler: PeerHandler, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept for ever; started with the port. `handler` owns its stream. ConfigError when it cannot listen."""
        listener = await self._listening()
        try:
            async with trio.open_nursery() as peers:
                task_status.started(listener.getsockname()[1])
                while True:
                    await trio.lowlevel.wait_readable(listener)
                    await self._accept_waiting(listener, handler, peers)
        finally:
            listener.close()

    async def _connected(self, host: str, port: int) -> socket.socket:
        """A connected TCP socket; all addresses of a name are tried (RFC 8305). OSError."""
        stream = await trio.open_tcp_stream(host, port)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)  # trio's 16 KiB would halve large writes
        return sock

    async def _listening(self) -> socket.socket:
        host, port = self._host, self._port
        try:
            family, _, _, _, address = (await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
            listener = socket.create_server(address[:2], family=family, backlog=self._params.backlog)  # SO_REUSEADDR
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", "choose another address in node.toml, key listen"
            ) from None
        listener.setblocking(False)
        return listener

    async def _accept_waiting(self, listener: socket.socket, handler: PeerHandler, peers: trio.Nursery) -> None:
        for _ in range(self._params.accept_batch_max):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # a peer that was gone again, or nothing left to accept with
                self.accept_errors += 1
                if error.errno in _OUT_OF:
                    self._log("accept_failed", errno.errorcode[error.errno], self.accept_errors)
                    await trio.sleep(self._params.accept_backoff_s)
                    return
                continue
            is_crowded = self.open_connections >= self._params.connections_max
            if is_crowded or self._arrivals.take(address[0], trio.current_time()):
                sock.close()
                self._turn_away(Turned.CROWDED if is_crowded else Turned.TOO_OFTEN)
                continue
            self.open_connections += 1
            peers.start_soon(self._welcome, sock, address[0].removeprefix("::ffff:"), handler)

    async def _welcome(self, sock: socket.socket, host: str, handler: PeerHandler) -> None:
        try:
            stream = await self._shake_hands(sock, host)
            if stream is not None:
                self.accepted += 1
                await handler(stream)
        finally:
            self.open_connections -= 1

    async def _shake_hands(self, sock: socket.socket, host: str) -> TcpStream | None:
        if len(self._handshakes) >= self._params.handshakes_max:
            # The oldest goes: an honest handshake takes milliseconds, so idle ones cannot keep the others out.
            self._handshakes.popitem(last=False)[1].cancel()
            self._turn_away(Turned.CROWDED)
        self._next += 1
        number = self._next
        deadline = trio.current_time() + self._params.handshake_timeout_s
        with trio.CancelScope(deadline=deadline) as scope:
            self._handshakes[number] = scope
            try:
                return await _shaken(sock, self._contexts.server_context(), host, server_side=True)
            except (OSError, ValueError) as error:
                self._turn_away(turned_by(error))
                return None
            finally:
                crowded_out = self._handshakes.pop(number, None) is None
        if not crowded_out:
            self._turn_away(Turned.SLOW)
        return None

    def _turn_away(self, reason: Turned) -> None:
        self.turned_away[reason] += 1
        self._log("turned_away", reason.value, self.turned_away[reason])

    def _log(self, event: str, reason: str, total: int) -> None:
        """At most one line a minute and reason: who knocks a thousand times must not fill the journal."""
        now = trio.current_time()
        if now >= self._log_again_at.get(reason, 0.0):
            self._log_again_at[reason] = now + self._params.log_interval_s
            log.warning(event, reason=reason, total=total)


def turned_by(error: Exception) -> Turned:
    """The reason that an error of the handshake stands for."""
    if isinstance(error, WrongProtocol):
        return Turned.OTHER_PROTOCOL
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "ALERT" in reason:
            return Turned.REFUSED_US
        return Turned.GONE if isinstance(error, ssl.SSLEOFError) else _TURNED_BY_REASON.get(reason, Turned.BROKEN)
    return Turned.GONE if isinstance(error, OSError) else Turned.BROKEN


class WrongProtocol(OSError):
    """TLS went well and ALPN did not agree on lockbox/1."""


async def _finished(tls: ssl.SSLSocket, step: Callable[[], T]) -> T:
    """Try `step` until it does not want to wait. Always a checkpoint; what `step` did is never lost to a cancel."""
    await trio.lowlevel.checkpoint_if_cancelled()
    waited = False
    while True:
        try:
            result = step()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(tls)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(tls)
        else:
            if not waited:  # a busy peer must not starve the loop
                await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        waited = True


async def _shaken(sock: socket.socket, context: ssl.SSLContext, host: str, *, server_side: bool) -> TcpStream:
    """The stream over `sock` after the handshake. Closes it on every error; OSError (SSLError too) or ValueError."""
    owner = sock
    try:
        if sock.family != socket.AF_UNIX:  # TLS may run inside of us, behind a delay
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        owner = tls = context.wrap_socket(
            sock, server_side=server_side, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        await _finished(tls, tls.do_handshake)
        leaf = tls.getpeercert(binary_form=True)
        if tls.selected_alpn_protocol() != ALPN or leaf is None:
            raise WrongProtocol(f"the peer does not speak {ALPN}")
        return TcpStream(tls, leaf, host)
    except BaseException:
        owner.close()
        raise


def _unreachable(error: Exception, where: str = "the peer") -> PeerUnreachable:
    """`error` of a dial or a stream in words that say what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerUnreachable(
            f"{where} is not a member of this network", "check the address and network.pem", ErrorCode.NOT_A_MEMBER
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return PeerUnreachable(
            f"{where} refused our certificate or protocol",
            "check that certificate and network.pem are of one network",
            ErrorCode.NOT_A_MEMBER,
        )
    if isinstance(error, WrongProtocol):
        return PeerUnreachable(f"{where} does not speak {ALPN}", "check the address", ErrorCode.UNSUPPORTED)
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return PeerUnreachable(f"the connection to {where} broke", "connect again")
    if isinstance(error, ssl.SSLError):
        return PeerUnreachable(f"{where} does not speak TLS 1.3 as a node does", "check the address")
    words = error.strerror if isinstance(error, OSError) and error.strerror else "no usable answer"
    return PeerUnreachable(f"{where} cannot be reached: {words}", "is it running, and is the address right?")
