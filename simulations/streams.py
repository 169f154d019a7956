"""A byte stream between two hosts in memory: two pipes with bounded buffers, over lines that may take time.

A pipe without a line hands its bytes over at once. On a line they are under way for as long as the line says, and
stand still while it is blocked, as TCP's do: what was sent before comes after the line is free again, in order, and
an end or a break travels behind the bytes. A full buffer makes the sender wait. A send that was cut leaves a dead
stream, and who waits on a stream that is closed here is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from lockbox_node.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER_BYTES = 256 * 1024
CLOSED = "the connection was closed"
CLOSED_HERE = "the connection was closed here"
BROKE = "the connection broke"


class Line(Protocol):
    """The way of bytes from one host to another."""

    def carry(self, pipe: Pipe) -> None:
        """Let `pipe.arrive` be called once, when what was sent last has come."""
        ...


@dataclass(frozen=True, slots=True)
class _End:
    """Travels behind the last byte: closed cleanly when `why` is empty."""

    why: str = ""


class Pipe:
    """One direction: what is under way, what has come and was not read, an end, a break."""

    def __init__(self, capacity: int, line: Line | None = None) -> None:
        self._capacity, self._line = capacity, line
        self._held = bytearray()
        self._under_way: deque[bytes | _End] = deque()
        self._under_way_bytes = 0
        self._changed = trio.lowlevel.ParkingLot()
        self.ended = False  # at the reader: nothing more comes
        self.shut = ""  # at the sender: why nothing more goes
        self.broken = ""  # at the reader: why
        self.deaf = False  # the reader is gone: what comes vanishes
        self.lost = False  # nothing that is sent comes any more, and nobody is told
        self.back: Pipe = self  # the other direction, set by `stream_pair`
        self.due = 0.0  # when what was sent last arrives
        self.came: Callable[[bytes], None] | None = None  # told what arrives
        self.sent: Callable[[], None] | None = None  # told that something was sent

    async def put(self, data: memoryview) -> None:
        # A checkpoint costs more than all the rest, and most sends find room: those yield in tests, not over a line.
        if self._line is None:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while data:
            if self.shut:
                raise PeerUnreachable(self.shut, "connect again")
            room = self._capacity - len(self._held) - self._under_way_bytes
            if room <= 0:
                await self._changed.park()
                continue
            self._send(bytes(data[:room]))
            data = data[room:]

    async def take_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while not self._held:
            if self.broken:
                raise PeerUnreachable(self.broken, "connect again")
            if self.ended:
                return 0
            await self._changed.park()
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        del self._held[:count]
        self._wake()
        return count

    def arrive(self) -> None:
        """What was sent first of all that is under way has come."""
        if self.lost or not self._under_way:
            return
        item = self._under_way.popleft()
        if not isinstance(item, _End):
            self._under_way_bytes -= len(item)
            self._land(item)
            return
        self.ended = True
        self.broken = self.broken or item.why
        self.back.close(item.why or CLOSED)
        self._wake()

    def end(self, why: str = "") -> None:
        """The sender closes, or breaks off when `why` says so; the reader learns it behind the last byte."""
        if self.shut:
            return
        self.close(why or CLOSED)
        if self._line is None:
            self._under_way.append(_End(why))
            self.arrive()
        else:
            self._send(_End(why))

    def close(self, why: str) -> None:
        """Nothing more is taken from the sender."""
        self.shut = self.shut or why
        self._wake()

    def deafen(self) -> None:
        """The reader is gone."""
        self.deaf = self.ended = True
        self._held.clear()
        self._wake()

    def break_off(self, why: str) -> None:
        """Both ends fail from now on; what was under way is lost."""
        self.broken = self.broken or why
        self.lost = True
        self._drop()
        self.close(why)

    @property
    def pending(self) -> bool:
        """Whether something that was sent has not come."""
        return bool(self._under_way)

    def lose(self) -> None:
        """What is sent vanishes from now on, and nobody is told."""
        self.lost = True

    def _drop(self) -> None:
        self._held.clear()
        self._under_way.clear()
        self._under_way_bytes = 0

    def _send(self, item: bytes | _End) -> None:
        if self._line is None and isinstance(item, bytes):
            self._land(item)
            return
        self._under_way.append(item)
        if self.sent is not None:
            self.sent()
        if isinstance(item, bytes):
            self._under_way_bytes += len(item)
        if self._line is not None:
            self._line.carry(self)

    def _land(self, item: bytes) -> None:
        if self.came is not None:
            self.came(item)
        if not self.deaf and not self.lost:
            self._held += item
        self._wake()

    def _wake(self) -> None:
        if self._changed:
            self._changed.unpark_all()


class MemoryStream:
    """PeerStream. `lose` breaks both directions at once, as a cut cable that TCP has noticed."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, peer_leaf: bytes, peer_host: str) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.peer_leaf, self.peer_host = peer_leaf, peer_host
        self.closed = False
        self.sends = 0
        self.on_closed: Callable[[], None] = lambda: None

    async def receive_into(self, buffer: memoryview) -> int:
        """See the port."""
        assert len(buffer) > 0
        self._check()
        count = await self._incoming.take_into(buffer)
        self._check()
        return count

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See the port."""
        self._check()
        self.sends += 1
        try:
            await self._outgoing.put(memoryview(data))
        except BaseException:
            self.break_here("a send was cut short")
            raise

    async def aclose(self) -> None:
        """See the port."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """What `aclose` does, for callers that may not wait."""
        if not self.closed:
            self.closed = True
            self._outgoing.end()
            self._outgoing.close(CLOSED_HERE)
            self._incoming.deafen()
            self.on_closed()

    def break_here(self, why: str) -> None:
        """This end fails from now on, the other learns it behind what was sent."""
        self._outgoing.end(why)
        self._incoming.broken = self._incoming.broken or why
        self._incoming.deafen()

    def lose(self, why: str = BROKE) -> None:
        """Both ends fail from now on."""
        self._incoming.break_off(why)
        self._outgoing.break_off(why)

    def go_silent(self) -> None:
        """Nothing comes through any more, in either direction, and nobody is told."""
        self._incoming.lose()
        self._outgoing.lose()

    def watch(self, came: Callable[[bytes], None]) -> None:
        """Be told what arrives here."""
        self._incoming.came = came

    def when_it_sends(self, act: Callable[[], None]) -> None:
        """Call `act` each time that this end sends, and now if something sent is still under way."""
        self._outgoing.sent = act
        if self._outgoing.pending:
            act()

    @property
    def over(self) -> bool:
        """Whether nothing will ever come of this end again."""
        return self.closed or bool(self._incoming.broken and self._outgoing.shut)

    def _check(self) -> None:
        if self.closed:
            raise PeerUnreachable(CLOSED_HERE, "connect again")


def stream_pair(
    left_leaf: bytes,
    right_leaf: bytes,
    hosts: tuple[str, str] = ("left", "right"),
    capacity: int = BUFFER_BYTES,
    lines: tuple[Line | None, Line | None] = (None, None),
) -> tuple[MemoryStream, MemoryStream]:
    """(the end of the left peer, the end of the right peer); `lines` lead to the right and to the left."""
    to_right, to_left = Pipe(capacity, lines[0]), Pipe(capacity, lines[1])
    to_right.back, to_left.back = to_left, to_right
    left = MemoryStream(to_left, to_right, right_leaf, hosts[1])
    right = MemoryStream(to_right, to_left, left_leaf, hosts[0])
    return left, right
