"""What the network's documents say, done: who is revoked is cut off and dead, the policy's values are in force.

Called with the rules at the start, after each change and every few seconds, in one step without an await: no request is
served in between by old rules. A connection stays judged as it was at Hello, so one whose verdict has changed, by other
rules or because a release has ended, is cut: its peer comes again and is judged anew. Source: DESIGN, sections 3 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.documents import NO_RULES, Rules
from protocol.certificates import Role
from protocol.ids import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.policy import Governed
    from lockbox_node.core.repair import Guard
    from lockbox_node.rpc.dispatch import Dispatcher
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Pool
    from lockbox_node.rpc.server import Server
    from lockbox_node.services.audit_rounds import AuditRounds
    from lockbox_node.services.healing import Healing
    from lockbox_node.services.measuring import Measuring
    from lockbox_node.services.membership import MembershipService
    from lockbox_node.services.storage import Storage

WHY = "by the network's documents you are judged otherwise now"

log = structlog.get_logger()


class Enforcing:
    """Tells everybody in a node what has changed. `configured` is what holds where the policy is silent."""

    def __init__(
        self,
        own: NodeId,
        now_unix_s: Callable[[], float],
        dispatcher: Dispatcher,
        pool: Pool,
        server: Server,
        membership: MembershipService,
        healing: Healing,
        guard: Guard,
        storage: Storage,
        measuring: Measuring,
        rounds: AuditRounds,
        configured: Governed,
    ) -> None:
        self._own = own
        self._now_unix_s = now_unix_s
        self._dispatcher, self._pool, self._server = dispatcher, pool, server
        self._membership, self._healing, self._guard = membership, healing, guard
        self._storage, self._measuring, self._rounds = storage, measuring, rounds
        self._configured = configured
        self._rules = NO_RULES

    def obey(self, rules: Rules) -> None:
        """These rules are in force when this returns."""
        before, self._rules = self._rules, rules
        self._dispatcher.rules = rules
        if rules.revoked != before.revoked:
            self._membership.bar(frozenset(NodeId(peer) for peer in rules.revoked))
            if self._own in rules.revoked and self._own not in before.revoked:
                log.error("node.revoked", hint="ask the network's authority; others refuse this node")
        changed = (rules.revoked, rules.releases) != (before.revoked, before.releases)
        if changed or rules.releases:
            cut = self._pool.cut(self._is_doomed, WHY) + self._server.cut(self._is_doomed, WHY)
            if changed or cut:
                log.info("documents.enforced", revoked=len(rules.revoked), releases=len(rules.releases), cut=cut)
        if rules.settings != before.settings:
            self._govern()

    def _govern(self) -> None:
        governed, ignored = self._configured.under_all(self._rules.settings)
        if ignored:
            log.warning("policy.ignored", keys=ignored)
        self._healing.obey(governed.repair)
        self._guard.obey(governed.guard)
        self._rounds.obey(governed.audit)
        self._storage.governed = governed
        self._measuring.obey(enforced=governed.measured)
        log.info(
            "policy.in_force",
            healing=governed.repair.enabled,
            tiers=[tier.name for tier in governed.tiers],
            location_measured=governed.measured,
        )

    def _is_doomed(self, peer: Peer) -> bool:
        """Revoked, or let in with more or less than its software allows now."""
        if peer.id in self._rules.revoked:
            return True
        if peer.role is not Role.NODE or peer.reads_only not in (Downgrade.NONE, Downgrade.SOFTWARE):
            return False
        refused = self._rules.refuses(peer.software, self._now_unix_s())
        return refused != (peer.reads_only is Downgrade.SOFTWARE)
