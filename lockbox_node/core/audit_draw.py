"""Who audits whom: the indices of a stripe form a ring that is shuffled anew each day, and each audits the next.

Whoever holds an index judges those who are said to hold the next one. Indices, not nodes: made-up lines in a holder
table add wards to an index, and never come between it and its judge. A day's drawer, the live node nearest to a point
that address and day name, shuffles the ring with nothing but its node id: it has no choice, and all who see the same
members compute one ring, all day long. What colluders can do: docs/decisions/0020-audit-rounds.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.ids import distance

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from protocol.ids import NodeId

_POINT, _RING = b"lockbox audit", b"lockbox audit ring"


def day_of(unix_s: float, period_s: float) -> int:
    """The number of the period that a moment lies in; a day unless a network's policy shortens it."""
    return max(0, int(unix_s // period_s))


def point_of(address: bytes, day: int) -> bytes:
    """The point (32 bytes) near which the drawer stands."""
    return hashlib.sha256(_POINT + address + day.to_bytes(8, "big")).digest()


@dataclass(frozen=True, slots=True)
class Ring:
    """The indices of one stripe that somebody holds, in the order of one day."""

    indices: tuple[int, ...]

    def ward_of(self, judge: int) -> int | None:
        """Which index the holder of one audits; None when it is alone, or nobody's."""
        return self._beside(judge, 1)

    def judge_of(self, ward: int) -> int | None:
        """Which index's holder audits one; None when it is alone, or nobody's."""
        return self._beside(ward, -1)

    def _beside(self, index: int, step: int) -> int | None:
        if len(self.indices) < 2 or index not in self.indices:
            return None
        return self.indices[(self.indices.index(index) + step) % len(self.indices)]


def ring_of(address: bytes, day: int, drawer: bytes, indices: Iterable[int]) -> Ring:
    """The ring of a day. `drawer`: the node id of the live node nearest to its point."""
    seed = hashlib.sha256(_RING + address + day.to_bytes(8, "big") + drawer).digest()
    return Ring(tuple(sorted(set(indices), key=lambda index: hashlib.sha256(seed + bytes([index])).digest())))


def asked_first(holders: Mapping[NodeId, int], index: int, address: bytes, failed: Container[NodeId]) -> list[NodeId]:
    """The holders of an index in the order in which they are asked, nearest first; those that failed are left out."""
    named = [node for node, held in holders.items() if held == index and node not in failed]
    return sorted(named, key=lambda node: distance(node, address))
