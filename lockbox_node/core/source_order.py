"""Whom a repair asks for shards first: who stays, who answered fast, who has nothing to do for us yet, from all over.

What was measured is what our own requests took; an unanswered one counts as slow. A holder that was never asked counts
as fast, so that everybody is tried. Source: DESIGN, Membership, verification, healing.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from protocol.ids import NodeId

NODES_MAX = 4096  # whose speed is remembered
WEIGHT = 0.3  # of the newest in the mean
FAST_S = 0.05  # what is as fast as this is as good as any
STEP = 2.0  # from one class of speed to the next


class Speeds:
    """How long nodes took lately, and what is under way to them."""

    def __init__(self) -> None:
        self._took_s: OrderedDict[NodeId, float] = OrderedDict()
        self._under_way: Counter[NodeId] = Counter()

    def begins(self, node: NodeId) -> None:
        """A request goes out."""
        self._under_way[node] += 1

    def ended(self, node: NodeId, took_s: float) -> None:
        """It was answered, or given up, after so long."""
        self._under_way[node] -= 1
        if not self._under_way[node]:
            del self._under_way[node]
        before_s = self._took_s.pop(node, took_s)
        self._took_s[node] = before_s + WEIGHT * (took_s - before_s)
        if len(self._took_s) > NODES_MAX:
            self._took_s.popitem(last=False)

    def rank(self, node: NodeId) -> tuple[int, int]:
        """(class of speed, requests under way): less is better."""
        took_s = self._took_s.get(node, 0.0)
        return max(0, math.ceil(math.log(max(took_s, FAST_S) / FAST_S, STEP))), self._under_way[node]


def source_order(
    sources: Sequence[tuple[int, NodeId]],
    going: Container[NodeId],
    speeds: Speeds,
    region_of: Callable[[NodeId], str],
) -> list[tuple[int, NodeId]]:
    """All of `sources` (index, node), best first; of equal ones the regions take turns, then the given order counts."""
    used: Counter[str] = Counter()
    left = list(sources)
    order: list[tuple[int, NodeId]] = []
    while left:
        best = min(left, key=lambda one: (one[1] in going, *speeds.rank(one[1]), used[region_of(one[1])]))
        used[region_of(best[1])] += 1
        left.remove(best)
        order.append(best)
    return order
