"""With whom a holder compares what it holds, and when.

Soon after the start and then every few hours everybody is due, once; who is not there waits until it is. Who lives anew
(another epoch or instance: it was restarted, restored, or its disk was emptied) is due again at once: it cannot know
what it lost; so is who compared itself with us and keeps something else. A comparison that fails is tried again, ever
more seldom. Who shares nothing with us costs a look into our
own index, so nobody needs to keep a list of siblings that each put would change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from protocol.ids import NodeId

SPREAD = 0.2  # of the time between two passes, drawn at random: nodes that started together do not stay together

Life = tuple[int, bytes]
"""Which life of a node speaks: epoch and instance of its record."""


@dataclass(frozen=True, slots=True)
class ReconcileParams:
    """When, and how much at once."""

    first_s: float = 10.0  # after the start: who has just started does not know everybody yet
    every_s: float = 6 * 3600.0
    retry_s: float = 30.0  # after a comparison that failed; doubled each time, up to every_s
    again_s: float = 900.0  # between two comparisons that a sibling's own calls for
    in_flight_max: int = 4  # siblings compared at once: each takes the digests of at most 4096 buckets
    pace_s: float = 0.01  # between two pages of summaries, or two batches of tables
    restored_wait_s: float = 120.0  # a restored node answers for its parts after this, whoever was not reached

    def __post_init__(self) -> None:
        for name in ("first_s", "again_s", "pace_s", "restored_wait_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"reconcile.{name} must not be negative")
        for name in ("every_s", "retry_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"reconcile.{name} must be above 0")
        if self.in_flight_max < 1:
            raise ConfigError("reconcile.in_flight_max must be at least 1")


class Rounds:
    """Who is due. Feed it each pass, and the outcome of each comparison."""

    def __init__(self, params: ReconcileParams, rng: Random) -> None:
        self.next_pass_at = -math.inf
        self._params = params
        self._rng = rng
        self._compared: dict[NodeId, Life] = {}
        self._compared_at: dict[NodeId, float] = {}
        self._failed: dict[NodeId, tuple[int, float]] = {}  # how often, and when it may be tried again

    def passed(self, now: float) -> None:
        """A pass over what is held is done: everybody is due."""
        self._compared.clear()
        self._failed.clear()
        self.next_pass_at = now + self._params.every_s * (1 + SPREAD * (self._rng.random() - 0.5))

    def pass_soon(self) -> None:
        """Everybody is due again: we lost something and do not know what."""
        self.next_pass_at = -math.inf

    def pass_failed(self, now: float) -> None:
        """The pass came to no end: try again."""
        self.next_pass_at = now + self._params.retry_s

    def waiting(self, lives: Mapping[NodeId, Life]) -> list[NodeId]:
        """Those who live (node -> its life) and are not compared yet, tried or not."""
        for gone in self._compared_at.keys() - lives.keys():
            del self._compared_at[gone]
        return [node for node, life in lives.items() if self._compared.get(node) != life]

    def due(self, lives: Mapping[NodeId, Life], now: float) -> list[NodeId]:
        """Those of them whom we may ask now."""
        return [node for node in self.waiting(lives) if self._failed.get(node, (0, -math.inf))[1] <= now]

    def differs(self, node: NodeId, now: float) -> None:
        """It compared itself with us, and what it keeps is not what we know."""
        if now - self._compared_at.get(node, -math.inf) >= self._params.again_s:
            self._compared.pop(node, None)

    def compared(self, node: NodeId, life: Life, now: float) -> None:
        """Compared to the end, in this life of the sibling."""
        self._compared[node] = life
        self._compared_at[node] = now
        self._failed.pop(node, None)

    def failed(self, node: NodeId, now: float) -> None:
        """It did not answer, or not to the end."""
        times = self._failed.get(node, (0, 0.0))[0]
        wait_s = min(self._params.retry_s * 2.0 ** min(times, 32), self._params.every_s)
        self._failed[node] = (times + 1, now + wait_s)
