"""Push-pull: two nodes compare their whole member tables, page by page, and tell which network documents they have.

It mends what rumours lost and is how a newcomer learns the network. A peer whose pages do not go forward, or name a
record that does not verify, is not listened to further. Two nodes of a large network compare digests first, and then
only the groups of members that differ. Clients read the same pages and tell nothing. How often and with whom is
`core.membership`'s; what the documents mean is not ours. Source: DESIGN, Membership.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio.lowlevel
from msgspec import structs

from lockbox_node.errors import LockboxError, RequestRefused
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import Done, Gossip, Members, SyncMembers
from protocol.summaries import differing

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.membership import Membership
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from protocol.messages import DocumentVersion, MemberState, MemberUpdate, Message

PAGE = 400  # records in one message: 1.6 kB each, at most 9.3 kB, and a frame holds 4 MiB
PAGES_MAX = 64  # of one exchange
KNOWN_MAX = 20_000  # members named in one request
CLIENT_PAGE = 200
SUMMARY_FROM = 100  # members: a table of fewer is hardly longer than its summary


class Exchanging:
    """Compares `machine` with others; `take` and `hear` are given what they say, and may raise RemoteProtocolError."""

    def __init__(
        self,
        machine: Membership,
        take: Callable[[MemberUpdate, Peer], None],
        hear: Callable[[MemberState], None],
        *,
        complete: bool,
    ) -> None:
        self._machine = machine
        self._take, self._hear = take, hear
        # What a peer answered that was shown our own record, or Done() when it had it already.
        self.on_shown: Callable[[Message | LockboxError], None] = lambda _outcome: None
        self.complete = complete  # some node's whole table was read, or there is none to read
        # What network documents we have, and what a node that we exchanged tables with has.
        self.documents: Callable[[], list[DocumentVersion]] = list
        self.on_documents: Callable[[list[DocumentVersion], NodeId], None] = lambda _versions, _node: None

    async def through(self, connection: Connection) -> None:
        """Ask a peer for all that it knows. LockboxError, and RemoteProtocolError as above."""
        view = self._machine.known()
        groups = await self._differing(connection) if len(view) >= SUMMARY_FROM else b""
        if groups is None:
            self.on_shown(Done())
            self.complete = True
            return
        if groups:
            view = [state for state in view if state.node[0] in groups]
        after = b""
        for _ in range(PAGES_MAX):
            # What stands up to there changes nothing on later pages: a newcomer has just learned it from this peer.
            known = [state for state in view if state.node > after][:KNOWN_MAX]
            reply = await self._ask(connection, SyncMembers(known, after, self.documents(), groups=groups))
            for update in reply.updates:
                self._take(update, connection.peer)
                await trio.lowlevel.checkpoint()  # to verify a page takes long: the others get their turn
            if not after:
                ours = self._machine.own
                known_there = bool(groups) and ours[0] not in groups  # where nothing differs
                named = known_there or any(state.node == ours for state in known)
                await self._show(connection, reply.wanted[:PAGE], named=named)
            if not reply.more:
                self.complete = True
                return
            last = reply.updates[-1].state.node if reply.updates else b""
            if last <= after:
                raise RemoteProtocolError("pages of members that do not go forward")
            after = last

    async def _ask(self, connection: Connection, request: SyncMembers) -> Members:
        reply = await connection.request(request)
        assert isinstance(reply, Members), "the codec checked the type of the reply"
        self.on_documents(reply.documents, NodeId(connection.peer.id))
        return reply

    async def _differing(self, connection: Connection) -> bytes | None:
        """The groups of members in which the peer's view is another; None when it is the same everywhere."""
        request = SyncMembers([], b"", self.documents(), self._machine.summary())
        reply = await self._ask(connection, request)
        return reply.differing or None

    async def _show(self, connection: Connection, wanted: list[bytes], *, named: bool) -> None:
        """Tell what the peer lacks; `named` = we were among those we knew. A refusal of us alone ends nothing."""
        shown = self._machine.own in wanted
        outcome: Message | LockboxError = Done()
        try:
            if wanted:
                outcome = await connection.request(Gossip(self._machine.updates_of(wanted)))
        except RequestRefused as error:
            if not shown or error.code is not ErrorCode.NETWORK_PARTITIONED:
                raise
            outcome = error
        if named:
            self.on_shown(outcome)

    def answer_to(self, request: SyncMembers, peer: Peer) -> Members:
        """Our page, and what we lack of a node's."""
        if peer.role is not Role.NODE:
            return self._page([], request.after, CLIENT_PAGE)
        self.on_documents(request.documents, NodeId(peer.id))
        if request.summary:
            groups = differing(request.summary, self._machine.living())
            return Members([], [], more=False, documents=self.documents(), differing=groups)
        if not request.after:  # the first page brings the whole view
            for state in request.known:
                self._hear(state)
        return self._page(request.known, request.after, PAGE, request.groups)

    def _page(self, known: list[MemberState], after: bytes, size: int, groups: bytes = b"") -> Members:
        return structs.replace(self._machine.compare(known, after, size, groups), documents=self.documents())
