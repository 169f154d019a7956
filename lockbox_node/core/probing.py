"""How a node asks whether another lives: how long it waits, through whom it asks again, how far it trusts itself.

The wait follows the round trip to that node. Who does not answer is asked through a few others, since the link to it
may be what broke (Das, Gupta and Motivala, SWIM, 2002, section 3.1). A node whose relays do not even say that they
failed is likely slow itself: it waits longer and asks less often, by its local health multiplier (Dadgar, Phillips and
Currey, Lifeguard, 2017).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lockbox_node.core.member_events import ProbeFailed, SendProbe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from lockbox_node.core.member_params import MembershipParams
    from protocol.ids import NodeId

ROUND_TRIPS = 4.0  # smoothed ones that a probe waits
SMOOTHING = 1 / 8  # weight of a new sample: RFC 6298, section 2
OVERDUE = 2.0  # an outcome that takes so many times what it may has been lost


class Probing:
    """Of one node: who is being asked, round trips, and its local health multiplier, 0 when it is well."""

    def __init__(self, params: MembershipParams, rng: Random) -> None:
        self._params = params
        self._rng = rng
        self._until: dict[NodeId, float] = {}  # asked now -> when we stop waiting for the outcome
        self._round_trip_s: dict[NodeId, float] = {}
        self.health = 0

    @property
    def interval_s(self) -> float:
        """Between two probes."""
        return self._params.probe_interval_s * (1 + self.health)

    def timeout_s(self, node: NodeId) -> float:
        """How long the node may take to answer."""
        wanted = max(self._params.probe_timeout_s, ROUND_TRIPS * self._round_trip_s.get(node, 0.0))
        return min(self._params.probe_timeout_max_s, wanted * (1 + self.health))

    def round_trip_s(self, node: NodeId) -> float:
        """The smoothed round trip to a node that was asked; 0 for others."""
        return self._round_trip_s.get(node, 0.0)

    def begin(self, node: NodeId, others: Sequence[NodeId], now: float) -> SendProbe | None:
        """Ask the node, and if need be through some of `others`; None while it is being asked.

        An outcome that never comes must not shield the node from us for ever.
        """
        if self._until.get(node, -math.inf) > now:
            return None
        timeout_s = self.timeout_s(node)
        relayed_s = timeout_s + self._params.probe_timeout_s  # the way to the relay, and its own wait
        self._until[node] = now + OVERDUE * (timeout_s + relayed_s)
        wanted = min(len(others), self._params.probe_relays + 1)
        relays = [other for other in self._rng.sample(others, wanted) if other != node][: self._params.probe_relays]
        return SendProbe(node, timeout_s, tuple(relays), relayed_s)

    def answered(self, node: NodeId, round_trip_s: float | None) -> None:
        """The node lives; `round_trip_s` when it said so itself."""
        self._until.pop(node, None)
        if round_trip_s is None:
            return
        self.health = max(0, self.health - 1)
        known = self._round_trip_s.get(node, round_trip_s)
        self._round_trip_s[node] = known + SMOOTHING * (round_trip_s - known)

    def failed(self, outcome: ProbeFailed) -> None:
        """Nobody reached the node. The relays that did not even say so tell how well we are."""
        self._until.pop(outcome.node, None)
        silent = outcome.asked - outcome.heard if outcome.asked else 1
        self._worse(silent)

    def accused(self) -> None:
        """Others believe us gone: we may be slow."""
        self._worse(1)

    def forget(self, node: NodeId) -> None:
        """The node is gone from the table."""
        self._until.pop(node, None)
        self._round_trip_s.pop(node, None)

    def _worse(self, by: int) -> None:
        self.health = min(self._params.health_max, self.health + by)
