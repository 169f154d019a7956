"""Calls posted ahead of their connection, shared outcomes, failures remembered."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.dials import Backoffs
from protocol.messages import Message, Ping, Pong
from tests.rpc.world import world

if TYPE_CHECKING:
    from trio.testing import MockClock


PING = Ping(7)


async def test_a_posted_call_waits_for_its_connection(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        answers: list[Message | LockboxError] = []
        posted = client.pool.post(node.contact, PING, answers.append)
        begun = posted.last_progress
        await trio.sleep(1)
        assert answers == [Pong(7, 1)]
        assert posted.last_progress >= begun
        client.pool.post(node.contact, PING, answers.append)
        await trio.sleep(1)
        assert len(answers) == 2


async def test_a_posted_call_that_was_sent_or_failed_is_part_of_no_cycle(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()

        def asked() -> weakref.ref[object]:
            kept: list[object] = []

            def answer(_outcome: Message | LockboxError) -> None:
                assert kept

            kept.append(client.pool.post(node.contact, PING, answer))
            return weakref.ref(answer)

        gc.disable()
        try:
            for host_is_down in (False, True):
                answer = asked()
                await trio.sleep(1)
                assert answer() is None
                if not host_is_down:
                    client.pool.release(node.contact.node)
                    w.hub.down.add(node.host)
        finally:
            gc.enable()


async def test_a_forgotten_post_is_never_sent(autojump_clock: MockClock) -> None:
    async with world() as w:
        client, node = await w.client(), await w.node()
        answers: list[Message | LockboxError] = []
        client.pool.post(node.contact, PING, answers.append).forget()
        await trio.sleep(1)
        assert (answers, node.pinged_by) == ([], [])
        posted = client.pool.post(node.contact, PING, answers.append)
        posted.forget()
        await trio.sleep(1)
        assert answers == []
        assert client.pool.connections()


async def test_waiters_share_an_error_and_each_gets_its_own(autojump_clock: MockClock) -> None:
    async with world(delay_s=0.1) as w:
        client, node = await w.client(), await w.node()
        w.hub.down.add(node.host)
        errors: list[Message | LockboxError] = []
        for _ in range(3):
            client.pool.post(node.contact, PING, errors.append)
        await trio.sleep(0.15)
        assert [type(error) for error in errors] == [PeerUnreachable] * 3
        assert len({id(error) for error in errors}) == 3
        assert len(w.hub.dials) == 1


def test_backoffs_double_to_a_limit_and_are_bounded() -> None:
    backoffs, error = Backoffs(0.2, 0.5, 2), PeerUnreachable("gone")
    ends = []
    now = 0.0
    for _ in range(4):
        backoffs.failed(b"a", error, now)
        ends.append(next(n / 10 for n in range(100) if backoffs.error(b"a", now + n / 10) is None))
        now += 10
    assert ends == [0.2, 0.4, 0.5, 0.5]
    for key in (b"b", b"c"):
        backoffs.failed(key, error, now)
    assert backoffs.error(b"a", now - 10) is None
