"""What if one region, operator or software release vanished now: the margins of all known stripes in each such case.

Stripes come in one by one and only counts stay, so a store of any size is gone through in bounded memory: for each case
a count of stripes by the margin that it would leave them, and the stripes that come off worst. A shard counts as lost
with a case when all of its live holders belong to it. Placement spreads over regions and operators, not over releases,
which most nodes share: what comes off worst is told by the former two. Source: DESIGN, Tiers and placement.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.displaced import placed
from lockbox_node.core.placement import Placed
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.repair import Health, Stripe, health

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.tiers import Tier
    from protocol.ids import NodeId

WORST_LISTED_MAX = 20
CASES_LISTED_MAX = 100  # of each kind, the worst first


class Kind(Enum):
    """What may vanish as a whole."""

    REGION = "region"
    OPERATOR = "operator"
    RELEASE = "release"


class Measured(Placed, Protocol):
    """A member whose software is known too: a NodeRecord."""

    @property
    def software(self) -> bytes:
        """Hash of what it runs."""
        ...


@dataclass(slots=True, eq=False)
class Case:
    """One region, operator or release. `margins` counts, by the margin left after it, the stripes that it touches."""

    kind: Kind
    name: str
    nodes: int = 0  # that live
    gone: int = 0  # that are known and do not
    shards: int = 0  # shard indices that it holds, of all stripes and in total
    stripes: int = 0
    margins: Counter[int] = field(default_factory=Counter)

    @property
    def worst(self) -> int | None:
        """The least margin that it would leave a stripe; None when it holds nothing."""
        return min(self.margins, default=None)

    @property
    def lost(self) -> int:
        """Stripes that would be lost with it."""
        return lost_of(self.margins)

    def badness(self) -> tuple[bool, list[tuple[int, int]], str]:
        """Sort key, worst first: the least margin, then how many have it, then the next margin; empty ones last."""
        return not self.margins, [(margin, -self.margins[margin]) for margin in sorted(self.margins)], self.name


@dataclass(frozen=True, slots=True)
class AtRisk:
    """A stripe, and the region or operator whose loss would leave it the least."""

    address: bytes
    tier: str
    margin: int
    after: int
    kind: Kind
    name: str


class WhatIf:
    """Add every stripe, then read. `own` and `members` (the live ones, ourselves included) are as at one moment."""

    def __init__(
        self,
        own: NodeId,
        members: Mapping[NodeId, Measured],
        failing: Container[NodeId] = frozenset(),
        gone: Iterable[Measured] = (),
        regions: RegionTable = BUILT_IN,
    ) -> None:
        self.margins: Counter[int] = Counter()  # now
        self.tiers: Counter[str] = Counter()
        self.stripes = 0
        self.short = 0  # that miss a shard
        self.displaced = 0  # that are whole but break the rules of placement
        self._own, self._members, self._failing, self._regions = own, members, failing, regions
        self._cases: dict[tuple[Kind, str], Case] = {}
        self._cases_of = {node: self._belongs(record) for node, record in members.items()}
        self._worst: list[tuple[tuple[int, int, int, int], AtRisk]] = []  # a heap, the least bad on top
        for cases in self._cases_of.values():
            for case in cases:
                case.nodes += 1
        for record in gone:
            for case in self._belongs(record):
                case.gone += 1

    def add(self, stripe: Stripe, tier: Tier) -> None:
        """Count one stripe."""
        seen = health(stripe, tier, self._members, self._own, self._failing)
        live = {index: nodes for held in (seen.going, seen.live) for index, nodes in held.items()}
        margin = tier.margin(len(live))
        self.stripes += 1
        self.tiers[tier.name] += 1
        self.margins[margin] += 1
        self._judge(stripe, tier, seen)
        lost: dict[Case, int] = {}
        for index, nodes in live.items():
            for case in self._shared((*nodes, *seen.going.get(index, ()))):
                lost[case] = lost.get(case, 0) + 1
        for case, shards in lost.items():
            case.shards += shards
            case.stripes += 1
            case.margins[margin - shards] += 1
        self._keep(stripe, tier, margin, lost)

    def cases(self, kind: Kind) -> list[Case]:
        """All of one kind, worst first."""
        return sorted((case for case in self._cases.values() if case.kind is kind), key=Case.badness)

    @property
    def worst(self) -> list[AtRisk]:
        """The stripes that the loss of a region or operator would leave the least, worst first."""
        return [risk for _, risk in sorted(self._worst, key=lambda entry: entry[0], reverse=True)]

    def _judge(self, stripe: Stripe, tier: Tier, seen: Health) -> None:
        if seen.short:
            self.short += 1
        elif placed(seen, tier, stripe.address, self._own, self._members, self._regions).displaced:
            self.displaced += 1

    def _belongs(self, record: Measured) -> tuple[Case, ...]:
        keys = ((Kind.REGION, record.region), (Kind.OPERATOR, record.operator), (Kind.RELEASE, record.software.hex()))
        return tuple(self._cases.setdefault(key, Case(*key)) for key in keys)

    def _shared(self, holders: tuple[NodeId, ...]) -> Iterable[Case]:
        """The cases with which all of these holders of one index would vanish."""
        first = self._cases_of[holders[0]]
        if len(holders) == 1:
            return first
        return [case for case in first if all(case in self._cases_of[other] for other in holders[1:])]

    def _keep(self, stripe: Stripe, tier: Tier, margin: int, lost: Mapping[Case, int]) -> None:
        spread = [(shards, case) for case, shards in lost.items() if case.kind is not Kind.RELEASE]
        if not spread:
            return  # every index has holders in several regions
        shards, case = max(spread, key=lambda item: item[0])
        after = margin - shards
        risk = AtRisk(stripe.address, tier.name, margin, after, case.kind, case.name)
        entry = ((-after, -margin, -int.from_bytes(stripe.address, "big"), -self.stripes), risk)
        if len(self._worst) < WORST_LISTED_MAX:
            heapq.heappush(self._worst, entry)
        elif entry[0] > self._worst[0][0]:
            heapq.heapreplace(self._worst, entry)


def lost_of(margins: Counter[int]) -> int:
    """How many of the counted stripes have fewer than k shards left."""
    return sum(count for margin, count in margins.items() if margin < 0)
