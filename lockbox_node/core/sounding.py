"""Whose distance to measure next, and the pings of one measurement.

Those who were never measured, or live anew (another region, another process), come first; everybody else comes again
after hours. One node is measured at a time: so many pings a second are what measuring costs a node at most. A ping
around which we ourselves stood still is thrown away. Source: DESIGN, Evidence of location.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError
from protocol.vantage import PINGS_MIN, RoundTrip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocol.ids import NodeId

SAMPLES_MAX = 255
TRIES_FACTOR = 3  # so many times the pings that are needed, before we give up for now
SILENT_MAX = 3  # pings in a row without an answer
US_PER_S = 1_000_000

Life = tuple[str, bytes]
"""What a measurement holds for: the region that a node claims, and the process (instance) that claims it."""


@dataclass(frozen=True, slots=True)
class MeasuringParams:
    """How much measuring may cost, and how soon it is known to others."""

    pings: int = PINGS_MIN  # of one measurement
    pings_per_s: float = 0.25  # sent by one node; about as many come in: each costs it about 1 ms
    again_s: float = 6 * 3600.0
    retry_s: float = 60.0  # after a failure; doubled each time, up to again_s
    stall_s: float = 0.02  # by which we may be late around a ping
    exchange_s: float = 30.0  # between two exchanges of reports

    def __post_init__(self) -> None:
        if not PINGS_MIN <= self.pings <= SAMPLES_MAX:
            raise ConfigError(f"measuring.pings must be {PINGS_MIN} to {SAMPLES_MAX}", "20 is usual")
        for name in ("pings_per_s", "again_s", "retry_s", "stall_s", "exchange_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"measuring.{name} must be above 0", "leave it out for the usual value")


class Burst:
    """The pings of one measurement."""

    def __init__(self, params: MeasuringParams) -> None:
        self._params = params
        self._good: list[float] = []
        self._tries = 0
        self._silent = 0  # in a row

    @property
    def over(self) -> bool:
        """Whether there are enough, or no hope."""
        return self.enough or self._silent >= SILENT_MAX or self._tries >= TRIES_FACTOR * self._params.pings

    @property
    def enough(self) -> bool:
        """Whether the measurement counts."""
        return len(self._good) >= self._params.pings

    def add(self, round_trip_s: float | None, late_s: float) -> bool:
        """One ping: its round trip (None: no answer), and by how much we were late around it. Whether it counts."""
        self._tries += 1
        self._silent = 0 if round_trip_s is not None else self._silent + 1
        counts = round_trip_s is not None and late_s <= self._params.stall_s
        if counts and round_trip_s is not None:
            self._good.append(round_trip_s)
        return counts

    def trip(self, subject: NodeId, region: str, now_unix_s: float) -> RoundTrip:
        """What was measured, when there was enough. Rounded up: never nearer than it was."""
        rtt_us = max(1, math.ceil(min(self._good) * US_PER_S))
        return RoundTrip(subject, region, rtt_us, min(len(self._good), SAMPLES_MAX), int(now_unix_s))


@dataclass(slots=True)
class _Try:
    life: Life
    next_at: float
    failures: int = 0
    trip: RoundTrip | None = None


class Soundings:
    """What was measured of whom, and who is next."""

    def __init__(self, params: MeasuringParams) -> None:
        self._params = params
        self._tries: dict[NodeId, _Try] = {}
        self.version = 0  # rises when what was measured changes

    def next(self, lives: Mapping[NodeId, Life], now: float) -> NodeId | None:
        """Whom to measure now, of those (nearest first) that live; what is known of others is forgotten."""
        for node in [node for node in self._tries if node not in lives]:
            self._forget(node)
        for node, life in lives.items():
            if node in self._tries and self._tries[node].life != life:
                self._forget(node)
        for node in lives:
            if node not in self._tries:
                return node
        due = [node for node in lives if self._tries[node].next_at <= now]
        return min(due, key=lambda node: self._tries[node].next_at, default=None)

    def measured(self, node: NodeId, life: Life, trip: RoundTrip, now: float) -> None:
        """A measurement counts; the newest takes the place of all before it."""
        self._tries[node] = _Try(life, now + self._params.again_s, 0, trip)
        self.version += 1

    def failed(self, node: NodeId, life: Life, now: float) -> None:
        """It did not answer, or we stood still: later again, ever more seldom. What was measured stands."""
        before = self._tries.get(node)
        known = before if before is not None and before.life == life else _Try(life, now)
        wait_s = min(self._params.retry_s * 2.0 ** min(known.failures, 32), self._params.again_s)
        self._tries[node] = _Try(life, now + wait_s, known.failures + 1, known.trip)

    def trips(self) -> list[RoundTrip]:
        """What was measured of each, by rising id."""
        return [known.trip for _, known in sorted(self._tries.items()) if known.trip is not None]

    def _forget(self, node: NodeId) -> None:
        if self._tries.pop(node).trip is not None:
            self.version += 1
