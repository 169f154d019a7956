"""One connection to one peer: calls both ways, one reader task, one writer task, no task per request.

Rules. Everything that is due goes out in one send: the writer takes the whole out-queue at once. The reader decodes
all frames that a read completed and serves them where they are; a handler answers at once or later. A call is
answered exactly once: by the reply, by RequestRefused, or by PeerUnreachable when the connection ends. Whatever the
peer does wrong, or a callback of ours, ends this connection only.

Bounds: calls out, calls in, bytes queued out. While much is queued out nothing more is read, except one batch each
`pause_s`: two peers that both wait for the other to read get on that way, slowly. A peer that takes nothing for
`stall_timeout_s`, or says nothing for `silence_timeout_s` while calls wait for it, is dropped by `tend`, which the pool
and the server call for all of theirs: a connection whose packets vanish looks well to TCP for a quarter of an hour.
Source: DESIGN, Wire; the design was measured at 64 calls of 200 B in flight against a task per request, x10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.gathering import Gathering
from lockbox_node.errors import PeerUnreachable
from lockbox_node.rpc.frames import Frames, pieces
from lockbox_node.rpc.refusals import busy, error_of, refusal_of
from lockbox_node.rpc.waiting import answered
from protocol.codec import (
    CALL,
    UnknownRequest,
    decode_envelope,
    decode_reply,
    decode_request,
    encode_call,
    encode_refusal,
    encode_reply,
)
from protocol.errors import RemoteProtocolError
from protocol.messages import Envelope, Message, Refusal

if TYPE_CHECKING:
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer

CALL_ID_MAX = 2**32 - 1
CLOSE_TIMEOUT_S = 1.0
GOODBYE_TIMEOUT_S = 1.0  # for a last refusal to go out
CLOSED_HERE = "the connection was closed here"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionParams:
    """Limits of one connection."""

    calls_max: int = 1024  # of ours that wait for an answer, forgotten ones included
    forgotten_max: int = 512  # of ours that we gave up and the peer never answered; above it the connection ends
    serving_max: int = 1024  # of the peer's that were not answered yet; above it BUSY
    serving_bytes_pause: int = 16 * 1024 * 1024  # of such calls; above it reading pauses
    tasks_max: int = 16  # of the rare handlers that need a task
    out_bytes_pause: int = 8 * 1024 * 1024  # queued out; above it reading pauses and `room` waits
    out_bytes_max: int = 32 * 1024 * 1024  # above it answers become BUSY; above twice as much the connection ends
    pause_s: float = 0.05
    gather_s: float = 0.002  # frames of a crowded connection wait so long to share one send
    gather_enough: int = 8
    stall_timeout_s: float = 30.0
    silence_timeout_s: float = 15.0  # more than any request is given


DEFAULTS = ConnectionParams()

Serve = Callable[["Connection", int, int, Message], None]
"""(connection, call id, number of the request type, request): must lead to one `reply` or `refuse` of that call."""


class Connection:
    """A peer that said Hello. `run` is its life; it ends by itself when the peer goes or misbehaves."""

    def __init__(
        self, frames: Frames, peer: Peer, serve: Serve, params: ConnectionParams = DEFAULTS, *, dialled: bool = False
    ) -> None:
        self.peer = peer
        self.dialled = dialled  # by us
        self.opened = self.last_progress = trio.current_time()  # the latter: when bytes last moved, either way
        self.closed = False
        self._frames, self._serve, self._params = frames, serve, params
        self._calls: dict[int, tuple[type[Message], Answer[Message]]] = {}
        self._forgotten: set[int] = set()
        self._last_call = 0
        self._serving: dict[int, int] = {}  # call id of the peer -> bytes of its frame
        self._serving_bytes = 0
        self._out: list[bytes] = []
        self._crowd = Gathering(params.gather_s, params.gather_enough)
        self._queued_bytes = 0
        self._last_sent = self.last_progress  # when bytes last went out, or began to wait
        self._last_heard = self.last_progress  # when bytes last came in, or calls began to wait
        self._work = trio.lowlevel.ParkingLot()  # the writer, while nothing is to be written
        self._eased = trio.lowlevel.ParkingLot()  # who waits for something to be written, answered, or the end
        self._tasks: trio.Nursery | None = None
        self._tasks_running = 0
        self._scope = trio.CancelScope()
        self._why = CLOSED_HERE
        self._told = False  # whether those who waited were told of the end

    @property
    def in_flight(self) -> int:
        """Our calls that wait for an answer."""
        return len(self._calls)

    @property
    def busy(self) -> bool:
        """Whether anything is asked, served or queued."""
        return bool(self._calls or self._serving or self._queued_bytes)

    @property
    def idle_since(self) -> float:
        """Trio time since when nothing is asked, served or sent; infinite while something is."""
        return float("inf") if self.busy else self.last_progress

    def post(self, request: Message, answer: Answer[Message]) -> int:
        """Send `request`; `answer` is called once with the reply or a LockboxError, on the reader's task.

        Never waits: when the connection is gone or `calls_max` is reached, `answer` is called before this returns.
        Returns the call id for `forget`. Bulk senders await `room` first. An answer that raises ends the connection.
        """
        if self.closed:
            answer(self._unreachable())
            return 0
        if len(self._calls) + len(self._forgotten) >= self._params.calls_max:
            answer(busy("too many calls wait for this peer"))
            return 0
        if not self._calls and not self._forgotten:
            self._last_heard = trio.current_time()
        call = self._next_call()
        frame = encode_call(call, request)
        self._calls[call] = (type(request), answer)
        self._push(frame)
        return call

    def forget(self, call: int) -> None:
        """Take back the promise to answer: the late answer is thrown away."""
        if self._calls.pop(call, None) is not None:
            self._forgotten.add(call)
            if len(self._forgotten) > self._params.forgotten_max:
                self.abort("the peer does not answer")

    async def request(self, request: Message) -> Message:
        """`request` and its reply. RequestRefused, PeerUnreachable, BUSY. The caller sets the timeout."""
        await self.room()
        return await answered(partial(self.post, request), self.forget)

    async def room(self) -> None:
        """Wait until another call may be posted without piling up: back-pressure. Returns at once when it is gone."""
        await self._until(self._has_room)

    def bytes_of(self, call: int) -> int:
        """The size of a call of the peer that is not answered yet."""
        return self._serving[call]

    def reply(self, call: int, number: int, reply: Message) -> int:
        """Answer a call of the peer; the bytes of it. Nothing happens when the connection is gone."""
        if not self._answering(call):
            return 0
        if self._queued_bytes > self._params.out_bytes_max:
            self._push_refusal(call, number, refusal_of(busy("too many answers wait for you to read")))
            return 0
        self._push(frame := encode_reply(call, reply, number))
        return len(frame)

    def refuse(self, call: int, number: int, refusal: Refusal) -> None:
        """Refuse a call of the peer. Nothing happens when the connection is gone."""
        if self._answering(call):
            self._push_refusal(call, number, refusal)

    def start(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run `work`, which answers a call by itself, in this connection's nursery; False when there is no room."""
        if self._tasks is None or self._tasks_running >= self._params.tasks_max:
            return False
        self._tasks_running += 1
        self._tasks.start_soon(self._guard, partial(self._counted, work))
        return True

    def abort(self, why: str) -> None:
        """End the connection; `why` goes to those who wait. Safe from any callback."""
        if not self.closed:
            self.closed = True
            self._why = why
            self._scope.cancel()
            self._ease()

    def tend(self, now: float) -> None:
        """Drop a peer that takes nothing of what is queued for it, and one that says nothing although it was asked."""
        if self._queued_bytes and now - self._last_sent > self._params.stall_timeout_s:
            self.abort("the peer reads nothing")
        elif (self._calls or self._forgotten) and now - self._last_heard > self._params.silence_timeout_s:
            self.abort("the peer does not answer")

    async def aclose(self) -> None:
        """Close now. Whoever waits for an answer gets PeerUnreachable."""
        self.abort(CLOSED_HERE)
        self._tell()
        await self._frames.stream.aclose()

    async def run(self) -> None:
        """Read, serve and write until the connection ends, whatever ends it; never raises for the peer's sake."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._tasks = nursery
                    nursery.start_soon(self._guard, self._write)
                    await self._guard(self._read)
        finally:
            self.abort(CLOSED_HERE)
            self._tell()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
                await self._frames.stream.aclose()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one task of the connection. The one place that catches what a callback or handler raises."""
        try:
            await work()
        except PeerUnreachable as error:
            self.abort(error.message)
        except RemoteProtocolError as error:
            log.warning("peer_broke_protocol", peer=self.peer.log_name, code=error.code.value, error=str(error))
            await self._say_why(error)
            self.abort(f"the peer broke the protocol: {error}")
        except Exception:
            log.exception("connection_failed", peer=self.peer.log_name)
            self.abort("an error here")

    async def _counted(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._tasks_running -= 1

    async def _say_why(self, error: RemoteProtocolError) -> None:
        """A last refusal, of call 0, if the peer takes it soon."""
        self._push(encode_refusal(0, 0, refusal_of(error)))
        with trio.move_on_after(GOODBYE_TIMEOUT_S):
            await self._until(lambda: not self._queued_bytes)

    async def _read(self) -> None:
        while True:
            if self._crowded():
                await self._pause()
            bodies = await self._frames.receive()
            if bodies is None:
                return self.abort("the peer closed the connection")
            self.last_progress = self._last_heard = trio.current_time()
            for body in bodies:
                self._take(body)

    def _crowded(self) -> bool:
        params = self._params
        return self._queued_bytes > params.out_bytes_pause or self._serving_bytes > params.serving_bytes_pause

    async def _pause(self) -> None:
        with trio.move_on_after(self._params.pause_s):
            await self._until(lambda: not self._crowded())

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that answering and writing bring about, or for the end."""
        while not (self.closed or condition()):
            await self._eased.park()

    def _has_room(self) -> bool:
        waiting = len(self._calls) + len(self._forgotten)
        return waiting < self._params.calls_max and self._queued_bytes <= self._params.out_bytes_pause

    def _take(self, body: bytes | memoryview) -> None:
        envelope = decode_envelope(body)
        if envelope.kind == CALL:
            self._take_call(envelope, len(body))
        else:
            self._take_answer(envelope)

    def _take_call(self, envelope: Envelope, size: int) -> None:
        call = envelope.call
        if call in self._serving:
            raise RemoteProtocolError("a call id that is in use")
        self._serving[call] = size
        self._serving_bytes += size
        try:
            request = decode_request(envelope)
        except UnknownRequest as error:
            self.refuse(call, envelope.type, refusal_of(error))
            return
        if len(self._serving) > self._params.serving_max:
            self.refuse(call, envelope.type, refusal_of(busy("too many of your calls are not answered yet")))
        else:
            self._serve(self, call, envelope.type, request)

    def _take_answer(self, envelope: Envelope) -> None:
        waiting = self._calls.get(envelope.call)
        if waiting is None:
            if envelope.call not in self._forgotten:
                raise RemoteProtocolError(_not_asked(envelope))
            self._forgotten.discard(envelope.call)
            self._ease()
            return
        kind, answer = waiting
        reply = decode_reply(envelope, kind)
        del self._calls[envelope.call]
        self._ease()
        answer(error_of(reply) if isinstance(reply, Refusal) else reply)

    async def _write(self) -> None:
        while True:
            await self._something_to_write()
            if (wait_s := self._crowd.wait_s(len(self._out))) > 0:
                await trio.sleep(wait_s)
            self._crowd.took(len(self._out))
            out, self._out = self._out, []
            for piece in pieces(out):
                await self._frames.stream.send_all(piece)
                self._queued_bytes -= len(piece)
                self.last_progress = self._last_sent = trio.current_time()
                self._ease()

    def _push_refusal(self, call: int, number: int, refusal: Refusal) -> None:
        if self._queued_bytes > 2 * self._params.out_bytes_max:
            self.abort("the peer asks on and reads nothing")
        else:
            self._push(encode_refusal(call, number, refusal))

    def _ease(self) -> None:
        if self._eased:
            self._eased.unpark_all()

    async def _something_to_write(self) -> None:
        while not self._out:
            await self._work.park()

    def _push(self, frame: bytes) -> None:
        if not self._queued_bytes:
            self._last_sent = trio.current_time()
        self._out.append(frame)
        self._queued_bytes += len(frame)
        if self._work:
            self._work.unpark()

    def _answering(self, call: int) -> bool:
        if self.closed:
            return False
        size = self._serving.pop(call, None)
        assert size is not None, "a call was answered twice"
        self._serving_bytes -= size
        self._ease()
        return True

    def _next_call(self) -> int:
        call = self._last_call
        while True:
            call = call + 1 if call < CALL_ID_MAX else 1  # 0 is Hello's
            if call not in self._calls and call not in self._forgotten:
                self._last_call = call
                return call

    def _unreachable(self) -> PeerUnreachable:
        return PeerUnreachable(self._why, "connect again")

    def _tell(self) -> None:
        """Tell everybody who waits of the end, once; an answer that fails does not keep it from the others."""
        if self._told:
            return
        self._told = True
        self._tasks = None
        self._out.clear()
        self._queued_bytes = 0
        self._serving.clear()
        self._forgotten.clear()
        calls, self._calls = self._calls, {}
        for _, answer in calls.values():
            try:
                answer(self._unreachable())
            except Exception:
                log.exception("answer_failed", peer=self.peer.log_name)


def _not_asked(envelope: Envelope) -> str:
    """Why an answer to no call of ours ends the connection; call 0 of type 0 is how a peer says good-bye in anger."""
    if envelope.call == 0:
        return "the peer ended the connection: we broke the protocol by its judgement"
    return f"an answer to call {envelope.call}, which was not asked"
