"""What a node still has to tell of the members: each rumour a few times, the freshest first, a few in one message.

Das, Gupta and Motivala, SWIM, 2002, section 4.1: piggybacked infection. Push-pull mends what got lost.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol.ids import NodeId


class Rumours:
    """Whom there is news of, and to how many others each was passed on."""

    def __init__(self) -> None:
        self._told: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._told)

    def start(self, node: NodeId) -> None:
        """There is news of the node: it begins anew."""
        self._told[node] = 0

    def drop(self, node: NodeId) -> None:
        """Nothing more is told of the node."""
        self._told.pop(node, None)

    def take(self, count: int, copies: int, transmissions: int) -> list[NodeId]:
        """The `count` that were told least, for one message of which `copies` go out.

        Those now told `transmissions` times or more are done.
        """
        chosen = heapq.nsmallest(count, self._told, key=self._told.__getitem__)
        for node in chosen:
            self._told[node] += copies
            if self._told[node] >= transmissions:
                del self._told[node]
        return chosen
