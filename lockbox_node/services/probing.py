"""Asks a node whether it lives, through others if need be, and asks for others that need it.

What `core.probing` decided is done here: one ping; when it fails, a ping by each relay. A relay that says that it got
no answer either is heard too: then our own link is well. What a relay says of a node is not signed, so a liar can put
off a suspicion for as long as it is chosen, which chance decides; it can end no suspicion that stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.member_events import ProbeAnswered, ProbeFailed, SendProbe
from lockbox_node.errors import LockboxError, RequestRefused
from lockbox_node.rpc.dispatch import Route
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import Message, Ping, PingFor, Pong

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.membership import Membership
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Contact, Pool
    from lockbox_node.services.discovery import Discovery

log = structlog.get_logger()


class Prober:
    """One per node. `reached` hears of every node that answered ourselves."""

    def __init__(
        self, machine: Membership, discovery: Discovery, pool: Pool, reached: Callable[[NodeId], None]
    ) -> None:
        self._machine = machine
        self._discovery = discovery
        self._pool = pool
        self._reached = reached
        self._nonce = 0
        self.relayed = 0  # pings on behalf of others

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(PingFor, self._on_ping_for)]

    async def probe(self, action: SendProbe, contact: Contact | None) -> ProbeAnswered | ProbeFailed:
        """Do what the action says; `contact` is None when the member was forgotten in the same step."""
        node = action.node
        if contact is None:
            return ProbeFailed(node)
        began = trio.current_time()
        self._pool.reset_backoff(node)
        incarnation = await self._ping(contact, action.timeout_s)
        if incarnation is not None:
            return ProbeAnswered(node, incarnation, trio.current_time() - began)
        return await self._through(action)

    async def _ping(self, contact: Contact, timeout_s: float) -> int | None:
        """The incarnation that the node says it has, None when it does not answer."""
        nonce = self._nonce = self._nonce + 1
        with trio.move_on_after(timeout_s):
            try:
                reply = await self._pool.request(contact, Ping(nonce))
            except RequestRefused:
                return 0  # who refuses lives, and says nothing of itself
            except LockboxError as error:
                log.debug("probe.failed", node=contact.node.hex()[:8], reason=str(error.code))
                return None
            if isinstance(reply, Pong) and reply.nonce == nonce:
                self._reached(NodeId(contact.node))
                return reply.incarnation
        return None

    async def _through(self, action: SendProbe) -> ProbeAnswered | ProbeFailed:
        heard = 0
        incarnation: int | None = None

        async def ask(relay: Contact) -> None:
            nonlocal heard, incarnation
            nonce = self._nonce = self._nonce + 1
            try:
                reply = await self._pool.request(relay, PingFor(action.node, nonce))
            except RequestRefused:
                heard += 1
            except LockboxError as error:
                log.debug("probe.relay_failed", relay=relay.node.hex()[:8], reason=str(error.code))
            else:
                if isinstance(reply, Pong) and reply.nonce == nonce:
                    incarnation = reply.incarnation
                    nursery.cancel_scope.cancel()

        with trio.move_on_after(action.relayed_s):
            async with trio.open_nursery() as nursery:
                for contact in map(self._discovery.contact, action.relays):
                    if contact is not None:
                        nursery.start_soon(ask, contact)
        if incarnation is None:
            return ProbeFailed(action.node, len(action.relays), heard)
        return ProbeAnswered(action.node, incarnation)

    async def _on_ping_for(self, request: PingFor, _peer: Peer) -> Message:
        """Ping a member that somebody else cannot reach. NOT_FOUND when we do not know it or cannot either."""
        node = NodeId(request.node)
        contact = self._discovery.contact(node)
        self.relayed += 1
        incarnation = None if contact is None else await self._ping(contact, self._machine.probe_timeout_s(node))
        if incarnation is None:
            raise LockboxError("that node does not answer us", "ask another member", ErrorCode.NOT_FOUND)
        return Pong(request.nonce, incarnation)
