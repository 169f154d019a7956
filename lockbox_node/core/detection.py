"""How long deaths take to be noticed: from the last sign of life of a member that we watch to its being declared dead.

Only those that are probed in turn count; of all others the last sign of life may be hours old. Who said that it leaves,
or was barred, is no death. Times are passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from lockbox_node.core.repair_figures import Durations

if TYPE_CHECKING:
    from protocol.ids import NodeId

WATCHED_MAX = 64  # members whose last sign of life is remembered; four times as many as are probed


class Detection:
    """One per node. `durations`: of the deaths so far."""

    def __init__(self) -> None:
        self.durations = Durations()
        self._heard_at: OrderedDict[NodeId, float] = OrderedDict()

    def heard(self, node: NodeId, now: float) -> None:
        """A member that we watch gave a sign of life."""
        self._heard_at.pop(node, None)
        self._heard_at[node] = now
        if len(self._heard_at) > WATCHED_MAX:
            self._heard_at.popitem(last=False)

    def declared_dead(self, node: NodeId, now: float, *, expected: bool) -> None:
        """It counts unless it was `expected`, or we never watched it."""
        heard_at = self._heard_at.pop(node, None)
        if heard_at is not None and not expected:
            self.durations.add(now - heard_at)
