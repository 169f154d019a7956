"""The few members beside the neighbours to whom a node keeps a connection, so that rumours need no new ones.

The neighbours of all nodes, nearest in XOR order, fall into groups that hardly know each other; with a few random links
a node more, the network is one graph in which every rumour reaches everybody within a few steps (a random graph of
degree 3 or more is connected and an expander: Bollobás, 1988). A rumour to a member drawn anew each time would
cost a TLS handshake each: in a network of N that starts, N * (N - 1) / 2 of them. Whoever tables are compared with
becomes the newest acquaintance, and the oldest goes, so that the links are always others: nobody chooses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from protocol.ids import NodeId


class Acquaintances:
    """At most `count` members, the newest last."""

    def __init__(self, count: int, rng: Random) -> None:
        self._count, self._rng = count, rng
        self._met: dict[NodeId, None] = {}

    def meet(self, node: NodeId) -> None:
        """The node becomes the newest."""
        self._met.pop(node, None)
        self._met[node] = None
        if len(self._met) > self._count:
            del self._met[next(iter(self._met))]

    def drop(self, node: NodeId) -> None:
        """The node is not to be spoken to any more."""
        self._met.pop(node, None)

    def with_neighbours(self, neighbours: Sequence[NodeId], alive: Sequence[NodeId]) -> list[NodeId]:
        """The neighbours and the acquaintances, each once; where there are too few, others of `alive` become some."""
        missing = min(self._count, len(alive)) - len(self._met)
        if missing > 0:
            for node in self._drawn(alive, missing):
                self._met[node] = None
        return list(dict.fromkeys([*neighbours, *self._met]))

    def _drawn(self, alive: Sequence[NodeId], missing: int) -> Iterable[NodeId]:
        """`missing` that are no acquaintances yet: among so many draws more there are enough."""
        drawn = self._rng.sample(alive, min(len(alive), missing + len(self._met)))
        return [node for node in drawn if node not in self._met][:missing]
