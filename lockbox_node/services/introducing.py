"""Newcomers are dialled back before they are believed; and what others find when they dial us back.

A node that speaks to us for itself enters the table, and so the gossip, once our own dial met its key at an address
that it advertises: when its Hello answered a dial of ours there, when it is a member with these addresses already, or
after a dial-back. What other members tell of it is taken as theirs. For our own part: who could not reach us says so;
until somebody can, this node is no member and not ready, and goes on trying. One who is reached by anybody is a member,
so that a single liar takes nobody out. Source: DESIGN section 4 (a record counts only after a dial-back).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from lockbox_node.rpc.dial_backs import HINT
from lockbox_node.services.discovery import contact_of
from protocol.certificates import verify_chain
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.membership import Membership
    from lockbox_node.rpc.dial_backs import DialBacks, Verdict
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.services.announcing import Announcer
    from protocol.messages import Message, Signed
    from protocol.records import NodeRecord

LOGGED_MAX = 1000  # newcomers that could not be reached, each named once

log = structlog.get_logger()


def _nobody_asks(_error: LockboxError | None) -> None:
    """The verdict of a dial-back that only the member table waits for."""


class Introducing:
    """One per node. `accept` takes a record whose node was reached."""

    def __init__(
        self,
        machine: Membership,
        announcer: Announcer,
        dial_backs: DialBacks,
        accept: Callable[[Signed, NodeRecord], None],
    ) -> None:
        self._machine, self._announcer, self._dial_backs, self._accept = machine, announcer, dial_backs, accept
        self._logged: set[NodeId] = set()
        self._taken = False  # some member keeps our record
        self.unreachable = ""  # why nobody takes us in; empty when somebody did, or nobody has looked yet

    # Others

    def idle(self, node: NodeId) -> bool:
        """Whether an introduction of the node would lead anywhere now."""
        return self._dial_backs.idle(node)

    def needed(self, record: NodeRecord, peer: Peer) -> bool:
        """Whether this record (verified) is `peer`'s own and names addresses where we have not met it."""
        if record.node != peer.id or peer.dialled_at in record.addresses:
            return False
        member = self._machine.members.get(NodeId(record.node))
        return member is None or not set(record.addresses) <= set(member.record.addresses)

    def dial_back(self, signed: Signed, record: NodeRecord, verdict: Verdict = _nobody_asks) -> None:
        """Accept the record once its node was reached; `verdict` hears of it."""
        proves = partial(self._proves, record)
        self._dial_backs.ask(contact_of(record), proves, partial(self._judged, signed, record, verdict))

    def _proves(self, record: NodeRecord, leaf: bytes) -> bool:
        """The leaf may be newer than the record's, but not of another node."""
        if leaf == record.chain[0]:
            return True
        try:
            return verify_chain(self._announcer.root, [leaf, *record.chain[1:]]).id == record.node
        except RemoteProtocolError:
            return False

    def _judged(self, signed: Signed, record: NodeRecord, verdict: Verdict, error: LockboxError | None) -> None:
        node = NodeId(record.node)
        if error is None:
            self._logged.discard(node)
            self._accept(signed, record)
        elif isinstance(error, PeerUnreachable) and node not in self._logged and len(self._logged) < LOGGED_MAX:
            self._logged.add(node)
            log.warning("newcomer.unreachable", node=node.hex()[:8])
        verdict(error)

    # Ourselves

    def answered(self, outcome: Message | LockboxError) -> None:
        """What a member answered when it was shown our record."""
        if not isinstance(outcome, LockboxError):
            self.taken()
        elif isinstance(outcome, RequestRefused) and outcome.code is ErrorCode.NETWORK_PARTITIONED:
            self._turned_away()

    def taken(self) -> None:
        """A member keeps our record."""
        if self.unreachable:
            log.info("join.reachable")
        self._taken, self.unreachable = True, ""

    def _turned_away(self) -> None:
        if self._taken or self.unreachable:
            return
        addresses = ", ".join(self._announcer.record.addresses)
        self.unreachable = f"nobody answers at {addresses} with this node's key; {HINT}"
        log.warning("join.unreachable", reason=self.unreachable)
