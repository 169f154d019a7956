"""Which nodes hold a stripe: the eligible nodes in XOR order, the first set that satisfies the rules of the tier.

Rules: the regions used are pairwise at least 1000 km apart, at most `c` shards in a region and with one operator, one
shard index per node. The same function serves lock (nothing taken) and repair (the live holders are taken). Greedy
first; where greed paints itself into a corner, the complete search of `placement_search`, which finds a legal set if
there is one. The nearest max(20, 4n) are looked at first, twice as many each time that they hold no legal set.
Candidates are eligible by the caller's word; `regions` is the table in force, and a region that it does not name is
never used. Source: DESIGN, Tiers and placement.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.placement_search import SEARCH_STEPS_MAX, Demand, SearchEnded, Steps, find, largest, most
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.tiers import Tier

WINDOW_MIN = 20
WINDOW_PER_SHARD = 4


class Placed(Protocol):
    """Where somebody stands: a Candidate, a NodeRecord."""

    @property
    def region(self) -> str:
        """Its region."""
        ...

    @property
    def operator(self) -> str:
        """Who runs it."""
        ...


Kept = tuple[int, "Candidate"]
"""A shard index, and a node that stores it beside the holders that count: dead, going, or a second one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may hold a shard: its id (32 bytes), region name and operator."""

    node: bytes
    region: str
    operator: str


def neighbourhood(address: bytes, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates by rising XOR distance to `address` (32 bytes)."""
    target = int.from_bytes(address, "big")
    from_bytes = int.from_bytes
    return sorted(candidates, key=lambda candidate: from_bytes(candidate.node, "big") ^ target)


def window(tier: Tier) -> int:
    """How many of the nearest eligible nodes a stripe of this tier should stand within."""
    return max(WINDOW_MIN, WINDOW_PER_SHARD * tier.n)


def place(
    tier: Tier,
    address: bytes,
    candidates: Iterable[Candidate],
    taken: Mapping[int, Candidate] | None = None,
    kept: Iterable[Kept] = (),
    regions: RegionTable = BUILT_IN,
) -> dict[int, Candidate]:
    """A holder for every shard index (0 to n-1) that is not in `taken`, the lowest to the nearest node if it may be.

    `kept` are parts on the disks of others, that may be away for good or come back: their region has room for so many
    fewer other indices. Raises LockboxError with INSUFFICIENT_NODES, INSUFFICIENT_REGIONS or INSUFFICIENT_OPERATORS
    when the candidates hold no legal set; its words say what is missing. TOO_LARGE when the search ended undecided.
    """
    taken = taken or {}
    # With n shards and at most c a region, the cap alone forces the number of regions that the tier asks for.
    assert tier.regions_min * tier.shards_per_region_max < tier.n + tier.shards_per_region_max
    missing = [index for index in range(tier.n) if index not in taken]
    choice = _Choice(tier, taken, list(kept), missing, regions)
    ordered = choice.eligible(address, candidates)
    found = choice.made(ordered)
    if found is None:
        raise choice.refusal(ordered)
    return found


def replacement(
    tier: Tier,
    address: bytes,
    candidates: Iterable[Candidate],
    taken: Mapping[int, Candidate],
    index: int,
    kept: Iterable[Kept] = (),
    regions: RegionTable = BUILT_IN,
) -> Candidate:
    """The holder for `index`: the one that `place` names, else any that is legal beside `taken`; raises as `place`.

    A network that cannot fill all missing indices still gets the shards that it can carry.
    """
    assert index not in taken
    kept = list(kept)
    missing = [other for other in range(tier.n) if other not in taken]
    choice = _Choice(tier, taken, kept, missing, regions)
    ordered = choice.eligible(address, candidates)
    try:
        whole = choice.made(ordered)
    except LockboxError:
        whole = None
    if whole is not None:
        return whole[index]
    alone = _Choice(tier, taken, kept, [index], regions)
    single = alone.made(ordered)
    if single is None:
        raise alone.refusal(ordered)
    return single[index]


def is_legal(tier: Tier, holders: Mapping[int, Candidate], regions: RegionTable = BUILT_IN) -> bool:
    """Whether a complete set of holders (n indices) keeps all the rules."""
    shards_in = Counter(holder.region for holder in holders.values())
    operators = Counter(holder.operator for holder in holders.values())
    cap = tier.shards_per_region_max
    return (
        sorted(holders) == list(range(tier.n))
        and len({holder.node for holder in holders.values()}) == tier.n
        and len(shards_in) >= tier.regions_min
        and max(shards_in.values()) <= cap
        and max(operators.values()) <= cap
        and all(name in regions and regions.near[name].isdisjoint(shards_in) for name in shards_in)
    )


