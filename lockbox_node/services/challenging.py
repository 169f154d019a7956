"""Challenges a holder to show its part: a fresh nonce, a deadline from its round trip and the size, one verdict.

The connection is opened first, so that neither a dial nor its handshake counts as the holder's slowness. What comes is
judged in memory (core.audit) and forgotten. Source: DESIGN, Verify / audit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from lockbox_node.core.audit import NONCE_BYTES, Verdict, deadline_s, judged
from lockbox_node.errors import LockboxError, RequestRefused
from lockbox_node.rpc.dial_backs import STOPPED
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Proof, Prove

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import Entropy
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.pool import Contact
    from protocol.ids import NodeId
    from protocol.messages import Signed
    from protocol.records import Descriptor

CONNECT_S = 5.0  # to reach a holder that is not connected

log = structlog.get_logger()


class Connections(Protocol):
    """What a challenge needs of the pool."""

    async def connection(self, contact: Contact) -> Connection:
        """The connection to a node, dialled when there is none. PeerUnreachable, RequestRefused, BUSY."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """What a holder is asked to show: its index of a slot identity; `access`: the asset key's leave for us, if any."""

    address: bytes
    descriptor_hash: bytes
    descriptor: Descriptor
    index: int
    access: Signed | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a holder showed, and within which time of the question; 0 when it was silent. `refused`: it said why not.

    `asked` is False where the question never left us: then its silence says nothing of the holder.
    """

    verdict: Verdict
    round_trip_s: float
    refused: ErrorCode | None = None
    asked: bool = True


class Challenger:
    """Holds no state. `contact(node)`: how to reach a member; `round_trip_s(node)`: as measured, 0 when it was not."""

    def __init__(
        self,
        pool: Connections,
        contact: Callable[[NodeId], Contact | None],
        round_trip_s: Callable[[NodeId], float],
        entropy: Entropy,
    ) -> None:
        self._pool = pool
        self._contact = contact
        self._round_trip_s = round_trip_s
        self._entropy = entropy

    async def challenge(self, node: NodeId, part: Part) -> Shown:
        """What `node` shows of `part` now. Never raises for the holder's sake."""
        contact = self._contact(node)
        if contact is None:
            return Shown(Verdict.SILENT, 0.0, asked=False)
        asked = True
        try:
            with trio.fail_after(CONNECT_S):
                connection = await self._pool.connection(contact)
            return await self._asked(connection, node, part)
        except trio.TooSlowError:
            reason = "in no time"
        except (LockboxError, RemoteProtocolError) as error:
            reason, asked = str(error.code), not _is_ours(error)
        log.info("audit.silent", node=node.hex()[:8], reason=reason)
        return Shown(Verdict.SILENT, 0.0, asked=asked)

    async def _asked(self, connection: Connection, node: NodeId, part: Part) -> Shown:
        nonce = bytearray(NONCE_BYTES)
        self._entropy.fill(nonce)
        request = Prove(part.address, part.descriptor_hash, bytes(nonce), part.access)
        began = trio.current_time()
        outcome: Proof | LockboxError
        try:
            with trio.fail_after(deadline_s(part.descriptor, self._round_trip_s(node))):
                reply = await connection.request(request)
            assert isinstance(reply, Proof), "the codec checked the type of the reply"
            outcome = reply
        except LockboxError as refusal:
            outcome = refusal
        took_s = trio.current_time() - began
        verdict = judged(part.descriptor, part.index, request.nonce, outcome)
        refused = outcome.code if isinstance(outcome, RequestRefused) else None
        asked = isinstance(outcome, Proof) or not _is_ours(outcome)
        return Shown(verdict, 0.0 if verdict is Verdict.SILENT else took_s, refused, asked)


def _is_ours(error: LockboxError | RemoteProtocolError) -> bool:
    """Whether we ourselves had no room for a question, or are about to stop."""
    ours = isinstance(error, LockboxError) and not isinstance(error, RequestRefused)
    return ours and (error.code is ErrorCode.BUSY or str(error) == STOPPED)
