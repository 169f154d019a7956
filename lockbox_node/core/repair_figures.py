"""What healing reports of itself: by cause, how long stripes were short, how safe all of them are, what waits.

Counted where it happens, read by metrics and status. Margins are those of the last whole sweep: how many shards of each
stripe may still be lost. Times are passed in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.core.repair import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHORT_S = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)  # upper bounds of the buckets


@dataclass(slots=True)
class Durations:
    """A histogram of seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SHORT_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(SHORT_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> Sequence[tuple[str, int]]:
        """(upper bound, how many were at most that long), ascending, the last one unbounded: Prometheus' form."""
        total, rows = 0, []
        for bound, count in zip([*map(str, SHORT_S), "+Inf"], self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


@dataclass(slots=True)
class RepairFigures:
    """One per node."""

    done: Counter[Cause] = field(default_factory=Counter)
    urgent: int = 0  # of others' shards that were brought back, those of stripes that bore no further loss
    bytes_rebuilt: Counter[Cause] = field(default_factory=Counter)
    short: Durations = field(default_factory=Durations)  # from when a stripe was found short to when it was whole
    margins: Mapping[int, int] = field(default_factory=dict)  # margin -> stripes, by the last whole sweep
    _work_s: float = 0.0
    _sweep: Counter[int] = field(default_factory=Counter)

    @property
    def margin_worst(self) -> int | None:
        """The least margin of all stripes held here; None while nothing was looked through."""
        return min(self.margins, default=None)

    def sweep_begins(self) -> None:
        """All stripes are looked at from now on."""
        self._sweep = Counter()

    def saw(self, margin: int) -> None:
        """A stripe was looked at."""
        self._sweep[margin] += 1

    def sweep_ends(self) -> None:
        """All were."""
        self.margins = dict(sorted(self._sweep.items()))

    def repaired(self, cause: Cause, margin: int, short_s: float, work_s: float, rebuilt_bytes: int) -> None:
        """A stripe is whole again that was short for `short_s`, of which it was worked on for `work_s`."""
        self.done[cause] += 1
        self.urgent += margin <= 0 and cause is not Cause.DAMAGE
        self.bytes_rebuilt[cause] += rebuilt_bytes
        self.short.add(short_s)
        self._work_s += work_s

    def left_s(self, waiting: int, lanes: int, bytes_per_s: float) -> float:
        """About how long so many more take: by what one took so far, and by the rate that repairs keep to."""
        done = self.done.total()
        if not done:
            return 0.0
        by_work = waiting * self._work_s / done / lanes
        by_rate = waiting * self.bytes_rebuilt.total() / done / bytes_per_s
        return max(by_work, by_rate)
