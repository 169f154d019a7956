"""May leases end by our wall clock now? It deletes data, so it must be right, and what is wrong must be seen at once.

Rules. It counts only while it agrees within 60 s with the median of at least 3 peers. A shift of more than 1 h against
the monotonic clock, in one leap or in many, freezes it, until peers have agreed for 1 h without another one; a start
that lies before the last noted time by as much is such a jump too, and a freeze outlives a restart. What a peer's
clock showed is kept as its lead over our *monotonic* clock: a jump of ours then shows as disagreement with everybody
in the same moment, and peers measured before it bear witness too. Source: DESIGN, Storage.

One vote per operator (the median of its nodes) once 3 operators are seen: else who runs many nodes, or one wrong time
server behind them, decides when everybody's data ends. With fewer operators every node has a vote: such a network
hangs on its operators anyway, and its garbage should still be collected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class ClockTrustParams:
    """When a clock is believed."""

    peers_min: int = 3  # votes without which nothing is known
    operators_apart: int = 3  # from so many on, each has one vote
    agree_s: float = 60.0  # from the median
    jump_s: float = HOUR_S  # against the monotonic clock
    thaw_s: float = HOUR_S  # of agreement after a jump
    gap_max_s: float = 300.0  # between two looks, for the time between them to count as agreement
    measured_kept_s: float = 3 * DAY_S  # crystals drift by up to 100 millionths: 26 s
    measured_fresh_s: float = 2 * DAY_S  # then the peer is asked anew

    def __post_init__(self) -> None:
        if self.peers_min < 1 or self.operators_apart < 1:
            raise ConfigError("clock.peers_min and operators_apart must be at least 1", "3 is usual")
        for name in ("agree_s", "jump_s", "thaw_s", "gap_max_s", "measured_fresh_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"clock.{name} must be above zero", "leave it out for the usual value")
        if not self.agree_s <= self.jump_s:
            raise ConfigError("clock.agree_s is above clock.jump_s", "60 s and 1 h are usual")
        if not self.measured_fresh_s <= self.measured_kept_s < math.inf:
            raise ConfigError("clock.measured_kept_s is below clock.measured_fresh_s", "3 days and 2 days are usual")


@dataclass(frozen=True, slots=True)
class PeerClock:
    """What the clock of a connected node showed at `measured_at` of our monotonic clock."""

    node: bytes
    operator: str
    lead_s: float  # its wall time minus our monotonic time
    measured_at: float


@dataclass(frozen=True, slots=True)
class Trust:
    """The answer, with the reason when it is no."""

    trusted: bool
    reason: str
    votes: int = 0
    offset_s: float = 0.0  # the median of the votes minus our clock; 0 without votes


@dataclass(frozen=True, slots=True)
class Noted:
    """What outlives a restart."""

    wall_unix_s: float
    frozen: bool


class ClockTrust:
    """Looks at the clocks; `now` is the monotonic clock."""

    def __init__(self, params: ClockTrustParams, noted: Noted | None, wall_unix_s: float, now: float) -> None:
        self._params = params
        self._anchor_s = wall_unix_s - now  # the wall clock's lead over the monotonic one, at the start or last jump
        self._frozen = False
        self._jumped_s = 0.0
        self._agreed_since: float | None = None  # without a break
        self._looked_at = now
        self._wall_unix_s = wall_unix_s
        if noted is not None and (noted.frozen or noted.wall_unix_s - wall_unix_s > params.jump_s):
            self._frozen = True
            self._jumped_s = min(0.0, wall_unix_s - noted.wall_unix_s)

    @property
    def frozen(self) -> bool:
        """Whether a jump still keeps the clock from being believed."""
        return self._frozen

    @property
    def noted(self) -> Noted:
        """What to keep for the next start."""
        return Noted(self._wall_unix_s, self._frozen)

    def look(self, wall_unix_s: float, now: float, peers: Sequence[PeerClock]) -> Trust:
        """Whether the wall clock is believed at this moment; look right before each use, and every minute."""
        params = self._params
        shift_s = wall_unix_s - now - self._anchor_s
        jumped = not abs(shift_s) <= params.jump_s
        if jumped:
            self._frozen, self._jumped_s, self._anchor_s = True, shift_s, wall_unix_s - now
        votes = self._votes(wall_unix_s, now, peers)
        offset_s = _median(votes) if votes else 0.0
        agreed = len(votes) >= params.peers_min and abs(offset_s) <= params.agree_s
        if not agreed:
            self._agreed_since = None
        elif jumped or self._agreed_since is None or now - self._looked_at > params.gap_max_s:
            self._agreed_since = now
        self._looked_at, self._wall_unix_s = now, wall_unix_s
        if self._frozen and self._agreed_since is not None and now - self._agreed_since >= params.thaw_s:
            self._frozen = False
        return Trust(agreed and not self._frozen, self._reason(votes, offset_s, agreed), len(votes), offset_s)

    def overdue(self, now: float, peers: Iterable[PeerClock]) -> bytes | None:
        """The node whose clock was measured longest ago, if that is too long ago: greet it anew."""
        old = [peer for peer in peers if now - peer.measured_at > self._params.measured_fresh_s]
        return min(old, key=lambda peer: (peer.measured_at, peer.node)).node if old else None

    def _votes(self, wall_unix_s: float, now: float, peers: Iterable[PeerClock]) -> list[float]:
        """Offsets from our clock, of each operator or of each node."""
        by_operator: dict[str, list[float]] = {}
        for peer in peers:
            if now - peer.measured_at <= self._params.measured_kept_s:
                by_operator.setdefault(peer.operator, []).append(peer.lead_s + now - wall_unix_s)
        if len(by_operator) >= self._params.operators_apart:
            return [_median(offsets) for offsets in by_operator.values()]
        return [offset for offsets in by_operator.values() for offset in offsets]

    def _reason(self, votes: list[float], offset_s: float, agreed: bool) -> str:
        params = self._params
        if self._frozen:
            jump = f"it jumped by {self._jumped_s:.0f} s" if self._jumped_s else "it jumped before the restart"
            return f"{jump}; peers must agree with it for {params.thaw_s:.0f} s"
        if agreed:
            return ""
        if len(votes) < params.peers_min:
            return f"only {len(votes)} of {params.peers_min} peers that are needed have told their time"
        return (
            f"it is {abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead of'} the median of {len(votes)} peers"
        )


def _median(values: list[float]) -> float:
    """The middle one, or the mean of the middle two."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
