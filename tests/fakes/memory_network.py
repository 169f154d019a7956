"""The Network port in memory: hosts on one hub, streams with bounded buffers, faults on demand.

Each host shows the leaf that its identity has at the moment of the dial, as TLS would; nothing is encrypted and no
certificate is checked, so what Hello must find is found by Hello. A full buffer makes the sender wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import PeerHandler

BUFFER_BYTES = 256 * 1024


class _Pipe:
    """One direction: a bounded buffer, an end, a break."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = bytearray()
        self._changed = trio.lowlevel.ParkingLot()
        self.ended = False
        self.broken = ""

    async def put(self, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        while data:
            self._check()
            if self.ended:
                raise PeerUnreachable("the connection was closed", "connect again")
            room = self._capacity - len(self._held)
            if room <= 0:
                await self._changed.park()
                continue
            self._held += data[:room]
            data = data[room:]
            self._changed.unpark_all()

    async def take_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while not self._held:
            self._check()
            if self.ended:
                return 0
            await self._changed.park()
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        del self._held[:count]
        self._changed.unpark_all()
        return count

    def end(self) -> None:
        self.ended = True
        self._changed.unpark_all()

    def break_off(self, why: str) -> None:
        self.broken = why
        self._held.clear()
        self._changed.unpark_all()

    def _check(self) -> None:
        if self.broken:
            raise PeerUnreachable(self.broken, "connect again")


class MemoryStream:
    """PeerStream. `lose` breaks both directions at once, as a cut cable that TCP has noticed."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer_leaf: bytes, peer_host: str) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.peer_leaf, self.peer_host = peer_leaf, peer_host
        self.closed = False
        self.sends = 0

    async def receive_into(self, buffer: memoryview) -> int:
        """See the port."""
        self._check()
        count = await self._incoming.take_into(buffer)
        self._check()
        return count

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See the port."""
        self._check()
        self.sends += 1
        await self._outgoing.put(memoryview(data))

    async def aclose(self) -> None:
        """See the port."""
        self.closed = True
        self._outgoing.end()
        self._incoming.end()
        await trio.lowlevel.checkpoint()

    def lose(self, why: str = "the connection broke") -> None:
        """Both ends fail from now on."""
        self._incoming.break_off(why)
        self._outgoing.break_off(why)

    def _check(self) -> None:
        if self.closed:
            raise PeerUnreachable("the connection was closed here", "connect again")


def stream_pair(
    left_leaf: bytes, right_leaf: bytes, hosts: tuple[str, str] = ("left", "right"), capacity: int = BUFFER_BYTES
) -> tuple[MemoryStream, MemoryStream]:
    """(the end of the left peer, the end of the right peer)."""
    to_right, to_left = _Pipe(capacity), _Pipe(capacity)
    left = MemoryStream(to_left, to_right, right_leaf, hosts[1])
    right = MemoryStream(to_right, to_left, left_leaf, hosts[0])
    return left, right


class MemoryHub:
    """All hosts of one test, and the streams between them in the order of their dials."""

    def __init__(self, capacity: int = BUFFER_BYTES, delay_s: float = 0.0) -> None:
        self.capacity, self.delay_s = capacity, delay_s
        self.listeners: dict[tuple[str, int], tuple[MemoryNetwork, PeerHandler, trio.Nursery]] = {}
        self.down: set[str] = set()  # hosts that refuse dials
        self.silent: set[str] = set()  # hosts that let a dial hang
        self.dials: list[tuple[str, str]] = []
        self.streams: list[tuple[MemoryStream, MemoryStream]] = []

    def network(self, host: str, leaf: Callable[[], bytes], port: int = 7420) -> MemoryNetwork:
        """The Network of one host; `leaf` is asked at each connection."""
        return MemoryNetwork(self, host, port, leaf)


class MemoryNetwork:
    """The Network port of one host on a hub."""

    def __init__(self, hub: MemoryHub, host: str, port: int, leaf: Callable[[], bytes]) -> None:
        self.hub, self.host, self.port, self.leaf = hub, host, port, leaf

    async def dial(self, host: str, port: int) -> MemoryStream:
        """See the port."""
        hub = self.hub
        hub.dials.append((self.host, host))
        await trio.sleep(hub.delay_s)
        if host in hub.silent:
            await trio.sleep_forever()
        listener = hub.listeners.get((host, port))
        if listener is None or host in hub.down:
            raise PeerUnreachable(f"{host}:{port} refused the connection", "is it running?")
        network, handler, nursery = listener
        ours, theirs = stream_pair(self.leaf(), network.leaf(), (self.host, host), hub.capacity)
        hub.streams.append((ours, theirs))
        nursery.start_soon(handler, theirs)
        return ours

    async def serve(
        self, handler: PeerHandler, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See the port."""
        place = (self.host, self.port)
        assert place not in self.hub.listeners
        async with trio.open_nursery() as nursery:
            self.hub.listeners[place] = (self, handler, nursery)
            task_status.started(self.port)
            try:
                await trio.sleep_forever()
            finally:
                del self.hub.listeners[place]
