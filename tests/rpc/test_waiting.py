"""One task waits for one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.waiting import answered
from protocol.messages import Message, Pong

if TYPE_CHECKING:
    from lockbox_node.ports import Answer


class Post:
    """Keeps what was posted, or answers at once."""

    def __init__(self, at_once: Message | LockboxError | None = None) -> None:
        self.at_once = at_once
        self.answers: list[Answer[Message]] = []
        self.forgotten: list[int] = []

    def __call__(self, answer: Answer[Message]) -> int:
        self.answers.append(answer)
        if self.at_once is not None:
            answer(self.at_once)
        return 7


async def test_an_answer_within_the_post_is_taken() -> None:
    post = Post(Pong(1, 1))
    assert await answered(post, post.forgotten.append) == Pong(1, 1)


async def test_an_error_within_the_post_is_raised() -> None:
    post = Post(PeerUnreachable("gone"))
    with pytest.raises(PeerUnreachable):
        await answered(post, post.forgotten.append)


@pytest.mark.parametrize("result", [Pong(1, 1), PeerUnreachable("gone")])
async def test_a_later_answer_wakes_the_task(result: Message | LockboxError) -> None:
    post, got = Post(), list[Message | LockboxError]()

    async def wait() -> None:
        try:
            got.append(await answered(post, post.forgotten.append))
        except LockboxError as error:
            got.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        post.answers[0](result)
    assert got == [result]


async def test_a_cancel_forgets_the_call() -> None:
    post = Post()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answered, post, post.forgotten.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert post.forgotten == [7]


async def test_a_cancel_before_the_post_posts_nothing() -> None:
    post = Post()
    with trio.CancelScope() as scope:
        scope.cancel()
        await answered(post, post.forgotten.append)
    assert post.answers == []
