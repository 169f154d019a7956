"""Two connections over a stream pair: calls both ways, losses, liars, slow readers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from lockbox_node.core.admission import Downgrade
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.rpc.connection import Connection, ConnectionParams
from lockbox_node.rpc.frames import Frames
from lockbox_node.rpc.hello import Peer
from protocol.certificates import Role
from protocol.codec import encode_call, encode_refusal, encode_reply
from protocol.errors import ErrorCode
from protocol.framing import encode_frame
from protocol.messages import (
    FindNode,
    GetShards,
    Message,
    Ping,
    Pong,
    PutStripe,
    Refusal,
    Shards,
    Signed,
    Stored,
)
from tests.fakes.memory_network import MemoryStream, stream_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

SIGNED = Signed(b"x", bytes(64))
PING = Ping(7)


def peer(name: bytes) -> Peer:
    return Peer(name * 32, Role.NODE, "op", "host", Downgrade.NONE, None, b"", 0.0)


@dataclass
class Side:
    """A served side that answers pings, keeps what it should not answer yet, and fails on demand."""

    held: list[tuple[Connection, int, int]] = field(default_factory=list)
    hold: bool = False

    def serve(self, connection: Connection, call: int, number: int, request: Message) -> None:
        if self.hold:
            self.held.append((connection, call, number))
        elif isinstance(request, Ping):
            if request.nonce == 13:
                raise ZeroDivisionError
            connection.reply(call, number, Pong(request.nonce, 1))
        elif isinstance(request, PutStripe):
            connection.reply(call, number, Stored([]))
        elif isinstance(request, GetShards):
            connection.reply(call, number, Shards(SIGNED, [b"s"], 0, [bytes(256 * 1024)] * 4))
        else:
            connection.refuse(call, number, Refusal("NOT_FOUND", "nothing here", "look elsewhere", False, 1500, SIGNED))


@dataclass
class Pair:
    left: Connection
    right: Connection
    left_stream: MemoryStream
    right_stream: MemoryStream
    left_side: Side
    right_side: Side
    nursery: trio.Nursery


@asynccontextmanager
async def pair(params: ConnectionParams | None = None) -> AsyncIterator[Pair]:
    params = params or ConnectionParams()
    one, two = stream_pair(b"L", b"R")
    left_side, right_side = Side(), Side()
    left = Connection(Frames(one), peer(b"R"), left_side.serve, params)
    right = Connection(Frames(two), peer(b"L"), right_side.serve, params)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        yield Pair(left, right, one, two, left_side, right_side, nursery)
        nursery.cancel_scope.cancel()


@dataclass
class Raw:
    """A peer that speaks by hand."""

    connection: Connection
    stream: MemoryStream
    frames: Frames
    side: Side


@asynccontextmanager
async def raw(params: ConnectionParams | None = None) -> AsyncIterator[Raw]:
    one, two = stream_pair(b"L", b"R")
    side = Side()
    connection = Connection(Frames(one), peer(b"R"), side.serve, params or ConnectionParams())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield Raw(connection, two, Frames(two), side)
        nursery.cancel_scope.cancel()


async def ended(connection: Connection) -> None:
    while not connection.closed:
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.01)


def put(shards: int = 4) -> PutStripe:
    return PutStripe(SIGNED, [b"slot"], 0, [bytes(256 * 1024)] * shards, [])


async def test_a_request_gets_its_reply() -> None:
    async with pair() as p:
        assert await p.left.request(PING) == Pong(7, 1)
        assert await p.right.request(Ping(8)) == Pong(8, 1)
        assert p.left.in_flight == 0


async def test_a_refusal_is_raised_with_its_code_hint_and_proof() -> None:
    async with pair() as p:
        with pytest.raises(RequestRefused) as caught:
            await p.left.request(FindNode(b"t" * 32, 5))
        error = caught.value
        assert (error.code, error.message, error.hint) == (ErrorCode.NOT_FOUND, "nothing here", "look elsewhere")
        assert (error.retry_after_s, error.proof) == (1.5, SIGNED)


async def test_large_calls_go_both_ways_at_once(autojump_clock: MockClock) -> None:
    async with pair() as p:
        got: list[Message] = []

        async def ask(connection: Connection, request: Message) -> None:
            got.append(await connection.request(request))

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                for connection in (p.left, p.right):
                    nursery.start_soon(ask, connection, put())
                    nursery.start_soon(ask, connection, GetShards(b"a" * 32, b"b" * 32, None))
        assert len(got) == 64
        assert sum(isinstance(reply, Shards) for reply in got) == 32


async def test_calls_that_are_due_together_go_out_in_one_send() -> None:
    async with pair() as p:
        answers: list[Message | LockboxError] = []
        for _ in range(64):
            p.left.post(PING, answers.append)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Pong(7, 1)] * 64
        assert (p.left_stream.sends, p.right_stream.sends) == (1, 1)


async def test_an_answer_may_come_later_and_out_of_order() -> None:
    async with pair() as p:
        p.right_side.hold = True
        answers: list[Message | LockboxError] = []
        p.left.post(Ping(1), answers.append)
        p.left.post(Ping(2), answers.append)
        await trio.testing.wait_all_tasks_blocked()
        for nonce, (connection, call, number) in zip((2, 1), reversed(p.right_side.held), strict=True):
            connection.reply(call, number, Pong(nonce, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Pong(2, 0), Pong(1, 0)]


async def test_a_cancelled_waiter_leaves_the_connection_to_others(autojump_clock: MockClock) -> None:
    async with pair() as p:
        p.right_side.hold = True
        with trio.move_on_after(1) as scope:
            await p.left.request(PING)
        assert scope.cancelled_caught
        p.right_side.hold = False
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 0))  # late
        assert await p.left.request(Ping(9)) == Pong(9, 1)


async def test_a_lost_link_tells_every_waiter_once() -> None:
    async with pair() as p:
        p.right_side.hold = True
        answers: list[Message | LockboxError] = []
        for _ in range(5):
            p.left.post(PING, answers.append)
        await trio.testing.wait_all_tasks_blocked()
        p.left_stream.lose("cable cut")
        await trio.testing.wait_all_tasks_blocked()
        assert [type(answer) for answer in answers] == [PeerUnreachable] * 5
        assert p.left.closed
        p.left.post(PING, answers.append)
        assert str(answers[5]) == "cable cut"
        with pytest.raises(PeerUnreachable):
            await p.left.request(PING)


async def test_a_peer_that_closes_ends_the_connection_and_its_own() -> None:
    async with pair() as p:
        await p.right.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert p.left.closed
        assert p.right.closed


async def test_the_answer_of_a_connection_gone_meanwhile_is_dropped() -> None:
    async with pair() as p:
        p.right_side.hold = True
        p.left.post(PING, lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        p.left_stream.lose()
        await trio.testing.wait_all_tasks_blocked()
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 0))
        connection.refuse(call, number, Refusal("BUSY", ""))


async def test_an_answer_given_twice_is_our_mistake() -> None:
    async with pair() as p:
        p.right_side.hold = True
        p.left.post(PING, lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 0))
        with pytest.raises(AssertionError):
            connection.reply(call, number, Pong(7, 0))


async def test_a_callback_that_raises_ends_its_own_connection_only() -> None:
    async with pair() as p, pair() as other:
        answers: list[Message | LockboxError] = []

        def fails(result: Message | LockboxError) -> None:
            answers.append(result)
            raise ZeroDivisionError

        p.left.post(PING, fails)
        p.left.post(PING, fails)
        await trio.testing.wait_all_tasks_blocked()
        assert p.left.closed
        assert [type(answer) for answer in answers] == [Pong, PeerUnreachable]
        assert await other.left.request(PING) == Pong(7, 1)


async def test_a_handler_that_raises_ends_its_own_connection_only() -> None:
    async with pair() as p:
        with pytest.raises(PeerUnreachable):
            await p.left.request(Ping(13))
        assert p.right.closed


async def test_an_unknown_request_is_answered() -> None:
    async with raw() as r:
        await r.stream.send_all(encode_frame(msgspec.msgpack.encode((0, 5, 200, ("what", "ever")))))
        envelope = msgspec.msgpack.decode(await r.frames.receive_first())
        assert envelope[:3] == [2, 5, 200]
        assert envelope[3][0] == "UNSUPPORTED"
        await r.stream.send_all(encode_call(6, PING))
        assert msgspec.msgpack.decode(await r.frames.receive_first())[:3] == [1, 6, 2]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",  # claims 4 GiB
        encode_frame(b"\xc1\xc1\xc1"),
        encode_frame(msgspec.msgpack.encode((0, 5, 2, "no ping"))),
        encode_frame(msgspec.msgpack.encode((9, 5, 2, (1,)))),
        encode_reply(999, Pong(1, 1), 2),  # never asked
        encode_refusal(0, 0, Refusal("PROOF_INVALID", "you are wrong")),
        encode_call(5, PING) * 2,  # one id twice in service
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_ends_the_connection(garbage: bytes, autojump_clock: MockClock) -> None:
    async with raw() as r:
        r.side.hold = True
        answers: list[Message | LockboxError] = []
        r.connection.post(PING, answers.append)
        await r.stream.send_all(garbage)
        await ended(r.connection)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(answer) for answer in answers] == [PeerUnreachable]


async def test_a_liar_is_told_why_before_it_goes() -> None:
    async with raw() as r:
        await r.stream.send_all(b"\xff\xff\xff\xff")
        envelope = msgspec.msgpack.decode(await r.frames.receive_first())
        assert envelope[:3] == [2, 0, 0]
        assert envelope[3][0] == "TOO_LARGE"
        assert await r.frames.receive() is None


async def test_an_end_inside_a_frame_is_an_error_of_the_peer(autojump_clock: MockClock) -> None:
    async with raw() as r:
        await r.stream.send_all(encode_call(1, PING)[:-1])
        await r.stream.aclose()
        await ended(r.connection)


async def test_a_late_answer_after_forget_is_ignored_and_a_second_one_is_not(autojump_clock: MockClock) -> None:
    async with raw() as r:
        answers: list[Message | LockboxError] = []
        call = r.connection.post(PING, answers.append)
        r.connection.forget(call)
        r.connection.forget(call)
        await r.stream.send_all(encode_reply(call, Pong(7, 1), 2))
        await trio.testing.wait_all_tasks_blocked()
        assert not r.connection.closed
        await r.stream.send_all(encode_reply(call, Pong(7, 1), 2))
        await ended(r.connection)
        assert answers == []


async def test_an_answer_of_another_type_ends_the_connection(autojump_clock: MockClock) -> None:
    async with raw() as r:
        answers: list[Message | LockboxError] = []
        call = r.connection.post(PING, answers.append)
        await r.stream.send_all(encode_reply(call, Stored([]), 7))
        await ended(r.connection)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(answer) for answer in answers] == [PeerUnreachable]


async def test_a_peer_that_never_answers_what_was_forgotten_is_left(autojump_clock: MockClock) -> None:
    async with raw(ConnectionParams(forgotten_max=3)) as r:
        for _ in range(4):
            r.connection.forget(r.connection.post(PING, lambda _: None))
        await ended(r.connection)


async def test_calls_above_the_limit_are_answered_busy_and_room_waits_for_one(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(calls_max=2)) as p:
        p.right_side.hold = True
        answers: list[Message | LockboxError] = []
        p.left.post(PING, answers.append)
        p.left.post(PING, answers.append)
        assert p.left.post(PING, answers.append) == 0
        assert isinstance(answers[0], LockboxError)
        assert answers[0].code is ErrorCode.BUSY
        with trio.move_on_after(1) as scope:
            await p.left.room()
        assert scope.cancelled_caught
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 1))
        await p.left.room()


async def test_served_calls_above_the_limit_are_refused_busy() -> None:
    async with pair(ConnectionParams(serving_max=2)) as p:
        p.right_side.hold = True
        answers: list[Message | LockboxError] = []
        for _ in range(3):
            p.left.post(PING, answers.append)
        await trio.testing.wait_all_tasks_blocked()
        assert len(p.right_side.held) == 2
        assert isinstance(answers[0], RequestRefused)
        assert answers[0].code is ErrorCode.BUSY


async def test_a_slow_reader_stops_our_reading_not_our_memory(autojump_clock: MockClock) -> None:
    params = ConnectionParams(out_bytes_pause=2**20, out_bytes_max=8 * 2**20, stall_timeout_s=30.0)
    async with raw(params) as r:
        asked = 0
        with trio.move_on_after(1):
            while True:
                asked += 1
                call = encode_call(asked, GetShards(b"a" * 32, b"b" * 32, None))
                await r.stream.send_all(call)
        assert 8 * 2**20 < r.connection._queued_bytes < 17 * 2**20


async def test_a_peer_that_asks_on_and_never_reads_is_dropped(autojump_clock: MockClock) -> None:
    async with raw(ConnectionParams(out_bytes_pause=2**12, out_bytes_max=2**14)) as r:
        with pytest.raises(PeerUnreachable), trio.fail_after(60):
            for call in range(1, 2**20):
                await r.stream.send_all(encode_call(call, GetShards(b"a" * 32, b"b" * 32, None)))
        assert r.connection.closed


async def test_a_peer_that_takes_nothing_for_long_is_dropped(autojump_clock: MockClock) -> None:
    async with raw(ConnectionParams(stall_timeout_s=30.0)) as r:
        await r.stream.send_all(encode_call(1, GetShards(b"a" * 32, b"b" * 32, None)))
        for waited_s, closed in ((29, False), (2, True)):
            await trio.sleep(waited_s)
            r.connection.tend(trio.current_time())
            assert r.connection.closed is closed


async def test_two_peers_that_both_queue_too_much_get_on(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(out_bytes_pause=2**20)) as p:
        answers: list[Message | LockboxError] = []
        for _ in range(20):
            for connection in (p.left, p.right):
                connection.post(GetShards(b"a" * 32, b"b" * 32, None), answers.append)
        with trio.fail_after(60):
            while len(answers) < 40:
                await trio.sleep(0.1)
        assert all(isinstance(answer, Shards) for answer in answers)


async def test_answers_above_the_hard_limit_become_busy() -> None:
    async with raw(ConnectionParams(out_bytes_max=2**20)) as r:
        calls = [encode_call(call, GetShards(b"a" * 32, b"b" * 32, None)) for call in (1, 2, 3)]
        await r.stream.send_all(b"".join(calls))
        await trio.testing.wait_all_tasks_blocked()
        kinds = [msgspec.msgpack.decode(await r.frames.receive_first())[0] for _ in range(3)]
        assert kinds == [1, 2, 2]


async def test_much_that_is_not_answered_yet_pauses_reading(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(serving_bytes_pause=2**20)) as p:
        p.right_side.hold = True
        for _ in range(20):
            p.left.post(put(), lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(p.right_side.held) == 1
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Stored([]))
        await trio.testing.wait_all_tasks_blocked()
        assert len(p.right_side.held) == 2


async def test_progress_is_seen_while_bytes_move(autojump_clock: MockClock) -> None:
    async with pair() as p:
        p.right_side.hold = True
        await trio.sleep(5)
        p.left.post(PING, lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        moved = p.left.last_progress
        assert moved == trio.current_time()
        assert (p.left.busy, p.left.idle_since) == (True, float("inf"))
        await trio.sleep(5)
        assert p.left.last_progress == moved
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 1))
        await trio.testing.wait_all_tasks_blocked()
        assert p.left.last_progress == trio.current_time() == p.left.idle_since


async def test_work_in_the_nursery_is_bounded_and_dies_with_the_connection() -> None:
    stopped: list[int] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(1)

    async with pair(ConnectionParams(tasks_max=2)) as p:
        await trio.testing.wait_all_tasks_blocked()
        assert [p.left.start(work) for _ in range(3)] == [True, True, False]
        await trio.testing.wait_all_tasks_blocked()
        p.left.abort("enough")
        await trio.testing.wait_all_tasks_blocked()
        assert stopped == [1, 1]
        assert not p.left.start(work)


async def test_a_closed_connection_that_never_ran_tells_its_waiters() -> None:
    one, _ = stream_pair(b"L", b"R")
    connection = Connection(Frames(one), peer(b"R"), Side().serve)
    answers: list[Message | LockboxError] = []
    connection.post(PING, answers.append)
    await connection.aclose()
    await connection.run()
    assert [type(answer) for answer in answers] == [PeerUnreachable]


async def test_call_ids_start_again_after_the_last_and_leave_out_what_is_in_use() -> None:
    async with pair() as p:
        p.right_side.hold = True
        assert p.left.post(PING, lambda _: None) == 1
        p.left._last_call = 2**32 - 2
        assert [p.left.post(PING, lambda _: None) for _ in range(2)] == [2**32 - 1, 2]
