"""What stands beside the ports: awaiting a store's answer, and holder table lines."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import Answer, entries_of, settled
from protocol.messages import HolderEntry


async def test_an_answer_given_at_once_is_returned() -> None:
    def start(answer: Answer[int]) -> None:
        answer(7)

    assert await settled(start) == 7


async def test_an_answer_given_later_is_awaited() -> None:
    answers: list[Answer[int]] = []
    results: list[int] = []

    async def ask() -> None:
        results.append(await settled(answers.append))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not results
        answers[0](8)
    assert results == [8]


async def test_an_error_that_is_answered_is_raised() -> None:
    def start(answer: Answer[int]) -> None:
        answer(ShardMissing("gone"))

    with pytest.raises(LockboxError, match="gone"):
        await settled(start)


def test_entries_carry_one_sequence() -> None:
    assert entries_of([(0, b"a" * 32), (1, b"b" * 32)], 5) == (
        HolderEntry(0, b"a" * 32, 5),
        HolderEntry(1, b"b" * 32, 5),
    )
