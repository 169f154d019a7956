"""How long a busy queue waits for company: one flush, or one thread hop, then serves several requests.

A request that comes alone waits for nobody. When the last groups held more than one request each, more are on their
way, and waiting costs them less than a turn of their own: a process that is woken once for eight requests spends about
half the CPU of one woken eight times. So a single client sees no delay, and many clients see throughput.
"""

from __future__ import annotations

CROWDED = 1.25  # requests in a usual group from here on: others come in between
MEMORY = 8  # groups that count


class Gathering:
    """One queue's memory of its groups. `window_s` is the longest wait, `enough` requests wait for no more."""

    def __init__(self, window_s: float, enough: int) -> None:
        self._window_s = window_s
        self._enough = enough
        self._usual = 1.0

    def wait_s(self, waiting: int) -> float:
        """Seconds that `waiting` requests (at least 1) should still wait for others; 0 = take them now."""
        return self._window_s if self._usual >= CROWDED and waiting < self._enough else 0.0

    def took(self, count: int) -> None:
        """A group of `count` requests was taken."""
        self._usual += (count - self._usual) / MEMORY
