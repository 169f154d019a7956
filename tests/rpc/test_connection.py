"""Two connections over a stream pair: calls both ways, losses, liars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.rpc.connection import Connection, ConnectionParams
from protocol.codec import encode_call, encode_refusal, encode_reply
from protocol.errors import ErrorCode
from protocol.framing import encode_frame
from protocol.messages import (
    FindNode,
    Message,
    Ping,
    Pong,
    Refusal,
    Shards,
    Stored,
)

if TYPE_CHECKING:
    from trio.testing import MockClock
from tests.rpc.pair import GET, PING, SIGNED, ended, pair, put, raw


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
                    nursery.start_soon(ask, connection, GET)
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
