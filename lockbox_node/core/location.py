"""What round trips prove of where a node stands, whom a node then believes, and who is refuted.

Nothing outruns light in vacuum: a round trip of 1 ms means at most 149.9 km. Delay can only be added, so a short round
trip proves that two nodes are near, and refutes every claim farther away than that; a long one proves nothing. Of two
who contradict each other one lies, and nobody else can tell which: so a judge believes itself, and others only when
more of them contradict a claim than may be liars, a fifth of all, counted in operators and in nodes. The same sum says
when a judge must doubt itself: it contradicts so many that an honest one is among them, or that many contradict it.
In a large network only those count who are nearest to a node in XOR order. Nobody chooses an id, so nobody chooses
whom it bears witness against. Why, and what it does not prove: docs/decisions/0015-evidence-of-location.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.id_order import IdOrder
from lockbox_node.core.regions import BUILT_IN, MIN_KM, RegionTable, distance_km

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from protocol.ids import NodeId

LIGHT_KM_PER_S = 299_792.458
SLACK_KM = 100.0  # how far from the coordinates of its region an honest node may stand
NEAR_KM = MIN_KM  # a node within this of its region is in no other one that counts beside it
ELECTORS = 128  # who bears witness on a node: those nearest to it
LIARS = 0.2  # of operators and of nodes: what a verdict withstands
SAMPLE_SIGMAS = 4.0  # by how much more of a sample may be liars
WITNESSES_MIN = 3  # of distinct operators
WITNESS_REGIONS_MIN = 2

Kilometres = Callable[[str, str], float | None]
"""The distance of two regions by name; None when one is not known."""


class Level(IntEnum):
    """What is known of a claim, in the eyes of one judge."""

    CLAIMED = 0
    MEASURED = 1
    ATTESTED = 2  # reserved: nothing attests a place yet


class Claim(Protocol):
    """What a node says of itself."""

    @property
    def region(self) -> str:
        """Where it says that it stands."""
        ...

    @property
    def operator(self) -> str:
        """Who runs it, by its certificate."""
        ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """The shortest round trip that `judge` saw to `subject`, and where both said that they stand."""

    judge: NodeId
    judge_region: str
    subject: NodeId
    subject_region: str
    rtt_us: int

    @property
    def within_km(self) -> float:
        """The two are no farther apart than this."""
        return reach_km(self.rtt_us)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Who is refuted, by which sightings; whose claim is proven; every contradiction that stands."""

    refuted: Mapping[NodeId, tuple[Sighting, ...]]
    measured: frozenset[NodeId]
    contradictions: tuple[Sighting, ...]
    doubted: bool  # the judge does not believe its own place, and so none of its own measures
    outvoted: frozenset[NodeId] = frozenset()  # of the refuted, those against whom an honest witness must be

    def level(self, node: NodeId) -> Level:
        """The level of a node's claim."""
        return Level.MEASURED if node in self.measured else Level.CLAIMED

    def against(self, node: NodeId) -> list[Sighting]:
        """The contradictions of that node's claim."""
        return [sighting for sighting in self.contradictions if sighting.subject == node]


NOTHING_KNOWN = Judgement({}, frozenset(), (), doubted=False)


def reach_km(rtt_us: int) -> float:
    """How far apart two nodes are at most, when a message went there and back in `rtt_us`."""
    return rtt_us * LIGHT_KM_PER_S / 2_000_000


def region_km(a: str, b: str, table: RegionTable = BUILT_IN) -> float | None:
    """The distance of two regions of the table; None when one is not in it."""
    here, there = table.regions.get(a), table.regions.get(b)
    return None if here is None or there is None else distance_km(here, there)


def contradicts(claimed_km: float, rtt_us: int) -> bool:
    """Whether two nodes cannot both stand in their regions, which are `claimed_km` apart."""
    return reach_km(rtt_us) + 2 * SLACK_KM < claimed_km


def proves_near(claimed_km: float, rtt_us: int) -> bool:
    """Whether the other one is within NEAR_KM of its region, if the one who measured stands in its own."""
    return claimed_km + reach_km(rtt_us) + SLACK_KM <= NEAR_KM


