"""Network documents in motion: taken in, announced, fetched from whoever has newer ones, asked for before we serve.

Only versions travel by themselves: along with the member table at every push-pull, and at once, a few times, to all who
are connected and to some others when something new has come. Whoever is behind asks. A node that boasts of what it does
not give is not asked again for a while. What each document means is `services.enforcing`'s, which documents count is
`core.documents`'. Source: DESIGN, Identity; SPEC.md, Network documents.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.documents import Library, Rules
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.dispatch import Route
from protocol.certificates import Role
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import (
    Documents,
    DocumentVersion,
    Done,
    GetDocuments,
    Message,
    SignedDocument,
    TellDocuments,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from random import Random

    from lockbox_node.ports import Answer
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Contact, Pool
    from lockbox_node.services.discovery import Discovery
    from protocol.certificates import NetworkRoot

FETCH_TIMEOUT_S = 10.0
FETCHERS = 3
OFFERS_MAX = 64  # nodes with something newer that wait to be asked; others announce again
ANNOUNCE_AFTER_S = (0.0, 1.0, 4.0)
FAN_OUT = 8  # members that are not connected and hear an announcement too
VAIN_S = 60.0  # how long a node that boasted is not asked
VAIN_MAX = 1024
REVOKED_SAYERS = 3  # nodes that must say so before it counts that we are revoked
CATCH_UP_S = 3.0  # all together, before we serve
CATCH_UP_ANSWERS = 3
CATCH_UP_ASKED_MAX = 16
ENDS_EVERY_S = 10.0  # how late a release that ends is noticed, on connections that stand too

log = structlog.get_logger()


class DocumentService:
    """One per node. `changed` is set, and replaced by a new one, whenever a document was taken."""

    def __init__(
        self,
        root: NetworkRoot,
        pool: Pool,
        discovery: Discovery,
        rng: Random,
        kept: Sequence[SignedDocument],
        obey: Callable[[Rules], None],
    ) -> None:
        """`kept` is what was on the disk. `obey` is told what the documents say: at once, whenever that has changed,
        and every ENDS_EVERY_S, since what they say of a moment changes as time goes by.
        """
        self._library = Library(root)
        self._pool = pool
        self._discovery = discovery
        self._rng = rng
        self._obey = obey
        self._offers_send, self._offers = trio.open_memory_channel[tuple[NodeId, list[DocumentVersion]]](OFFERS_MAX)
        self._vain: dict[NodeId, float] = {}
        self._news = trio.Event()
        self.changed = trio.Event()
        self._said_revoked: set[bytes] = set()  # by whom
        pool.on_revoked = self._on_revoked
        self.refused = 0  # documents that did not hold, or were older than what stood
        for signed in kept:
            try:
                self._library.take(signed)
            except RemoteProtocolError as error:
                log.warning("documents.kept_one_is_bad", kind=signed.kind, reason=str(error))
        self._obey(self._library.rules)

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(GetDocuments, self._on_get), Route(TellDocuments, self._on_tell)]

    @property
    def rules(self) -> Rules:
        """What the documents say now."""
        return self._library.rules

    @property
    def revoked_here(self) -> bool:
        """Whether this node is out, by the documents or by what several others say: who is out hears of none.

        That others say so counts only while nobody else speaks to us: a few liars put no node out of service.
        """
        if self._discovery.own in self.rules.revoked:
            return True
        return len(self._said_revoked) >= REVOKED_SAYERS and not self._pool.connections()

    def all(self) -> list[SignedDocument]:
        """The newest of each kind: what should be on the disk."""
        return self._library.all()

    def versions(self) -> list[DocumentVersion]:
        """What others are told that we have."""
        return self._library.versions()

    def take(self, documents: Iterable[SignedDocument]) -> None:
        """Keep what is new. RemoteProtocolError of the first that does not hold, after all were looked at."""
        failure: RemoteProtocolError | None = None
        before, taken = self._library.rules, False
        for signed in documents:
            try:
                taken |= self._library.take(signed)
            except RemoteProtocolError as error:
                self.refused += 1
                failure = failure or error
        if taken:
            log.info("documents.taken", versions={version.kind: version.version for version in self.versions()})
            self.changed.set()
            self.changed = trio.Event()
            self._news.set()
            if self._library.rules != before:
                self._obey(self._library.rules)
        if failure is not None:
            raise failure

    def heard(self, versions: list[DocumentVersion], node: NodeId) -> None:
        """A node, which thus lets us in, says what it has: it is asked for what is newer."""
        self._said_revoked.clear()
        if not self._library.lacks(versions) or self._vain.get(node, 0.0) > trio.current_time():
            return
        try:
            self._offers_send.send_nowait((node, versions))
        except trio.WouldBlock:
            log.debug("documents.offer_dropped")

    async def catch_up(self, bootstrap: Sequence[tuple[str, int]], members: Sequence[Contact]) -> None:
        """Ask those whom we know what is newer, before we serve: a few that answer are enough, all at once."""
        answers = 0
        asked: list[tuple[bytes, Callable[[], Awaitable[Connection]]]] = [
            (f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode(), partial(self._at, host, port))
            for host, port in bootstrap
        ]
        asked += [(contact.node, partial(self._pool.connection, contact)) for contact in members]

        async def ask(connect: Callable[[], Awaitable[Connection]]) -> None:
            nonlocal answers
            if await self._attempt(connect):
                answers += 1
                if answers >= CATCH_UP_ANSWERS:
                    nursery.cancel_scope.cancel()

        with trio.move_on_after(CATCH_UP_S):
            async with trio.open_nursery() as nursery:
                for _, connect in asked[:CATCH_UP_ASKED_MAX]:
                    nursery.start_soon(ask, connect)
        for key, _ in asked:
            self._pool.reset_backoff(key)  # who comes to join next must not wait for our failures

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._look_at_ends)
            for _ in range(FETCHERS):
                nursery.start_soon(self._fetch_offered)
            task_status.started()

    async def _look_at_ends(self) -> None:
        while True:
            await trio.sleep(ENDS_EVERY_S)
            self._obey(self._library.rules)

    async def _at(self, host: str, port: int) -> Connection:
        return await self._pool.connect_address(host, port)

    async def _fetch_offered(self) -> None:
        async for node, versions in self._offers:
            if not self._library.lacks(versions):
                continue  # another node gave it meanwhile
            contact = self._discovery.contact(node)
            connection = self._pool.ready(node)
            with trio.move_on_after(FETCH_TIMEOUT_S):
                if connection is not None:
                    await self._attempt(partial(_itself, connection))
                elif contact is not None:
                    await self._attempt(partial(self._pool.connection, contact))
            if self._library.lacks(versions):
                if len(self._vain) >= VAIN_MAX:
                    self._vain.clear()
                self._vain[node] = trio.current_time() + VAIN_S

    async def _attempt(self, connect: Callable[[], Awaitable[Connection]]) -> bool:
        """Ask one node for what is newer; whether it answered with what holds."""
        try:
            connection = await connect()
            reply = await connection.request(GetDocuments(self.versions()))
            assert isinstance(reply, Documents), "the codec checked the type of the reply"
            self.take(reply.documents)
        except (LockboxError, RemoteProtocolError):
            return False
        return True

    def _on_revoked(self, key: bytes) -> None:
        if len(self._said_revoked) < REVOKED_SAYERS and key not in self._said_revoked:
            self._said_revoked.add(key)
            log.error("node.refused_as_revoked", hint="ask the network's authority", by=len(self._said_revoked))

    async def _announce(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for wait_s in ANNOUNCE_AFTER_S:
                with trio.move_on_after(wait_s):
                    await self._news.wait()
                self._announce_once()

    def _announce_once(self) -> None:
        """By asking everybody we say what we have; who is behind asks back."""
        message = GetDocuments(self.versions())
        connected = {connection.peer.id: connection for connection in self._pool.connections()}
        for connection in connected.values():
            connection.post(message, self._answered)
        others = [node for node in self._discovery.alive() if node not in connected and node != self._discovery.own]
        for node in self._rng.sample(others, min(FAN_OUT, len(others))):
            contact = self._discovery.contact(node)
            if contact is not None:
                self._pool.post(contact, message, self._answered)

    def _answered(self, outcome: Message | LockboxError) -> None:
        if isinstance(outcome, Documents) and outcome.documents:
            try:
                self.take(outcome.documents)
            except RemoteProtocolError as error:
                log.info("documents.refused", reason=str(error.code))

    def _on_get(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, GetDocuments)
        answer(Documents(self._library.newer_than(request.known)))
        if peer.role is Role.NODE:
            self.heard(request.known, NodeId(peer.id))

    def _on_tell(self, request: Message, _peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, TellDocuments)
        self.take(request.documents)
        answer(Done())


async def _itself(connection: Connection) -> Connection:
    return connection
