"""The network's documents as a client obeys them: a revoked node is neither asked for anything nor given anything.

Versions come with every member table; what is newer is asked of whoever named it, and as long as the client runs one
connected node after another is asked, so that what the network knows reaches a client within seconds. What was learned
is kept with the wallet: nobody takes a client back to older rules. Nodes whose software is not released get nothing new
and are read from: no paperwork makes data unreadable. Source: DESIGN, Identity; SPEC.md, Network documents.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.documents import Library, Rules
from lockbox_node.core.policy import Governed
from lockbox_node.errors import LockboxError
from protocol.errors import RemoteProtocolError
from protocol.messages import Documents, GetDocuments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lockbox_node.client.members import MemberView
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.dispatch import Dispatcher
    from lockbox_node.rpc.pool import Contact, Pool
    from protocol.certificates import NetworkRoot
    from protocol.messages import DocumentVersion, SignedDocument

ASK_EVERY_S = 5.0
ASK_TIMEOUT_S = 2.0
WHY = "the network's authority has revoked this node"


class RuleBook:
    """One per client. `pool`, its `dispatcher` and `members` are told at once whenever the rules change."""

    def __init__(
        self,
        root: NetworkRoot,
        pool: Pool,
        dispatcher: Dispatcher,
        members: MemberView,
        now_unix_s: Callable[[], float],
        kept: Sequence[SignedDocument],
    ) -> None:
        """`kept` is what was learned before, unverified."""
        self._library = Library(root)
        self._pool, self._dispatcher, self._members = pool, dispatcher, members
        self._now_unix_s = now_unix_s
        self._turn = 0  # whom to ask next
        self.refused = 0  # documents that did not hold
        members.refuses = self._refuses
        self.take(kept)

    @property
    def rules(self) -> Rules:
        """What the documents say now."""
        return self._library.rules

    @property
    def governed(self) -> Governed:
        """What the policy says, as far as it is known here."""
        return Governed().under_all(self.rules.settings)[0]

    def all(self) -> list[SignedDocument]:
        """The newest of each kind: what should be kept."""
        return self._library.all()

    def take(self, documents: Iterable[SignedDocument]) -> None:
        """Keep what is new and holds; it is obeyed when this returns. What does not hold is counted."""
        before = self.rules
        for signed in documents:
            try:
                self._library.take(signed)
            except RemoteProtocolError:
                self.refused += 1
        if self.rules != before:
            revoked = self.rules.revoked
            self._dispatcher.rules = self.rules
            self._members.bar(revoked)
            self._pool.cut(lambda peer: peer.id in revoked, WHY)

    async def learn(self, contact: Contact, versions: Iterable[DocumentVersion]) -> None:
        """A node says what it has: ask it for what is newer. One that does not give it in time is not waited for."""
        if self._library.lacks(versions):
            with trio.move_on_after(ASK_TIMEOUT_S), suppress(LockboxError):
                await self._ask(await self._pool.connection(contact))

    async def keep_up(self) -> None:
        """Ask one connected node after another, until cancelled."""
        while True:
            await trio.sleep(ASK_EVERY_S)
            connections = self._pool.connections()
            # What moves on a connection counts as progress of all that is asked over it: a stall must be seen.
            connections = [connection for connection in connections if not connection.busy] or connections
            if connections:
                self._turn += 1
                with trio.move_on_after(ASK_TIMEOUT_S), suppress(LockboxError):
                    await self._ask(connections[self._turn % len(connections)])

    async def _ask(self, connection: Connection) -> None:
        reply = await connection.request(GetDocuments(self._library.versions()))
        assert isinstance(reply, Documents), "the codec checked the type of the reply"
        self.take(reply.documents)

    def _refuses(self, software: bytes) -> bool:
        return self.rules.refuses(software, self._now_unix_s())