def keeps_rules(tier: Tier, holders: Iterable[Placed], regions: RegionTable = BUILT_IN) -> bool:
    """Whether these holders of different indices may stand side by side, be they all n or fewer.

    Asked for every stripe of a store in every sweep, so it counts by hand.
    """
    cap = tier.shards_per_region_max
    shards_in: dict[str, int] = {}
    operators: dict[str, int] = {}
    for holder in holders:
        region, operator = holder.region, holder.operator
        shards_in[region] = in_region = shards_in.get(region, 0) + 1
        operators[operator] = of_operator = operators.get(operator, 0) + 1
        if in_region > cap or of_operator > tier.shards_per_operator_max:
            return False
    return all(name in regions and regions.near[name].isdisjoint(shards_in) for name in shards_in)


def most_legal(
    tier: Tier, address: bytes, holders: Iterable[Candidate], regions: RegionTable = BUILT_IN
) -> list[Candidate]:
    """As many of these holders of different indices as the rules allow side by side; the others would have to move.

    Of equal choices the one whose regions are those of nearer nodes, so that every holder comes to the same.
    """
    ordered = neighbourhood(address, (one for one in holders if one.region in regions))
    return largest(tier, ordered, regions, Steps())


def is_well_placed(
    tier: Tier,
    address: bytes,
    candidates: Iterable[Candidate],
    holders: Mapping[int, Candidate],
    regions: RegionTable = BUILT_IN,
) -> bool:
    """Legal, and every holder is among the first `window(tier)` of the candidates in XOR order."""
    near = {candidate.node for candidate in neighbourhood(address, candidates)[: window(tier)]}
    return is_legal(tier, holders, regions) and all(holder.node in near for holder in holders.values())


class _Kept:
    """What the disks of a region store beside the holders that count.

    `rooms` = how many holders that count a region may have where it is fewer than the tier allows. `homes` = the
    missing indices of a region that stand there already, so that they cost it no room when they are placed there again.
    """

    def __init__(self, rooms: Mapping[str, int], homes: Mapping[str, Sequence[int]]) -> None:
        self._rooms = rooms
        self._homes = homes

    @classmethod
    def of(cls, tier: Tier, kept: Iterable[Kept], taken: Mapping[int, Candidate], missing: Sequence[int]) -> _Kept:
        """An index that stands in several regions has its home in the first by name: the others have room for fewer."""
        cap = tier.shards_per_region_max
        stored: dict[str, set[int]] = {}
        for index, node in kept:
            if index not in taken or taken[index].region != node.region:
                stored.setdefault(node.region, set()).add(index)
        homes: dict[str, list[int]] = {}
        for index in missing:
            home = min((region for region, held in stored.items() if index in held), default=None)
            if home is not None:
                homes.setdefault(home, []).append(index)
        counted = Counter(holder.region for holder in taken.values())
        rooms = {
            region: min(cap, counted[region] + len(homes.get(region, ())) + max(0, cap - counted[region] - len(held)))
            for region, held in stored.items()
        }
        return cls(rooms, homes)

    def room(self, tier: Tier, region: str) -> int:
        """How many of the indices that count a region may hold, those that are taken among them."""
        return self._rooms.get(region, tier.shards_per_region_max)

    def dealt(self, missing: Sequence[int], chosen: Sequence[Candidate]) -> dict[int, Candidate]:
        """An index to each: those that stand in its region already first, then the lowest to the nearest."""
        homes = {region: list(indices) for region, indices in self._homes.items()}
        given: dict[Candidate, int] = {}
        for holder in chosen:
            if homes.get(holder.region):
                given[holder] = homes[holder.region].pop(0)
        rest = iter([index for index in missing if index not in given.values()])
        dealt = {given[holder] if holder in given else next(rest): holder for holder in chosen}
        return {index: dealt[index] for index in missing}


