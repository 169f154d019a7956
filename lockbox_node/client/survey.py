"""One question to the nodes nearest to an address: hedged, answered by callbacks, merged by whoever asked.

A node that refuses or breaks is supplemented by the next at once, a silent one after `hedge_s`; one that asks us to
come back later (RATE_LIMITED, BUSY) is asked again then. Answers that come after `until` has returned still count.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.replies import Outcome, again_after_s
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.client.members import Member
    from lockbox_node.client.vault import Vault
    from protocol.messages import Message

AGAIN_MAX = 20  # how often one node may send us away before it counts as silent


class Survey:
    """The question `request`, put to `order` from its front on. `take` is called with each reply as it comes."""

    def __init__(
        self, vault: Vault, request: Message, order: Sequence[Member], take: Callable[[bytes, Message], None]
    ) -> None:
        self._vault = vault
        self._request = request
        self._waiting = deque(order)
        self._take = take
        self._news = trio.Event()
        self._asked_at = trio.current_time()
        self._again: list[tuple[float, Member, int]] = []
        self.pending = 0
        self.answered: set[bytes] = set()
        self.failed: dict[bytes, LockboxError] = {}

    @property
    def exhausted(self) -> bool:
        """Everybody was asked and nobody is left to answer."""
        return not (self.pending or self._waiting or self._again)

    def reorder(self, order: Sequence[Member]) -> None:
        """Another order, as long as nobody was asked."""
        self._waiting = deque(order)

    def ask(self, count: int) -> None:
        """Put the question to the next `count` nodes."""
        for _ in range(count):
            if not self._waiting:  # checked each time: a node that fails at once asks the next one itself
                return
            self._post(self._waiting.popleft(), AGAIN_MAX)

    async def until(self, done: Callable[[], bool], deadline: float, hedge_s: float) -> None:
        """Wait until `done()`, or everybody has answered, or `deadline` (trio time) passes."""
        while not done() and not self.exhausted:
            self._ask_again()
            moments = [deadline, *(at for at, _, _ in self._again)]
            if self._waiting:
                moments.append(self._asked_at + hedge_s)
            with trio.move_on_at(min(moments)):
                await self._news.wait()
            heard, self._news = self._news.is_set(), trio.Event()
            now = trio.current_time()
            if now >= deadline and not heard:
                return
            if (not self.pending and not self._again) or now >= self._asked_at + hedge_s:
                self.ask(1)

    def _ask_again(self) -> None:
        now = trio.current_time()
        due = [entry for entry in self._again if entry[0] <= now]
        self._again = [entry for entry in self._again if entry[0] > now]
        for _, member, tries in due:
            self._post(member, tries)

    def _post(self, member: Member, tries: int) -> None:
        self.pending += 1
        self._asked_at = trio.current_time()

        def answer(outcome: Outcome) -> None:
            self.pending -= 1
            self._news.set()
            node = member.record.node
            if not isinstance(outcome, LockboxError):
                self.answered.add(node)
                self._take(node, outcome)
            elif (again_s := again_after_s(outcome)) is not None and tries > 0:
                self._again.append((trio.current_time() + again_s, member, tries - 1))
            else:
                self.failed[node] = outcome
                self.ask(1)

        self._vault.post(member, self._request, answer)
