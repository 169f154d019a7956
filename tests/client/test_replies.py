"""Answers of requests that were posted together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.client.replies import Replies, again_after_s
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.messages import Done

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_answers_come_with_their_keys_and_pending_counts_down(autojump_clock: MockClock) -> None:
    replies: Replies[str] = Replies()
    first, second = replies.answer_to("first"), replies.answer_to("second")
    assert replies.pending == 2
    second(Done())
    assert await replies.take(trio.current_time() + 1) == [("second", Done())]
    assert await replies.take(trio.current_time() + 1) == []
    assert trio.current_time() == 1
    first(Done())
    assert [key for key, _ in await replies.take(0)] == ["first"]
    assert replies.pending == 0


def test_only_busy_and_rate_limited_are_asked_again() -> None:
    limited = LockboxError("slowly", code=ErrorCode.RATE_LIMITED)
    limited.retry_after_s = 2.0
    assert again_after_s(limited) == 2.0
    assert again_after_s(LockboxError("busy", code=ErrorCode.BUSY)) == 0.05
    assert again_after_s(LockboxError("gone", code=ErrorCode.NOT_FOUND)) is None
    assert again_after_s(Done()) is None
