"""A question put to one node after another, or to many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.client.survey import Survey
from lockbox_node.errors import LockboxError, PeerUnreachable
from protocol.messages import Done, Message, Ping

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Record:
    node: bytes


@dataclass
class Node:
    record: Record


class Dead:
    """A vault whose nodes all fail before `post` returns, as the pool does while it backs off."""

    def post(self, member: Node, request: Message, answer: Callable[[Message | LockboxError], None]) -> None:
        answer(PeerUnreachable("gone"))


class Quick(Dead):
    """A vault whose nodes answer before `post` returns."""

    def post(self, member: Node, request: Message, answer: Callable[[Message | LockboxError], None]) -> None:
        answer(Done())


def nodes(count: int) -> list[Node]:
    return [Node(Record(bytes([number]) * 32)) for number in range(count)]


async def test_asking_more_than_are_left_when_all_fail_at_once_ends_exhausted() -> None:
    survey = Survey(Dead(), Ping(1), nodes(5), lambda _node, _reply: None)  # type: ignore[arg-type]
    survey.ask(3)
    assert survey.exhausted
    assert len(survey.failed) == 5


async def test_those_who_answer_at_once_are_taken() -> None:
    taken: list[bytes] = []
    survey = Survey(Quick(), Ping(1), nodes(3), lambda node, _reply: taken.append(node))  # type: ignore[arg-type]
    survey.ask(2)
    assert len(taken) == 2
    assert not survey.exhausted
