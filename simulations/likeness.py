"""Whether real and decoy groups look alike: invariant 7, as far as one can see it who has the owner's key.

All groups of a stripe have one size, by its descriptor, and travel in one message; what could tell them apart is where
they stand. So the places of the real ones are summed up over all stripes of a run, and compared with what a shuffle
gives: a rank sum (Wilcoxon, 1945). Chance alone goes beyond SIGMAS_MAX once in a thousand million runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGMAS_MAX = 6.0


class Likeness:
    """What was seen of all stripes so far."""

    def __init__(self) -> None:
        self.stripes = 0
        self._shift = 0.0  # of the real groups' places from the middle
        self._variance = 0.0

    @property
    def sigmas(self) -> float:
        """How far the places are from what a shuffle gives, in standard deviations; below 0 when in front."""
        return self._shift / math.sqrt(self._variance) if self._variance else 0.0

    def add(self, groups: int, places: Sequence[int]) -> None:
        """One stripe of so many groups, and the places (0 first) of its real ones."""
        real = len(places)
        self.stripes += 1
        self._shift += sum(places) - real * (groups - 1) / 2
        self._variance += real * (groups - real) * (groups + 1) / 12

    def told(self) -> str:
        """What can be told from the places, empty when nothing."""
        if abs(self.sigmas) <= SIGMAS_MAX:
            return ""
        where = "in front" if self.sigmas < 0 else "behind"
        return f"the real groups of {self.stripes} stripes stand {where} too often: {abs(self.sigmas):.1f} sigmas"
