"""Node ids kept in rising order: a page of them, and the nearest to a target, without a look at all of them.

A table of 10,000 members changes by one at a time and is asked far more often than it changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from protocol.ids import ID_BYTES, NodeId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ID_BITS = 8 * ID_BYTES


class IdOrder:
    """A sorted set of node ids."""

    def __init__(self, nodes: Iterable[NodeId] = ()) -> None:
        self._ids = sorted(set(nodes))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._ids)

    def add(self, node: NodeId) -> None:
        """Put the node in; nothing when it is in already."""
        if self._place(node) is None:
            insort(self._ids, node)

    def discard(self, node: NodeId) -> None:
        """Take the node out; nothing when it is not in."""
        place = self._place(node)
        if place is not None:
            del self._ids[place]

    def after(self, low: bytes) -> Iterator[NodeId]:
        """Those above `low` (an id, or shorter), rising. The set must not change while they are read."""
        for place in range(bisect_right(self._ids, NodeId(low)), len(self._ids)):
            yield self._ids[place]

    def nearest(self, target: bytes, count: int) -> list[NodeId]:
        """The `count` (at least 1) nodes nearest to `target` in XOR order, nearest first.

        Ids that share a longer prefix with the target are nearer than all others, and stand side by side in a sorted
        list: the longest prefix that at least `count` share bounds what must be sorted. Ids are spread evenly, so the
        first guess at that prefix is good; any guess is right.
        """
        goal = int.from_bytes(target, "big")
        free_bits = min(ID_BITS, ID_BITS - (len(self._ids) // count).bit_length() + 1)
        start, end = 0, 0
        while end - start < count and free_bits <= ID_BITS:
            low = goal >> free_bits << free_bits
            start = bisect_left(self._ids, low.to_bytes(ID_BYTES, "big"))
            end = bisect_right(self._ids, (low + (1 << free_bits) - 1).to_bytes(ID_BYTES, "big"))
            free_bits += 1
        near = sorted((goal ^ int.from_bytes(node, "big"), node) for node in self._ids[start:end])
        return [node for _, node in near[:count]]

    def _place(self, node: NodeId) -> int | None:
        place = bisect_left(self._ids, node)
        return place if place < len(self._ids) and self._ids[place] == node else None
