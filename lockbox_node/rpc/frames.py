"""A stream as frames: whole bodies in, one batch per read; frames out, cut and joined for few and large sends.

One buffer per connection takes all reads; the decoder copies out of it. What goes out small is joined, since one TLS
record for many replies is what makes small calls cheap; what is large is sent from where it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.errors import PeerUnreachable
from protocol.errors import RemoteProtocolError
from protocol.framing import FRAME_BYTES_MAX, FrameDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lockbox_node.ports import PeerStream

RECEIVE_BYTES_MIN = 16 * 1024  # a TLS record; most connections never need more, and a node has hundreds
RECEIVE_BYTES_MAX = 256 * 1024
LARGE_BYTES = 64 * 1024  # frames from here on are not copied together with their neighbours
SLICE_BYTES = 256 * 1024  # of one send: how finely progress is seen


class Frames:
    """A stream read as frames. One reader."""

    def __init__(self, stream: PeerStream, limit: int = FRAME_BYTES_MAX) -> None:
        self.stream = stream
        self._decoder = FrameDecoder(limit)
        self._buffer = memoryview(bytearray(RECEIVE_BYTES_MIN))
        self._early: list[bytes | memoryview] = []

    def lift_limit(self) -> None:
        """The peer has said who it is: frames may have their full size."""
        self._decoder.limit = FRAME_BYTES_MAX

    async def receive(self) -> list[bytes | memoryview] | None:
        """The bodies that one read completes, perhaps none; None when the peer closed between two frames.

        RemoteProtocolError (a frame above the limit, an end inside a frame), PeerUnreachable.
        """
        if self._early:
            bodies, self._early = self._early, []
            return bodies
        count = await self.stream.receive_into(self._buffer)
        if count:
            bodies = self._decoder.feed(self._buffer[:count])
            if count == len(self._buffer) < RECEIVE_BYTES_MAX:
                self._buffer = memoryview(bytearray(4 * count))
            return bodies
        if self._decoder.inside_frame:
            raise RemoteProtocolError("the stream ended inside a frame")
        return None

    async def receive_first(self) -> bytes | memoryview:
        """The next body alone; those behind it wait for `receive`. PeerUnreachable when the peer closed."""
        bodies = await self.receive()
        while bodies is not None and not bodies:
            bodies = await self.receive()
        if bodies is None:
            raise PeerUnreachable("the peer closed the connection", "connect again")
        self._early = bodies[1:]
        return bodies[0]


def pieces(frames: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The frames in order: small neighbours joined into one piece, large ones cut into slices without a copy."""
    small: list[bytes] = []
    small_bytes = 0
    for frame in frames:
        if len(frame) < LARGE_BYTES:
            small.append(frame)
            small_bytes += len(frame)
            if small_bytes < SLICE_BYTES:
                continue
        if small:
            yield b"".join(small)
            small, small_bytes = [], 0
        if len(frame) >= LARGE_BYTES:
            view = memoryview(frame)
            yield from (view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))
    if small:
        yield b"".join(small)
