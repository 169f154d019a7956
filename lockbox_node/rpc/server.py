"""Accepting peers: Hello under a deadline, a bound on how many, then the connection's life.

Node peers are adopted by the pool, so that requests in the other direction use the same connection; all others are
kept here. Whatever goes wrong with one peer ends that peer's task only. Logs name nodes by 8 hex digits, and nobody
else at all. The table of handlers: rpc.dispatch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.errors import LockboxError
from lockbox_node.rpc import connection as connections
from lockbox_node.rpc.connection import Connection, ConnectionParams
from lockbox_node.rpc.dispatch import Dispatcher, Route
from lockbox_node.rpc.frames import Frames
from lockbox_node.rpc.hello import HELLO_BYTES_MAX, LocalIdentity, Peer, SameNode, hello_in
from protocol.certificates import Role
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import Network, PeerStream
    from lockbox_node.rpc.pool import Pool

__all__ = ["Dispatcher", "Route", "Server", "ServerParams"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerParams:
    """Limits of the accepting side."""

    hello_timeout_s: float = 5.0
    hellos_max: int = 256  # peers that have not said Hello yet
    visitors_max: int = 1024  # connections of clients, operators and guests
    visits_max: int = 32  # of one of them
    tend_interval_s: float = 4.0
    connection: ConnectionParams = connections.DEFAULTS


DEFAULTS = ServerParams()


class Server:
    """Serves all who come."""

    def __init__(
        self,
        network: Network,
        pool: Pool,
        local: LocalIdentity,
        dispatcher: Dispatcher,
        params: ServerParams = DEFAULTS,
    ) -> None:
        self._network, self._pool, self._local = network, pool, local
        self._dispatcher, self._params = dispatcher, params
        self._greeting = 0
        self._visitors: dict[Connection, None] = {}  # in order of arrival
        self._visits: Counter[bytes] = Counter()
        self.turned_away: Counter[str] = Counter()  # error code

    @property
    def visitors(self) -> int:
        """Open connections of clients, operators and guests."""
        return len(self._visitors)

    def cut(self, doomed: Callable[[Peer], bool], why: str) -> int:
        """End every visitor's connection whose peer is `doomed`, at once; how many."""
        cut = [visitor for visitor in self._visitors if not visitor.closed and doomed(visitor.peer)]
        for visitor in cut:
            visitor.abort(why)
        return len(cut)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept for ever; started with the port."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tend)
            task_status.started(await nursery.start(self._network.serve, self._welcome))

    async def _welcome(self, stream: PeerStream) -> None:
        """One peer from Hello to its end. The per-connection guard: nothing of it reaches the others."""
        try:
            connection = await self._greet(stream)
            if connection is not None:
                await self._keep(connection)
        except Exception:
            log.exception("peer_failed")
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await stream.aclose()

    async def _greet(self, stream: PeerStream) -> Connection | None:
        if self._greeting >= self._params.hellos_max:
            self.turned_away["BUSY"] += 1
            return None
        self._greeting += 1
        frames = Frames(stream, HELLO_BYTES_MAX)
        try:
            with trio.move_on_after(self._params.hello_timeout_s) as scope:
                peer = await hello_in(frames, self._local, self._dispatcher.rules)
        except RemoteProtocolError as error:
            if isinstance(error, SameNode) and error.record is not None:
                self._pool.on_same(error.record, stream.peer_leaf)
            self.turned_away[error.code.value] += 1
            log.info("hello_refused", code=error.code.value, error=str(error))
            return None
        except LockboxError:
            self.turned_away["GONE"] += 1
            return None
        finally:
            self._greeting -= 1
        if scope.cancelled_caught:
            self.turned_away["SLOW"] += 1
            return None
        if peer.id in self._dispatcher.rules.revoked:  # while our Hello went out
            self.turned_away["REVOKED"] += 1
            return None
        return Connection(frames, peer, self._dispatcher.session(peer), self._params.connection)

    async def _keep(self, connection: Connection) -> None:
        peer = connection.peer
        if not (self._pool.adopt(connection) if peer.role is Role.NODE else self._let_in(connection, peer)):
            self.turned_away["BUSY"] += 1
            return
        try:
            await connection.run()
        finally:
            if peer.role is Role.NODE:
                self._pool.drop(connection)
            else:
                self._let_out(connection)

    def _let_in(self, connection: Connection, peer: Peer) -> bool:
        """Room for one more; when all is taken, the visitor idle for longest goes."""
        if self._visits[peer.rate_key] >= self._params.visits_max:
            return False
        if len(self._visitors) >= self._params.visitors_max:
            longest = min(self._visitors, key=lambda visitor: visitor.idle_since)
            if longest.busy:
                return False
            longest.abort("it was let go to make room")
        self._visitors[connection] = None
        self._visits[peer.rate_key] += 1
        return True

    def _let_out(self, connection: Connection) -> None:
        del self._visitors[connection]
        key = connection.peer.rate_key
        self._visits[key] -= 1
        if not self._visits[key]:
            del self._visits[key]

    async def _tend(self) -> None:
        while True:
            await trio.sleep(self._params.tend_interval_s)
            now = trio.current_time()
            for visitor in self._visitors:
                visitor.tend(now)
