"""Records that come from others: verified once, counted when they do not hold, left out when they count for nothing.

Who hands on a record that does not verify is not listened to further, since every honest node verifies first; so that
is raised. A genuine record that has expired, or that names no address that can be dialled, is silently left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.twins import life_of
from lockbox_node.services.discovery import is_dialable
from protocol.certificates import verify_chain, verify_record
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.records import NodeRecord, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.membership import Membership
    from lockbox_node.services.announcing import Announcer
    from protocol.messages import Signed

REFUSED_LOG_EVERY_S = 60.0

log = structlog.get_logger()


class Records:
    """The judge of foreign records. `refused` counts those that did not verify."""

    def __init__(self, machine: Membership, announcer: Announcer, now_unix_s: Callable[[], float]) -> None:
        self._machine = machine
        self._announcer = announcer
        self._now_unix_s = now_unix_s
        self._log_at = 0.0
        self.refused = 0

    def news(self, signed: Signed) -> NodeRecord | None:
        """The record, if it counts and is not known already: then it is not verified again. RemoteProtocolError."""
        root = self._announcer.root
        try:
            claimed = parse(signed, NodeRecord)
            if self._is_known(claimed):
                return None
            record = verify_record(root, signed)
            chain_until_unix_s = verify_chain(root, record.chain).not_after_unix_s
        except RemoteProtocolError:
            self._refuse()
            raise
        until_unix_s = min(record.expires_unix_s, chain_until_unix_s)
        return record if until_unix_s > self._now_unix_s() and is_dialable(record) else None

    def of_twin(self, signed: Signed, leaf: bytes) -> NodeRecord | None:
        """The record, if it is of another life of our own node, and whoever showed it with this TLS leaf signed it."""
        try:
            record = self.news(signed)
        except RemoteProtocolError:
            return None
        ours = record is not None and record.node == self._announcer.id and record.chain[0] == leaf
        return record if ours else None

    def _is_known(self, claimed: NodeRecord) -> bool:
        if claimed.node == self._announcer.id:
            own = self._announcer.record
            return life_of(claimed) == life_of(own) and claimed.sequence <= own.sequence
        member = self._machine.members.get(NodeId(claimed.node))
        return member is not None and member.incarnation >= claimed.sequence

    def _refuse(self) -> None:
        self.refused += 1
        if trio.current_time() >= self._log_at:
            self._log_at = trio.current_time() + REFUSED_LOG_EVERY_S
            log.warning("record.refused", total=self.refused)