class _Choice:
    """One question: holders of `missing` beside `taken` and `kept`, by one table of regions."""

    def __init__(
        self,
        tier: Tier,
        taken: Mapping[int, Candidate],
        kept: Sequence[Kept],
        missing: Sequence[int],
        regions: RegionTable,
    ) -> None:
        self._tier, self._taken, self._kept, self._missing, self._regions = tier, taken, kept, missing, regions
        self._there = _Kept.of(tier, kept, taken, missing)

    def eligible(self, address: bytes, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those that hold nothing yet and stand in a known region, nearest first."""
        busy = {holder.node for holder in self._taken.values()}
        return neighbourhood(
            address, (one for one in candidates if one.node not in busy and one.region in self._regions)
        )

    def made(self, ordered: Sequence[Candidate]) -> dict[int, Candidate] | None:
        """A holder for each, None when there is no legal set; LockboxError when that is not known.

        Whether there is a set at all is asked once, before the window grows: mostly there is, and it is near.
        """
        size, whole = window(self._tier), None
        while size < len(ordered):
            near = self._greedy(ordered[:size])
            if near is None:
                with suppress(SearchEnded):
                    near = self._searched(ordered[:size], SEARCH_STEPS_MAX // 16)
            if near is not None:
                return near
            if whole is None:
                whole = self._in_all(ordered)
                if whole is None:
                    return None
            size *= 2
        return whole or self._in_all(ordered)

    def _in_all(self, ordered: Sequence[Candidate]) -> dict[int, Candidate] | None:
        try:
            return self._greedy(ordered) or self._searched(ordered, SEARCH_STEPS_MAX)
        except SearchEnded:
            raise self._undecided() from None

    def _searched(self, ordered: Sequence[Candidate], steps: int) -> dict[int, Candidate] | None:
        if len(ordered) < len(self._missing):
            return None
        return find(self._demand(ordered), self._regions, Steps(steps))

    def _demand(self, ordered: Sequence[Candidate]) -> Demand:
        return Demand(self._tier, ordered, self._taken, self._kept, self._missing)

    def _greedy(self, ordered: Sequence[Candidate]) -> dict[int, Candidate] | None:
        """The first candidates that are legal beside those before them, if they are enough."""
        cap, near = self._tier.shards_per_region_max, self._regions.near
        regions = Counter(holder.region for holder in self._taken.values())
        operators = Counter(holder.operator for holder in self._taken.values())
        chosen: list[Candidate] = []
        for candidate in ordered:
            if len(chosen) == len(self._missing):
                break
            region, operator = candidate.region, candidate.operator
            used = regions.get(region, 0)
            if used >= self._there.room(self._tier, region) or operators.get(operator, 0) >= cap:
                continue
            if not used and not near[region].isdisjoint(regions):
                continue
            regions[region] += 1
            operators[operator] += 1
            chosen.append(candidate)
        return self._there.dealt(self._missing, chosen) if len(chosen) == len(self._missing) else None

    def refusal(self, ordered: Sequence[Candidate]) -> LockboxError:
        """When it is known that there is no legal set: what is missing."""
        code, found = self._lack(ordered)
        smaller = "" if self._tier is TIERS[0] else "choose a smaller tier, or "
        return LockboxError(f"{self._needs()}; {found}", hint=smaller + _HINTS[code], code=code)

    def _lack(self, ordered: Sequence[Candidate]) -> tuple[ErrorCode, str]:
        """The most basic first: nodes, regions, nodes in the right regions, operators."""
        known = len(self._taken) + len(ordered)
        if len(ordered) < len(self._missing):
            return ErrorCode.INSUFFICIENT_NODES, f"eligible nodes found: {known}"
        with suppress(SearchEnded):
            regions, placed = most(self._demand(ordered), self._regions, Steps())
            if regions < self._tier.regions_min:
                return ErrorCode.INSUFFICIENT_REGIONS, f"such regions found: {regions}"
            if placed < len(self._missing):
                return ErrorCode.INSUFFICIENT_NODES, f"legal nodes found: {len(self._taken) + placed}"
            strangers = self._demand([replace(one, operator=one.node.hex()) for one in ordered])
            if find(strangers, self._regions, Steps()) is not None:
                operators = len({one.operator for one in (*ordered, *self._taken.values())})
                return ErrorCode.INSUFFICIENT_OPERATORS, f"operators found: {operators}"
        return ErrorCode.INSUFFICIENT_NODES, f"no legal set among the eligible nodes, of which there are {known}"

    def _needs(self) -> str:
        tier = self._tier
        return (
            f"{tier.name.capitalize()} needs {tier.n} nodes in at least {tier.regions_min} regions 1000 km apart "
            f"with at most {tier.shards_per_region_max} per region and per operator"
        )

    def _undecided(self) -> LockboxError:
        return LockboxError(
            f"{self._needs()}; the search was ended after {SEARCH_STEPS_MAX:,} steps, whether there are is not known",
            "choose a smaller tier, or ask the network's authority for a table of fewer regions that are near",
            ErrorCode.TOO_LARGE,
        )


_HINTS = {
    ErrorCode.INSUFFICIENT_NODES: "wait until more nodes have joined",
    ErrorCode.INSUFFICIENT_REGIONS: "wait until nodes in other regions have joined",
    ErrorCode.INSUFFICIENT_OPERATORS: "wait until more operators have joined",
}
