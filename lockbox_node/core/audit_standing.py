"""What a node thinks of the others' honesty: faults that it met itself, forgotten by half in a half-life.

A fault is a loss that was denied: wrong bytes for what the owner signed weigh 1, silence to challenges of one who
answers pings weighs a quarter, once a period, since a slow disk looks alike. Nobody's word counts, so nobody can be
framed; a loss that a holder says itself costs nothing. From `faults_max` on a node is given nothing new; it is read and
asked as before. A node that would exclude many doubts itself instead. Memory only: a restart forgives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.core.audit import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

    from lockbox_node.core.audit_pace import AuditParams
    from protocol.ids import NodeId

WRONG, SILENT = 1.0, 0.25
NODES_MAX = 4096  # with faults; beyond it those with the fewest are forgotten
FAULTS_KEPT = 10.0  # more do not add up: a node that mends its ways comes back within three half-lives
FAULTS_LEAST = 0.01
SHARE_MAX = 1 / 3  # of the live members that may be excluded; more, and the fault is rather ours


class Standings:
    """The faults of others, as one node met them."""

    def __init__(self, params: AuditParams) -> None:
        self._params = params
        self._faults: dict[NodeId, tuple[float, float]] = {}  # faults, as of when
        self._silent_at: dict[NodeId, float] = {}

    def obey(self, params: AuditParams) -> None:
        """Go by these from now on."""
        self._params = params

    def denied(self, node: NodeId, verdict: Verdict, now: float) -> None:
        """The node denied a loss."""
        if verdict is Verdict.SILENT:
            if now < self._silent_at.get(node, -float("inf")) + self._params.period_s:
                return
            self._silent_at[node] = now
        weight = SILENT if verdict is Verdict.SILENT else WRONG
        self._faults[node] = min(FAULTS_KEPT, self.faults(node, now) + weight), now
        if len(self._faults) > NODES_MAX:
            self._forget(min(self._faults, key=lambda one: (self.faults(one, now), one)))

    def faults(self, node: NodeId, now: float) -> float:
        """What is left of them; 0 of whom nothing is known."""
        faults, when = self._faults.get(node, (0.0, now))
        return float(faults * 0.5 ** ((now - when) / self._params.half_life_s))

    def all(self, now: float) -> dict[NodeId, float]:
        """Everybody with faults left; those that are as good as over are forgotten."""
        for node in [node for node in self._faults if self.faults(node, now) < FAULTS_LEAST]:
            self._forget(node)
        return {node: self.faults(node, now) for node in self._faults}

    def excluded(self, members: Collection[NodeId], now: float) -> frozenset[NodeId]:
        """Which of the live members may be given nothing new."""
        if not self._faults:
            return frozenset()
        low = [node for node in self._faults if self.faults(node, now) >= self._params.faults_max and node in members]
        return frozenset(low) if len(low) <= SHARE_MAX * len(members) else frozenset()

    def _forget(self, node: NodeId) -> None:
        del self._faults[node]
        self._silent_at.pop(node, None)
