"""What becomes of a part that its holder gives away: how the stripe stands without it, whether it is one too many.

A node that drains counts itself as one that is going, as its siblings do. A holder that was away and is back, or that
two stewards served at once, keeps a copy too many: of two legal holders of one index the farther one gives way, so that
all who see the same members name the same one. Also how fast a drain goes. Source: DESIGN, Membership, verification,
healing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lockbox_node.core.displaced import placed
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.repair import health

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from lockbox_node.core.placement import Placed
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.repair import Health, Stripe
    from lockbox_node.core.tiers import Tier
    from protocol.ids import NodeId

RATE_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class View:
    """Who lives, ourselves (`own`) included; who of them is going; where shards may stand."""

    own: NodeId
    members: Mapping[NodeId, Placed]
    failing: Container[NodeId]
    regions: RegionTable = BUILT_IN


def seen_by(stripe: Stripe, tier: Tier, view: View) -> Health:
    """The stripe as it stands."""
    seen = health(stripe, tier, view.members, view.own, view.failing)
    return placed(seen, tier, stripe.address, view.own, view.members, view.regions)


def without_us(stripe: Stripe, tier: Tier, view: View) -> Health:
    """The stripe as it stands when we, who still serve it, are gone."""
    seen = health(stripe, tier, view.members, view.own, view.failing)
    live = {index: tuple(node for node in nodes if node != view.own) for index, nodes in seen.live.items()}
    live = {index: nodes for index, nodes in live.items() if nodes}
    ours = stripe.index
    going = {**seen.going, ours: (*seen.going.get(ours, ()), view.own)}
    missing = tuple(index for index in range(tier.n) if index not in live)
    gone = replace(seen, live=live, missing=missing, margin=len(live) - tier.k, going=going)
    return placed(gone, tier, stripe.address, view.own, view.members, view.regions)


def is_spare(stripe: Stripe, seen: Health, own: NodeId) -> bool:
    """Whether every index is in place, and ours at another holder who is nearer or stands better."""
    holders = seen.live.get(stripe.index, ())
    return not seen.short and not stripe.corrupt and own in holders and holders[0] != own


class Pace:
    """How many bytes a second went in the last minute: what time left is judged by."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._moved: deque[tuple[float, int]] = deque()

    def note(self, n_bytes: int, now: float) -> None:
        """So many bytes have gone."""
        self._moved.append((now, n_bytes))
        self._forget(now)

    def bytes_per_s(self, now: float) -> float:
        """0 when nothing went."""
        self._forget(now)
        span_s = min(RATE_WINDOW_S, now - self._began)
        return sum(n_bytes for _, n_bytes in self._moved) / span_s if span_s > 0 else 0.0

    def left_s(self, n_bytes: int, now: float) -> float | None:
        """How long so many bytes take at that rate; None when nobody can say."""
        rate = self.bytes_per_s(now)
        return math.ceil(n_bytes / rate) if rate > 0 else None

    def _forget(self, now: float) -> None:
        while self._moved and self._moved[0][0] < now - RATE_WINDOW_S:
            self._moved.popleft()
