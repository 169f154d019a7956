"""How long a message takes from one host to another: great circles between regions, jitter, slow hosts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lockbox_node.core.regions import BUILT_IN, distance_km

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

FIBRE_KM_PER_S = 200_000.0
DETOUR = 1.4  # cables are longer than great circles
NEAR_S = 0.0004  # one way within a place
JITTER_SHARE = 0.05  # mean, of the way


class Geography:
    """Each host stands in a region; the jitter of what it sends is its own."""

    def __init__(self, rng: Callable[[str], Random]) -> None:
        """`rng` gives the generator of a name."""
        self._rng = rng
        self._regions: dict[str, str] = {}
        self._chance: dict[str, Random] = {}
        self._ways: dict[tuple[str, str], float] = {}
        self.slow_s: dict[str, float] = {}  # host -> what it adds to each message, either way

    def place(self, host: str, region: str) -> None:
        """`host` stands in `region`."""
        self._regions[host] = region
        self._chance[host] = self._rng(f"jitter {host}")

    def hosts(self) -> list[str]:
        """Every host, in the order in which they were placed."""
        return list(self._regions)

    def __contains__(self, host: str) -> bool:
        return host in self._regions

    def one_way_s(self, source: str, target: str) -> float:
        """The time of one message, drawn anew each time."""
        way_s = self._ways.get((source, target))
        if way_s is None:
            here, there = BUILT_IN.named(self._regions[source]), BUILT_IN.named(self._regions[target])
            way_s = self._ways[source, target] = NEAR_S + distance_km(here, there) * DETOUR / FIBRE_KM_PER_S
        way_s -= math.log(1.0 - self._chance[source].random()) * JITTER_SHARE * way_s
        if self.slow_s:
            way_s += self.slow_s.get(source, 0.0) + self.slow_s.get(target, 0.0)
        return way_s
