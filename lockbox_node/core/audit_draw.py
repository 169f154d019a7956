"""Who audits whom: the holders of a stripe form a ring that is shuffled anew each day, and each audits the next.

A day's drawer is the live node nearest to a point that address and day name, and holds nothing of the stripe; the hash
of its operational leaf, whose key is random and made anew every 24 h, shuffles the ring. So nobody chooses its judge,
and every holder can compute who was drawn. Of a ring each holder is judged once. What colluding drawers can do:
docs/decisions/0020-audit-rounds.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from protocol.ids import NodeId

_POINT, _RING = b"lockbox audit", b"lockbox audit ring"


def day_of(unix_s: float, period_s: float) -> int:
    """The number of the period that a moment lies in; a day unless a network's policy shortens it."""
    return max(0, int(unix_s // period_s))


def point_of(address: bytes, day: int) -> bytes:
    """The point (32 bytes) near which the drawer stands."""
    return hashlib.sha256(_POINT + address + day.to_bytes(8, "big")).digest()


def drawer_of(nearest: Iterable[NodeId], holders: Collection[NodeId]) -> NodeId | None:
    """The first of the live nodes nearest to the point that is not judged itself; None when all of them are."""
    return next((node for node in nearest if node not in holders), None)


@dataclass(frozen=True, slots=True)
class Ring:
    """The holders of one stripe in the order of one day."""

    nodes: tuple[NodeId, ...]

    def ward_of(self, judge: NodeId) -> NodeId | None:
        """Whom a holder audits; None when it is alone, or not among them."""
        return self._beside(judge, 1)

    def judge_of(self, ward: NodeId) -> NodeId | None:
        """Who audits a holder; None when it is alone, or not among them."""
        return self._beside(ward, -1)

    def _beside(self, node: NodeId, step: int) -> NodeId | None:
        if len(self.nodes) < 2 or node not in self.nodes:
            return None
        return self.nodes[(self.nodes.index(node) + step) % len(self.nodes)]


def ring_of(address: bytes, day: int, leaf: bytes, holders: Iterable[NodeId]) -> Ring:
    """The ring of a day. `leaf`: DER of the drawer's operational leaf, empty where nobody could draw."""
    seed = hashlib.sha256(_RING + address + day.to_bytes(8, "big") + leaf).digest()
    return Ring(tuple(sorted(set(holders), key=lambda node: hashlib.sha256(seed + node).digest())))
