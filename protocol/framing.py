"""Frames on a byte stream: a u32 big-endian length, then that many bytes of body.

Bytes are fed in as they come, whole bodies come out. A header that claims more than FRAME_BYTES_MAX ends the
connection before one byte of its body is kept, and what is held grows with the bytes received, never with what a
header promises. Bodies never alias the buffer that was fed, so that a reader may reuse it. Source: SPEC.md, Frames.
"""

from __future__ import annotations

from struct import Struct

from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError

FRAME_BYTES_MAX = 4 * 1024 * 1024  # of the body; the header comes on top
HEADER = Struct(">I")


def encode_frame(body: bytes | bytearray | memoryview) -> bytes:
    """Header and body in one piece. LocalProtocolError above FRAME_BYTES_MAX."""
    if len(body) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"a frame body of {len(body)} bytes; the limit is {FRAME_BYTES_MAX}")
    return HEADER.pack(len(body)) + body


def _claimed(buffer: bytearray | memoryview, position: int, limit: int) -> int:
    """The body length in the header at `position`; RemoteProtocolError when it is above the limit."""
    size: int = HEADER.unpack_from(buffer, position)[0]
    if size > limit:
        raise RemoteProtocolError(f"a frame that claims {size} bytes; the limit is {limit}", ErrorCode.TOO_LARGE)
    return size


class FrameDecoder:
    """One direction of one connection. After an error it must not be fed again: the stream has lost its place."""

    __slots__ = ("_held", "limit")

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self.limit = limit  # of a body; may be changed between two calls
        self._held = bytearray()  # header and the part received of the one unfinished frame

    @property
    def inside_frame(self) -> bool:
        """Whether the stream would end inside a frame if it ended now."""
        return bool(self._held)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes | memoryview]:
        """The bodies that `data` completes, in order; each owns its bytes. RemoteProtocolError(TOO_LARGE).

        Copies each byte once, or about once more for a frame that spans many calls (geometric growth).
        """
        view = memoryview(data)
        bodies: list[bytes | memoryview] = []
        position = self._resume(view, bodies) if self._held else 0
        end = len(view)
        while end - position >= HEADER.size:
            stop = position + HEADER.size + _claimed(view, position, self.limit)
            if stop > end:
                break
            bodies.append(bytes(view[position + HEADER.size : stop]))
            position = stop
        if position < end:
            self._held += view[position:]
        return bodies

    def _resume(self, view: memoryview, bodies: list[bytes | memoryview]) -> int:
        """Go on with the held frame; where in `view` the next one starts (its end, while this one is unfinished)."""
        held = self._held
        position = max(0, HEADER.size - len(held))
        held += view[:position]
        if len(held) < HEADER.size:
            return len(view)
        whole = HEADER.size + _claimed(held, 0, self.limit)
        stop = position + whole - len(held)
        held += view[position:stop]
        if len(held) < whole:
            return len(view)
        bodies.append(memoryview(held)[HEADER.size :])
        self._held = bytearray()
        return stop
