"""What bounds a connection: calls, bytes, tasks, and peers that read slowly or never."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.rpc.connection import Connection, ConnectionParams
from lockbox_node.rpc.frames import Frames
from protocol.codec import encode_call
from protocol.errors import ErrorCode
from protocol.messages import (
    Message,
    Pong,
    Shards,
    Stored,
)
from simulations.streams import MemoryStream, stream_pair

if TYPE_CHECKING:
    from trio.testing import MockClock
from tests.rpc.pair import GET, PING, Side, pair, peer, put, raw


async def ask_for_ever(stream: MemoryStream) -> None:
    """Ask for much, and read nothing."""
    for call in itertools.count(1):
        await stream.send_all(encode_call(call, GET))


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


async def test_a_peer_that_says_nothing_although_it_was_asked_is_dropped(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(silence_timeout_s=15.0)) as p:
        await trio.sleep(100)
        p.left.tend(trio.current_time())  # nothing was asked: silence is no sign
        p.right_side.hold = True
        given_up = p.left.post(PING, lambda _: None)
        p.left.forget(given_up)  # what nobody waits for any more counts too
        closed = []
        for more_s in (15.0, 0.1):
            await trio.sleep(more_s)
            p.left.tend(trio.current_time())
            closed.append(p.left.closed)
        assert closed == [False, True]
        with pytest.raises(PeerUnreachable, match="does not answer"):
            await p.left.request(PING)


async def test_a_peer_that_answers_one_call_late_and_others_in_time_is_kept(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(silence_timeout_s=15.0)) as p:
        p.right_side.hold = True
        answers: list[Message | LockboxError] = []
        p.left.post(PING, answers.append)
        await trio.testing.wait_all_tasks_blocked()
        p.right_side.hold = False
        for _ in range(10):
            await trio.sleep(10)
            await p.left.request(PING)
            p.left.tend(trio.current_time())
        assert not p.left.closed
        connection, call, number = p.right_side.held[0]
        connection.reply(call, number, Pong(7, 1))
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Pong(7, 1)]


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
        with trio.move_on_after(1):
            await ask_for_ever(r.stream)
        assert 8 * 2**20 < r.connection._queued_bytes < 17 * 2**20


async def test_a_peer_that_asks_on_and_never_reads_is_dropped(autojump_clock: MockClock) -> None:
    async with raw(ConnectionParams(out_bytes_pause=2**12, out_bytes_max=2**14)) as r:
        with pytest.raises(PeerUnreachable):
            await ask_for_ever(r.stream)
        assert r.connection.closed


async def test_a_peer_that_takes_nothing_for_long_is_dropped(autojump_clock: MockClock) -> None:
    async with raw(ConnectionParams(stall_timeout_s=30.0)) as r:
        await r.stream.send_all(encode_call(1, GET))
        for waited_s, closed in ((29, False), (2, True)):
            await trio.sleep(waited_s)
            r.connection.tend(trio.current_time())
            assert r.connection.closed is closed


async def test_two_peers_that_both_queue_too_much_get_on(autojump_clock: MockClock) -> None:
    async with pair(ConnectionParams(out_bytes_pause=2**20)) as p:
        answers: list[Message | LockboxError] = []
        for _ in range(20):
            for connection in (p.left, p.right):
                connection.post(GET, answers.append)
        await trio.sleep(60)
        assert len(answers) == 40
        assert all(isinstance(answer, Shards) for answer in answers)


async def test_answers_above_the_hard_limit_become_busy() -> None:
    async with raw(ConnectionParams(out_bytes_max=2**20)) as r:
        calls = [encode_call(call, GET) for call in (1, 2, 3)]
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
