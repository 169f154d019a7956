"""One connection per node: dials, back-off, caps, pins.

Rules. Dials belong to the pool's nursery, never to who asked: a waiter that is cut takes nobody's dial away. One dial
in flight per node; all who wait share its outcome. The id that the certificate proves must be the wanted one. When
two nodes dial one another at once, the dial of the lower id stays; the other connection is used up and let go. Above
the soft cap connections that were idle for a while are let go, least recently used first; at the hard cap any idle
one; pinned and busy ones never. Source: DESIGN, Addresses; overlay measurements: a handshake costs 60 small calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import Bucket
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.rpc import connection as connections
from lockbox_node.rpc import dial_backs
from lockbox_node.rpc.connection import Connection, ConnectionParams
from lockbox_node.rpc.dial_backs import STOPPED, DialBackParams, DialBacks
from lockbox_node.rpc.dials import Backoffs, Contact, Dial, Outcome, Posted
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.frames import Frames
from lockbox_node.rpc.hello import LocalIdentity, Peer, SameNode, hello_out
from lockbox_node.rpc.refusals import busy
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lockbox_node.ports import Answer, Network
    from protocol.messages import Message, Signed

REPLACED = "another connection to this peer is used"

__all__ = ["Contact", "Pool", "PoolFigures", "PoolParams", "Posted"]


@dataclass(frozen=True, slots=True)
class PoolParams:
    """Limits and times of a pool."""

    dial_timeout_s: float = 5.0  # of one address, Hello included
    soft_max: int = 128
    hard_max: int = 512
    dials_max: int = 128  # in flight
    dial_rate: float = 64.0  # a second
    dial_burst: float = 256.0
    backoff_first_s: float = 0.2
    backoff_max_s: float = 5.0
    backoffs_max: int = 4096  # nodes whose failures are remembered
    evict_idle_s: float = 30.0  # above the soft cap
    crossing_s: float = 10.0  # two connections opened within it are a crossing; later the newer one counts
    linger_s: float = 1.0  # how long a connection that is not used any more must be idle before it is closed
    retired_max: int = 4  # such connections of one node
    addresses_max: int = 64  # bootstrap addresses whose node is remembered
    tend_interval_s: float = 4.0
    connection: ConnectionParams = connections.DEFAULTS
    dial_back: DialBackParams = dial_backs.DEFAULTS


DEFAULTS = PoolParams()


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """Counts for status and metrics; all but `open` and `dialling` since the start."""

    open: int
    dialling: int
    dials: int
    dials_failed: int
    evicted: int


class Pool:
    """All connections to nodes, dialled here or accepted by the server and adopted."""

    def __init__(
        self,
        network: Network,
        local: LocalIdentity,
        dispatcher: Dispatcher | None = None,
        params: PoolParams = DEFAULTS,
    ) -> None:
        self.on_lost: Callable[[NodeId], None] = lambda _node: None  # the connection in use ended, not by our choice
        # A peer at an address that was dialled, or that dialled us, has our own id: its record, its TLS leaf.
        self.on_same: Callable[[Signed, bytes], None] = lambda _record, _leaf: None
        # A node that we dialled says that we are revoked: by what key it was dialled.
        self.on_revoked: Callable[[bytes], None] = lambda _key: None
        self._network, self._local, self._params = network, local, params
        self._dispatcher = dispatcher or Dispatcher()
        self._ready: dict[bytes, Connection] = {}
        self._retired: dict[Connection, None] = {}  # oldest first
        self._node_at: dict[bytes, bytes] = {}  # address dialled by connect_address -> node found there
        self._pinned: frozenset[bytes] = frozenset()
        self._dials: dict[bytes, Dial] = {}
        self._backoffs = Backoffs(params.backoff_first_s, params.backoff_max_s, params.backoffs_max)
        self._to_dial, self._wanted = trio.open_memory_channel[Dial](params.dials_max)
        self._bucket = Bucket(params.dial_rate, params.dial_burst, 0.0)
        self.dial_backs = DialBacks(network, self._dial_turn, params.dial_back)
        self._stopped = False
        self._dialled = self._failed = self._evicted = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the dials and the connections that came of them, for ever."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tend)
                nursery.start_soon(self.dial_backs.run)
                task_status.started()
                async for dial in self._wanted:
                    nursery.start_soon(self._dial, dial)
        finally:
            self._stopped = True
            for dial in list(self._dials.values()):
                self._end(dial, PeerUnreachable(STOPPED))

    def ready(self, node: bytes) -> Connection | None:
        """The open connection to `node`, if there is one."""
        connection = self._ready.get(node)
        return None if connection is None or connection.closed else connection

    def connections(self) -> list[Connection]:
        """All open connections, one per node, in id order."""
        return [self._ready[node] for node in sorted(self._ready) if not self._ready[node].closed]

    def figures(self) -> PoolFigures:
        """Current counts."""
        return PoolFigures(len(self._ready), len(self._dials), self._dialled, self._failed, self._evicted)

    def post(self, contact: Contact, request: Message, answer: Answer[Message]) -> Posted:
        """Send `request`, dialling when needed; `answer` is called once, perhaps before this returns. Never waits."""
        posted = Posted(request, answer)
        self._obtain(contact.node, contact, posted.send)
        return posted

    async def request(self, contact: Contact, request: Message) -> Message:
        """The reply. RequestRefused, PeerUnreachable, BUSY. The caller sets the timeout."""
        return await (await self.connection(contact)).request(request)

    async def connection(self, contact: Contact) -> Connection:
        """The connection to a node, dialled when there is none. PeerUnreachable, RequestRefused (its Hello), BUSY."""
        return await self._await(contact.node, contact)

    async def connect_address(self, host: str, port: int) -> Connection:
        """The connection to whatever node stands at host:port, for bootstrap: its id is what its certificate says."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return await self._await(address.encode(), Contact(NodeId(b""), (address,)))

    def adopt(self, connection: Connection) -> bool:
        """Take a connection that a node opened to us; its owner runs it. False when there is no room for it."""
        assert connection.peer.role is Role.NODE
        if connection.peer.id not in self._ready and not self._make_room():
            return False
        self._register(connection)
        return True

    def drop(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._retired.pop(connection, None)
        if self._ready.get(connection.peer.id) is connection:
            del self._ready[connection.peer.id]
            self.on_lost(NodeId(connection.peer.id))

    def release(self, node: bytes) -> None:
        """Let go of a node: its connection is closed once it is idle, and not used for anything new."""
        connection = self._ready.pop(node, None)
        if connection is not None:
            self._retire(connection)

    def cut(self, doomed: Callable[[Peer], bool], why: str) -> int:
        """End every connection whose peer is `doomed`, at once; how many."""
        cut = [one for one in [*self._ready.values(), *self._retired] if not one.closed and doomed(one.peer)]
        for connection in cut:
            connection.abort(why)
        return len(cut)

    def pin(self, nodes: Iterable[bytes]) -> None:
        """These connections, and no others, are never let go for room."""
        self._pinned = frozenset(nodes)

    def reset_backoff(self, node: bytes) -> None:
        """Dial `node` at once when next asked: there is news of it."""
        self._backoffs.reset(node)

    async def _await(self, key: bytes, contact: Contact) -> Connection:
        got: list[Connection | LockboxError] = []
        event = trio.Event()

        def outcome(result: Connection | LockboxError) -> None:
            got.append(result)
            event.set()

        self._obtain(key, contact, outcome)
        await event.wait()
        if isinstance(got[0], LockboxError):
            raise got[0]
        return got[0]

    def _obtain(self, key: bytes, contact: Contact, outcome: Outcome) -> None:
        """Call `outcome` with an open connection or why there is none: now, or when the dial of `key` is over."""
        if (connection := self.ready(self._node_at.get(key, key))) is not None:
            outcome(connection)
        elif self._stopped:
            outcome(PeerUnreachable(STOPPED))
        elif key == self._local.id:
            outcome(PeerUnreachable("that is this node itself"))
        elif (dial := self._dials.get(key)) is not None:
            dial.waiting.append(outcome)
        elif (error := self._backoffs.error(key, trio.current_time())) is not None:
            outcome(error)
        elif len(self._dials) >= self._params.dials_max:
            outcome(busy("too many dials are under way"))
        else:
            dial = self._dials[key] = Dial(key, contact)
            dial.waiting.append(outcome)
            self._to_dial.send_nowait(dial)

    async def _dial(self, dial: Dial) -> None:
        """One dial, and then the life of the connection that came of it."""
        await self._dial_turn()
        self._dialled += 1
        try:
            connection = await self._reach(dial.contact)
        except LockboxError as error:
            self._failed += 1
            if isinstance(error, RequestRefused) and error.code is ErrorCode.REVOKED:
                self.on_revoked(dial.key)
            self._backoffs.failed(dial.key, error, trio.current_time())
            self._end(dial, error)
            return
        try:
            self._register(connection)
            if not dial.contact.node:
                self._remember(dial.key, connection.peer.id)
            self._end(dial, self.ready(connection.peer.id) or connection)
            await connection.run()
        finally:
            self.drop(connection)

    async def _dial_turn(self) -> None:
        while True:
            wait_s = self._bucket.take(trio.current_time())
            if not wait_s:
                return
            await trio.sleep(wait_s)

    def _remember(self, address: bytes, node: bytes) -> None:
        if len(self._node_at) >= self._params.addresses_max:
            self._node_at.clear()
        self._node_at[address] = node

    def _end(self, dial: Dial, outcome: Connection | LockboxError) -> None:
        self._dials.pop(dial.key, None)
        dial.settle(outcome)

    async def _reach(self, contact: Contact) -> Connection:
        """Try the addresses in turn; the last one's error when none answers."""
        failure: LockboxError = PeerUnreachable("no address is known for this node")
        for address in contact.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isascii() or not port.isdecimal():
                failure = PeerUnreachable(f"{address!r} is not host:port")
                continue
            try:
                return await self._reach_address(address, host.strip("[]"), int(port), contact.node)
            except LockboxError as error:
                failure = error
        raise failure

    async def _reach_address(self, where: str, host: str, port: int, wanted: bytes) -> Connection:
        with trio.move_on_after(self._params.dial_timeout_s):
            stream = await self._network.dial(host, port)
            try:
                frames = Frames(stream)
                peer = await hello_out(frames, self._local, lambda: self._dispatcher.rules)
                self._check(peer, wanted, where)
                peer = replace(peer, dialled_at=where)
                return Connection(frames, peer, self._dispatcher.session(peer), self._params.connection, dialled=True)
            except SameNode as error:
                await stream.aclose()
                if error.record is not None:
                    self.on_same(error.record, stream.peer_leaf)
                raise PeerUnreachable(f"{where} is this node itself", "check the address", error.code) from None
            except RemoteProtocolError as error:
                await stream.aclose()
                raise PeerUnreachable(f"{where} broke the protocol: {error}", code=error.code) from None
            except BaseException:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                    await stream.aclose()
                raise
        raise PeerUnreachable(f"{where} did not answer within {self._params.dial_timeout_s:g} s", "is it running?")

    def _check(self, peer: Peer, wanted: bytes, where: str) -> None:
        if peer.role is not Role.NODE:
            raise PeerUnreachable(f"{where} is a {peer.role.value}, not a node", "check the address")
        if peer.id == self._local.id:
            raise PeerUnreachable(f"{where} is this node itself", "check the address")
        if wanted and peer.id != wanted:
            raise PeerUnreachable(
                f"the node at {where} is {peer.log_name}, not the wanted {wanted.hex()[:8]}",
                "its record is out of date",
            )
        if peer.id not in self._ready and not self._make_room():
            raise busy("all connections are in use")

    def _register(self, connection: Connection) -> None:
        """Make it the node's connection, unless one stands that is to stay; tell a dial under way."""
        node = connection.peer.id
        standing = self.ready(node)
        if standing is None or self._outranks(connection, standing):
            self._ready[node] = connection
            if standing is not None:
                self._retire(standing)
        else:
            self._retire(connection)
        self._backoffs.reset(node)
        if (dial := self._dials.get(node)) is not None:
            dial.settle(self._ready[node])

    def _outranks(self, new: Connection, standing: Connection) -> bool:
        """Crossing dials: the lower id's stays. Otherwise the newer one: its node may have lost the other."""
        crossing = new.dialled != standing.dialled and new.opened - standing.opened <= self._params.crossing_s
        return not crossing or new.dialled == (self._local.id < new.peer.id)

    def _retire(self, connection: Connection) -> None:
        """Use it up: nothing new is asked over it, and it is closed once it is idle."""
        self._retired[connection] = None
        of_node = [other for other in self._retired if other.peer.id == connection.peer.id]
        if len(of_node) > self._params.retired_max:
            of_node[0].abort(REPLACED)

    def _make_room(self) -> bool:
        """Let idle connections go as the caps demand; whether one more may be opened."""
        params = self._params
        excess = len(self._ready) - params.soft_max + 1
        if excess > 0:
            self._evict(excess, trio.current_time() - params.evict_idle_s)
        if len(self._ready) >= params.hard_max:
            self._evict(1, math.inf)
        return len(self._ready) < params.hard_max

    def _evict(self, count: int, idle_before: float) -> None:
        idle = [
            c for n, c in self._ready.items() if n not in self._pinned and not c.busy and c.idle_since < idle_before
        ]
        for connection in sorted(idle, key=lambda c: (c.idle_since, c.peer.id))[:count]:
            del self._ready[connection.peer.id]
            connection.abort("it was let go to make room")
            self._evicted += 1

    async def _tend(self) -> None:
        """Close what was retired and is idle now, and what its peer does not read."""
        while True:
            await trio.sleep(self._params.tend_interval_s)
            now = trio.current_time()
            for connection in [*self._ready.values(), *self._retired]:
                connection.tend(now)
            for connection in list(self._retired):
                if now - connection.idle_since > self._params.linger_s:
                    connection.abort(REPLACED)
