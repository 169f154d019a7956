"""Drives the lookups of `core`: asks through the pool, judges the records that come back, dials nothing itself.

Nodes and clients use it when the member table cannot be relied on: incomplete, or too large. A record is read only when
the lookup would use it, and verified before it does: whoever names a forged one is out of the lookup, as if silent.
Dials belong to the pool, so a lookup that is cut takes nobody's dial away. Source: DESIGN, Addresses (Knowing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.lookup import Lookup, LookupParams
from lockbox_node.services.discovery import contact_of, is_dialable
from protocol.certificates import verify_chain, verify_record
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import FindNode, Nodes
from protocol.records import NodeRecord, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lockbox_node.errors import LockboxError
    from lockbox_node.rpc.pool import Pool, Posted
    from protocol.certificates import NetworkRoot
    from protocol.messages import Message, Signed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """A node with a record that was verified."""

    signed: Signed
    record: NodeRecord


@dataclass(slots=True)
class LookupFigures:
    """Counts since the start."""

    lookups: int = 0
    messages: int = 0
    failed: int = 0  # peers that did not answer, or answered with what no honest node says
    forged: int = 0  # of these: with a record that does not verify


class Lookups:
    """Lookups by node or client `own` over `pool`."""

    def __init__(
        self, pool: Pool, root: NetworkRoot, own: bytes, now_unix_s: Callable[[], float], params: LookupParams
    ) -> None:
        self._pool, self._root, self._own = pool, root, own
        self._now_unix_s = now_unix_s
        self._params = params
        self.figures = LookupFigures()

    def needed(self, members: int, complete: bool) -> bool:
        """Whether a member table of that size, which is `complete` or not, is too little to go by."""
        return not complete or members > self._params.members_max

    async def find(self, target: bytes, seeds: Iterable[Known], *, again: bool = False) -> list[Known]:
        """The nearest to `target` that answer, nearest first, ourselves left out; bounded by the lookup's own time.

        `again`: with the paths of a retry; give other seeds then. Only what answered is returned.
        """
        known = {seed.record.node: seed for seed in seeds}
        paths = self._params.retry_paths if again else self._params.paths
        lookup = Lookup(target, self._own, list(known), self._params, trio.current_time(), paths=paths)
        send, outcomes = trio.open_memory_channel[tuple[bytes, "Message | LockboxError"]](self._params.messages_max)
        posted: list[Posted] = []
        try:
            while True:
                queries = lookup.next_queries(trio.current_time())
                posted += [self._ask(known[node], target, send) for node in queries]
                if lookup.finished:
                    break
                with trio.move_on_at(lookup.next_deadline()):
                    peer, outcome = await outcomes.receive()
                    self._take(lookup, known, peer, outcome)
        finally:
            for one in posted:
                one.forget()
        self.figures.lookups += 1
        self.figures.messages += lookup.messages
        log.debug("lookup.ended", found=len(lookup.result()), hops=lookup.hops, messages=lookup.messages)
        return [known[node] for node in lookup.result()]

    def _ask(
        self, peer: Known, target: bytes, outcomes: trio.MemorySendChannel[tuple[bytes, Message | LockboxError]]
    ) -> Posted:
        answer = partial(_pass_on, outcomes, peer.record.node)
        return self._pool.post(contact_of(peer.record), FindNode(target, self._params.reply_max), answer)

    def _take(self, lookup: Lookup, known: dict[bytes, Known], peer: bytes, outcome: Message | LockboxError) -> None:
        if isinstance(outcome, Nodes):
            try:
                lookup.on_response(peer, self._named(lookup, known, peer, outcome))
                return
            except RemoteProtocolError:
                self.figures.forged += 1
        self.figures.failed += 1
        lookup.on_failure(peer)

    def _named(self, lookup: Lookup, known: dict[bytes, Known], peer: bytes, reply: Nodes) -> list[NodeId]:
        """Whom the reply names that the lookup wants. RemoteProtocolError when one of their records is forged."""
        named: list[NodeId] = []
        for signed in reply.records[: self._params.reply_max]:
            claimed = parse(signed, NodeRecord)
            if not lookup.wants(peer, claimed.node):
                continue
            have = known.get(claimed.node)
            if have is None or have.record.sequence < claimed.sequence:
                record = verify_record(self._root, signed)
                until_unix_s = min(record.expires_unix_s, verify_chain(self._root, record.chain).not_after_unix_s)
                if until_unix_s <= self._now_unix_s() or not is_dialable(record):
                    continue
                known[record.node] = Known(signed, record)
            named.append(NodeId(claimed.node))
        return named


def _pass_on(
    outcomes: trio.MemorySendChannel[tuple[bytes, Message | LockboxError]], peer: bytes, outcome: Message | LockboxError
) -> None:
    outcomes.send_nowait((peer, outcome))  # never full: it has room for all that a lookup may ask
