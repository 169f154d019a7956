"""Liars about their place, over `core.location` alone: no task, stream or clock, so that hundreds of nodes cost little.

Nodes stand in the regions of the table, each of an operator of its own, with the delays of `geography`. A fifth of
them collude. Some stand elsewhere than they claim; all of them sign that they are next to every honest node that they
may testify on, the victim of the day among them, deny what speaks against one another, and some add delay. Everybody
measures those on whom it bears witness. What each honest node then makes of it is the outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.id_order import IdOrder
from lockbox_node.core.location import ELECTORS, Sighting, is_telling, judge, region_km
from lockbox_node.core.regions import BUILT_IN
from protocol.ids import ID_BYTES, NodeId
from simulations.geography import DETOUR, FIBRE_KM_PER_S, NEAR_S

if TYPE_CHECKING:
    from lockbox_node.core.location import Judgement

LYING_RTT_US = 300
US_PER_S = 1_000_000
DELAY_MEAN_S = 0.05


@dataclass(frozen=True, slots=True)
class Actor:
    """A node: what it claims, and where it is; `liar` = it says whatever suits it."""

    node: NodeId
    region: str
    operator: str
    truth: str
    liar: bool
    delay_s: float  # that it adds to its answers

    @property
    def displaced(self) -> bool:
        """Whether its claim is false."""
        return self.region != self.truth


class Places:
    """`count` nodes; everything follows from `seed`. `displaced` of the liars stand elsewhere than they claim."""

    def __init__(self, count: int, seed: int, liars: float = 0.2, displaced: float = 0.5, delayed: float = 0.2) -> None:
        rng = Random(seed)
        names = sorted(BUILT_IN.regions)
        colluding = int(count * liars)
        self.actors: dict[NodeId, Actor] = {}
        for number in range(count):
            node, region, liar = NodeId(rng.randbytes(ID_BYTES)), rng.choice(names), number < colluding
            truth = rng.choice(names) if number < colluding * displaced else region
            delay_s = rng.expovariate(1 / DELAY_MEAN_S) if rng.random() < delayed else 0.0
            self.actors[node] = Actor(node, region, f"op{number}", truth, liar, delay_s)
        self._rng = rng
        order = IdOrder(self.actors)
        self._near = {node: order.nearest(node, ELECTORS + 1)[1:] for node in self.actors}
        self._seen = {node: self._measure(actor) for node, actor in self.actors.items()}
        self._told = [one for actor in self.actors.values() for one in self._tell(actor)]

    def honest(self) -> list[Actor]:
        """Those who say what is."""
        return [actor for actor in self.actors.values() if not actor.liar]

    def verdict(self, own: Actor | None) -> Judgement:
        """What a node, or a client (None), makes of it."""
        if own is None:
            return judge(None, self.actors, (), self._told)
        return judge(own.node, self.actors, self._seen[own.node], self._told)

    def sees_through(self, own: Actor) -> set[NodeId]:
        """Whose lie the node has measured itself."""
        return {
            one.subject
            for one in self._seen[own.node]
            if self.actors[one.subject].displaced and one in judge(own.node, self.actors, [one], ()).contradictions
        }

    def _measure(self, actor: Actor) -> list[Sighting]:
        return [
            self._sighting(actor, self.actors[node], self._rtt_us(actor, self.actors[node]))
            for node in self._near[actor.node]
        ]

    def _tell(self, actor: Actor) -> list[Sighting]:
        """What it signs: what it saw, or what suits the liars."""
        if not actor.liar:
            return [one for one in self._seen[actor.node] if is_telling(one, region_km)]
        framed = [self.actors[node] for node in self._near[actor.node] if not self.actors[node].liar]
        return [self._sighting(actor, other, LYING_RTT_US) for other in framed]

    def _rtt_us(self, one: Actor, other: Actor) -> int:
        km = region_km(one.truth, other.truth)
        assert km is not None, "everybody stands in a region of the table"
        way_s = NEAR_S + km * DETOUR / FIBRE_KM_PER_S
        return math.ceil((2 * way_s + one.delay_s + other.delay_s) * US_PER_S)

    @staticmethod
    def _sighting(judge: Actor, subject: Actor, rtt_us: int) -> Sighting:
        return Sighting(judge.node, judge.region, subject.node, subject.region, rtt_us)
