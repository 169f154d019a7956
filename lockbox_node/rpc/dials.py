"""What waits for a connection: the contact, a dial and its waiters, a call posted ahead of it, failures remembered.

The pool drives these; nothing here reads a stream. Source: DESIGN, Addresses (dials belong to the pool).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError
from lockbox_node.rpc.connection import Connection

if TYPE_CHECKING:
    from lockbox_node.ports import Answer
    from protocol.ids import NodeId
    from protocol.messages import Message


@dataclass(frozen=True, slots=True)
class Contact:
    """A node and where it may be reached: "host:port" each."""

    node: NodeId
    addresses: tuple[str, ...]


Outcome = Callable[[Connection | LockboxError], None]


class Dial:
    """One attempt to reach a node (or an address whose node is not known yet), and who waits for it."""

    def __init__(self, key: bytes, contact: Contact) -> None:
        self.key, self.contact = key, contact
        self.waiting: list[Outcome] = []

    def settle(self, outcome: Connection | LockboxError) -> None:
        """Tell all who wait, once; an error is made anew for each, since it is raised in several tasks."""
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer(again(outcome) if isinstance(outcome, LockboxError) else outcome)


class Posted:
    """A call posted through the pool: perhaps still waiting for its connection. Sent, it holds neither the request nor
    the answer: whoever keeps it until the answer comes makes no cycle of it.
    """

    def __init__(self, request: Message, answer: Answer[Message]) -> None:
        self._unsent: tuple[Message, Answer[Message]] | None = (request, answer)
        self._connection: Connection | None = None
        self._call = 0
        self._since = self.sent_at = trio.current_time()  # the latter: when it was given to its connection

    @property
    def last_progress(self) -> float:
        """Trio time: when it was posted, or when bytes last moved on its connection, whichever is later."""
        return self._since if self._connection is None else max(self._since, self._connection.last_progress)

    def forget(self) -> None:
        """No answer is wanted any more; a dial under way goes on for others."""
        self._unsent = None
        if self._connection is not None:
            self._connection.forget(self._call)

    def send(self, outcome: Connection | LockboxError) -> None:
        """The dial's outcome: post, or answer with the error."""
        if self._unsent is None:
            return
        (request, answer), self._unsent = self._unsent, None
        if isinstance(outcome, LockboxError):
            answer(outcome)
            return
        self._connection = outcome
        self.sent_at = trio.current_time()
        self._call = outcome.post(request, answer)


@dataclass(slots=True)
class _Failure:
    delay_s: float
    until: float
    error: LockboxError


class Backoffs:
    """Who could not be reached lately, and why: doubling delays, at most `nodes_max` remembered."""

    def __init__(self, first_s: float, max_s: float, nodes_max: int) -> None:
        self._first_s, self._max_s, self._nodes_max = first_s, max_s, nodes_max
        self._failures: OrderedDict[bytes, _Failure] = OrderedDict()

    def error(self, key: bytes, now: float) -> LockboxError | None:
        """Why `key` is not dialled now; None when it may be."""
        failure = self._failures.get(key)
        return again(failure.error) if failure is not None and now < failure.until else None

    def failed(self, key: bytes, error: LockboxError, now: float) -> None:
        """A dial failed: the next one may start after twice the last delay."""
        known = self._failures.pop(key, None)
        delay_s = self._first_s if known is None else min(2 * known.delay_s, self._max_s)
        self._failures[key] = _Failure(delay_s, now + delay_s, error)
        if len(self._failures) > self._nodes_max:
            self._failures.popitem(last=False)

    def reset(self, key: bytes) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)


def again(error: LockboxError) -> LockboxError:
    """A copy of an error, to be raised in another task."""
    copy = type(error)(error.message, error.hint, error.code)
    copy.retryable, copy.retry_after_s = error.retryable, error.retry_after_s
    return copy