def is_telling(sighting: Sighting, km: Kilometres) -> bool:
    """Whether it proves or refutes anything: the others need not be told of."""
    claimed_km = km(sighting.judge_region, sighting.subject_region)
    return claimed_km is not None and (
        contradicts(claimed_km, sighting.rtt_us) or proves_near(claimed_km, sighting.rtt_us)
    )


def quorum(voters: int, of: int) -> int:
    """How many of `voters`, drawn by chance from `of` others, must agree, so that an honest one is among them.

    The others, and the one that they vote on, are the network: when that one is honest, all its liars are among them.
    Of a sample more may be liars, by as much as chance makes of it (a draw without replacement).
    """
    assert voters <= of
    spread = math.sqrt(voters * LIARS * (1 - LIARS) * (of - voters) / max(1, of - 1))
    return max(WITNESSES_MIN, math.floor(LIARS * (voters + 1) + SAMPLE_SIGMAS * spread) + 1)


def judge(
    own: NodeId | None,
    claims: Mapping[NodeId, Claim],
    ours: Iterable[Sighting],
    theirs: Iterable[Sighting],
    km: Kilometres = region_km,
) -> Judgement:
    """What `own` (None: who has no place, a client) makes of its measures and of those that others signed.

    `claims` are those of all members that live, `own` among them. A sighting counts while both of its regions are what
    the two claim now; one of an operator's own nodes counts for nobody else.
    """
    bench = _Bench(claims)
    mine = [one for one in ours if one.judge == own and bench.stands(one)]
    others = [one for one in theirs if one.judge != own and bench.may_testify(one)]
    against_me = {one.subject: one for one in mine if _speaks_against(one, km)}
    accusations = [one for one in others if _speaks_against(one, km)]
    doubted = own is not None and bool(mine or accusations) and _is_doubtful(own, against_me, accusations, bench)
    if doubted:
        refuted = _condemned(accusations, {}, bench)
    else:
        refuted = _condemned([one for one in accusations if one.subject != own], against_me, bench)
    proofs = [one for one in mine if _speaks_for(one, km) and not doubted]
    support = [one for one in others if one.judge not in refuted and _speaks_for(one, km)]
    measured = {one.subject for one in proofs} | bench.supported(support)
    contradictions = (*against_me.values(), *accusations)
    outvoted = frozenset(node for node, witnesses in refuted.items() if bench.condemns(node, witnesses))
    return Judgement(refuted, frozenset(measured - refuted.keys()), contradictions, doubted, outvoted)


def _speaks_against(sighting: Sighting, km: Kilometres) -> bool:
    claimed_km = km(sighting.judge_region, sighting.subject_region)
    return claimed_km is not None and contradicts(claimed_km, sighting.rtt_us)


def _speaks_for(sighting: Sighting, km: Kilometres) -> bool:
    claimed_km = km(sighting.judge_region, sighting.subject_region)
    return claimed_km is not None and proves_near(claimed_km, sighting.rtt_us)


