"""How long a busy queue waits for company: one flush, or one thread hop, then serves several requests.

A request that comes alone waits for nobody. When the last groups held more than one request each, more are on their
way, and waiting costs them less than a turn of their own: a process that is woken once for eight requests spends about
half the CPU of one woken eight times. The wait grows with the crowd: a single client sees no delay, a few see little.
"""

from __future__ import annotations

MEMORY = 8  # groups that count


class Gathering:
    """One queue's memory of its groups. `window_s` is the longest wait; `enough` requests, above 2, wait no more."""

    def __init__(self, window_s: float, enough: int) -> None:
        assert enough > 2
        self._window_s = window_s
        self._enough = enough
        self._usual = 1.0

    def is_enough(self, waiting: int) -> bool:
        """Whether so many need no further company."""
        return waiting >= self._enough

    def wait_s(self, waiting: int) -> float:
        """Seconds that `waiting` requests (at least 1) should still wait for others; 0 = take them now."""
        if self.is_enough(waiting):
            return 0.0
        crowd = (self._usual - 1) / (self._enough / 2 - 1)
        return self._window_s * min(1.0, crowd) if crowd > 1 / MEMORY else 0.0

    def took(self, count: int) -> None:
        """A group of `count` requests was taken."""
        self._usual += (count - self._usual) / MEMORY