class _Bench:
    """Who may bear witness on whom, and how many of them are enough."""

    def __init__(self, claims: Mapping[NodeId, Claim]) -> None:
        self._claims = claims
        self._nodes_of = Counter(claim.operator for claim in claims.values())
        self._everybody = len(claims) <= ELECTORS + 1
        self._order: IdOrder | None = None
        self._electors: dict[NodeId, frozenset[NodeId]] = {}
        self._needed: dict[NodeId, tuple[int, int]] = {}

    def stands(self, sighting: Sighting) -> bool:
        """Whether both are members and still claim what they claimed."""
        judge, subject = self._claims.get(sighting.judge), self._claims.get(sighting.subject)
        return (
            judge is not None
            and subject is not None
            and judge.region == sighting.judge_region
            and subject.region == sighting.subject_region
            and sighting.judge != sighting.subject
        )

    def may_testify(self, sighting: Sighting) -> bool:
        """Whether it counts for others too."""
        return self.stands(sighting) and sighting.judge in self.electors(sighting.subject)

    def electors(self, subject: NodeId) -> frozenset[NodeId]:
        """Who bears witness on `subject`: the nearest, but none of its own operator."""
        found = self._electors.get(subject)
        if found is None:
            near: Iterable[NodeId] = self._claims
            if not self._everybody:
                self._order = self._order or IdOrder(self._claims)
                near = [node for node in self._order.nearest(subject, ELECTORS + 1) if node != subject][:ELECTORS]
            operator = self._claims[subject].operator
            found = frozenset(node for node in near if self._claims[node].operator != operator)
            self._electors[subject] = found
        return found

    def outnumber_liars(self, subject: NodeId, nodes: Iterable[NodeId]) -> bool:
        """Whether an honest one must be among `nodes`, electors of `subject`."""
        operators, count = self._needed_of(subject)
        nodes = list(nodes)
        return len(nodes) >= count and len({self._claims[node].operator for node in nodes}) >= operators

    def condemns(self, subject: NodeId, witnesses: Sequence[Sighting]) -> bool:
        """Whether these contradictions, of distinct judges, refute the subject."""
        regions = {witness.judge_region for witness in witnesses}
        judges = [witness.judge for witness in witnesses]
        return len(regions) >= WITNESS_REGIONS_MIN and self.outnumber_liars(subject, judges)

    def operators(self, witnesses: Iterable[Sighting]) -> int:
        """Of how many operators they are."""
        return len({self._claims[witness.judge].operator for witness in witnesses})

    def supported(self, support: Iterable[Sighting]) -> set[NodeId]:
        """Whom witnesses of enough operators prove to stand where they claim."""
        by_operator = {(one.subject, self._claims[one.judge].operator) for one in support}
        counts = Counter(subject for subject, _ in by_operator)
        return {subject for subject, count in counts.items() if count >= WITNESSES_MIN}

    def _needed_of(self, subject: NodeId) -> tuple[int, int]:
        needed = self._needed.get(subject)
        if needed is None:
            electors = self.electors(subject)
            operator = self._claims[subject].operator
            operators = len({self._claims[node].operator for node in electors})
            others = len(self._claims) - self._nodes_of[operator]
            needed = quorum(operators, len(self._nodes_of) - 1), quorum(len(electors), others)
            self._needed[subject] = needed
        return needed


def _is_doubtful(
    own: NodeId, against_me: Mapping[NodeId, Sighting], accusations: Sequence[Sighting], bench: _Bench
) -> bool:
    """Whether `own` is the liar, by its own measures or by what the others say."""
    contradicted = [node for node in against_me if node in bench.electors(own)]
    return bench.outnumber_liars(own, contradicted) or own in _condemned(accusations, {}, bench)


def _condemned(
    accusations: Iterable[Sighting], certain: Mapping[NodeId, Sighting], bench: _Bench
) -> dict[NodeId, tuple[Sighting, ...]]:
    """Who is refuted: those in `certain`, and whom enough witnesses accuse that are not refuted themselves.

    Whom the most operators accuse goes first, and its own accusations with it: of two who contradict each other the
    liar is in contradiction with all honest nodes that are near it, the honest one with liars alone.
    """
    accused: dict[NodeId, dict[NodeId, Sighting]] = {}
    accused_by: dict[NodeId, list[NodeId]] = {}
    for one in accusations:
        accused.setdefault(one.subject, {})[one.judge] = one
        accused_by.setdefault(one.judge, []).append(one.subject)
    refuted = {node: (sighting, *accused.get(node, {}).values()) for node, sighting in certain.items()}
    weights: dict[NodeId, int] = {}

    def weigh(subject: NodeId) -> None:
        witnesses = list(accused[subject].values())
        weights.pop(subject, None)
        if subject not in refuted and bench.condemns(subject, witnesses):
            weights[subject] = bench.operators(witnesses)

    def silence(liar: NodeId) -> None:
        for subject in accused_by.pop(liar, ()):
            del accused[subject][liar]
            weigh(subject)

    for subject in list(accused):
        weigh(subject)
    for liar in certain:
        silence(liar)
    while weights:
        worst = max(weights, key=lambda node: (weights[node], node))
        refuted[worst] = tuple(accused[worst].values())
        del weights[worst]
        silence(worst)
    return refuted
