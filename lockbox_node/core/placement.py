"""Which nodes hold a stripe: the eligible nodes in XOR order, the first set that satisfies the rules of the tier.

Rules: the regions used are pairwise at least 1000 km apart, at most `c` shards in a region and with one operator, one
shard index per node. The same function serves lock (nothing taken) and repair (the live holders are taken). Greedy
first; where greed paints itself into a corner, a complete search: every maximal set of far regions, and in it a
maximum flow region -> operator, which finds a legal set if there is one. The nearest max(20, 4n) are looked at first,
twice as many each time that they hold no legal set. Candidates are eligible by the caller's word; an unknown region
is never used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.regions import NEAR
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lockbox_node.core.tiers import Tier

WINDOW_MIN = 20
WINDOW_PER_SHARD = 4

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
) -> dict[int, Candidate]:
    """A holder for every shard index (0 to n-1) that is not in `taken`, the lowest to the nearest node if it may be.

    `kept` are parts on the disks of others, that may be away for good or come back: their region has room for so many
    fewer other indices. Raises LockboxError with INSUFFICIENT_NODES, INSUFFICIENT_REGIONS or INSUFFICIENT_OPERATORS
    when the candidates hold no legal set; its words say what is missing.
    """
    taken = taken or {}
    # With n shards and at most c a region, the cap alone forces the number of regions that the tier asks for.
    assert tier.regions_min * tier.shards_per_region_max < tier.n + tier.shards_per_region_max
    missing = [index for index in range(tier.n) if index not in taken]
    ordered = _eligible(address, candidates, taken)
    there = _Kept.of(tier, kept, taken, missing)
    chosen = _choose(tier, ordered, taken, there, len(missing))
    if chosen is None:
        raise _refusal(tier, ordered, taken, there, len(missing))
    return there.dealt(missing, chosen)


def replacement(
    tier: Tier,
    address: bytes,
    candidates: Iterable[Candidate],
    taken: Mapping[int, Candidate],
    index: int,
    kept: Iterable[Kept] = (),
) -> Candidate:
    """The holder for `index`: the one that `place` names, else any that is legal beside `taken`; raises as `place`.

    A network that cannot fill all missing indices still gets the shards that it can carry.
    """
    assert index not in taken
    kept = list(kept)
    ordered = _eligible(address, candidates, taken)
    missing = [other for other in range(tier.n) if other not in taken]
    there = _Kept.of(tier, kept, taken, missing)
    whole = _choose(tier, ordered, taken, there, len(missing))
    if whole is not None:
        return there.dealt(missing, whole)[index]
    alone = _Kept.of(tier, kept, taken, [index])
    single = _greedy(tier, ordered, taken, alone, 1)
    if not single:
        raise _refusal(tier, ordered, taken, alone, 1)
    return single[0]


def is_legal(tier: Tier, holders: Mapping[int, Candidate]) -> bool:
    """Whether a complete set of holders (n indices) keeps all the rules."""
    regions = Counter(holder.region for holder in holders.values())
    operators = Counter(holder.operator for holder in holders.values())
    cap = tier.shards_per_region_max
    return (
        sorted(holders) == list(range(tier.n))
        and len({holder.node for holder in holders.values()}) == tier.n
        and len(regions) >= tier.regions_min
        and max(regions.values()) <= cap
        and max(operators.values()) <= cap
        and all(region in NEAR and NEAR[region].isdisjoint(regions) for region in regions)
    )


def is_well_placed(
    tier: Tier, address: bytes, candidates: Iterable[Candidate], holders: Mapping[int, Candidate]
) -> bool:
    """Legal, and every holder is among the first `window(tier)` of the candidates in XOR order."""
    near = {candidate.node for candidate in neighbourhood(address, candidates)[: window(tier)]}
    return is_legal(tier, holders) and all(holder.node in near for holder in holders.values())


def _eligible(address: bytes, candidates: Iterable[Candidate], taken: Mapping[int, Candidate]) -> list[Candidate]:
    busy = {holder.node for holder in taken.values()}
    return neighbourhood(address, (one for one in candidates if one.node not in busy and one.region in NEAR))


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


def _choose(
    tier: Tier, ordered: Sequence[Candidate], taken: Mapping[int, Candidate], kept: _Kept, wanted: int
) -> list[Candidate] | None:
    size = window(tier)
    while True:
        view = ordered[:size]
        chosen = _greedy(tier, view, taken, kept, wanted)
        if len(chosen) == wanted:
            return chosen
        if len(view) >= wanted:
            found = _search(tier, view, taken, kept, wanted)
            if found is not None:
                return found
        if size >= len(ordered):
            return None
        size *= 2


def _greedy(
    tier: Tier, ordered: Sequence[Candidate], taken: Mapping[int, Candidate], kept: _Kept, wanted: int
) -> list[Candidate]:
    """The first `wanted` candidates that are legal beside those before them; maybe fewer."""
    cap = tier.shards_per_region_max
    regions = Counter(holder.region for holder in taken.values())
    operators = Counter(holder.operator for holder in taken.values())
    chosen: list[Candidate] = []
    for candidate in ordered:
        if len(chosen) == wanted:
            break
        region, operator = candidate.region, candidate.operator
        used = regions.get(region, 0)
        if used >= kept.room(tier, region) or (operator in operators and operators[operator] >= cap):
            continue
        if not used and not NEAR[region].isdisjoint(regions):
            continue
        regions[region] += 1
        operators[operator] += 1
        chosen.append(candidate)
    return chosen


def _search(
    tier: Tier, ordered: Sequence[Candidate], taken: Mapping[int, Candidate], kept: _Kept, wanted: int
) -> list[Candidate] | None:
    """A legal choice of `wanted` candidates whenever there is one, in XOR order."""
    for allowed in _region_sets(ordered, taken):
        chosen = _flow(tier, [one for one in ordered if one.region in allowed], taken, kept, wanted)
        if len(chosen) == wanted:
            return chosen
    return None


def _region_sets(ordered: Sequence[Candidate], taken: Mapping[int, Candidate]) -> Iterator[frozenset[str]]:
    """Every maximal set of regions that may be used together beside those taken; regions of nearer nodes first.

    At most 22 regions, so at most a few thousand sets (Moon and Moser, 1965: 3^(r/3)).
    """
    used = {holder.region for holder in taken.values()}
    present = list(dict.fromkeys(candidate.region for candidate in ordered))
    settled = frozenset(region for region in present if region in used)
    free = [region for region in present if region not in used and NEAR[region].isdisjoint(used)]
    yield from _maximal(settled, free, [])


def _maximal(chosen: frozenset[str], free: list[str], passed: list[str]) -> Iterator[frozenset[str]]:
    """Bron and Kerbosch, 1973, on the graph of far pairs: `free` may join `chosen`; what is in `passed` was tried."""
    if not free and not passed:
        yield chosen
    while free:
        region, *free = free
        near = NEAR[region]
        yield from _maximal(
            chosen | {region},
            [other for other in free if other not in near],
            [other for other in passed if other not in near],
        )
        passed = [*passed, region]


def _flow(
    tier: Tier, ordered: Sequence[Candidate], taken: Mapping[int, Candidate], kept: _Kept, wanted: int
) -> list[Candidate]:
    """As many candidates as the caps of regions and operators allow together, at most `wanted`, in XOR order.

    Augmenting paths (Ford and Fulkerson, 1956): a candidate is an edge region -> operator of capacity 1.
    """
    cap = tier.shards_per_region_max
    room = Counter(dict.fromkeys({one.operator for one in ordered}, cap))
    room.subtract(Counter(holder.operator for holder in taken.values() if holder.operator in room))
    regions = Counter(holder.region for holder in taken.values())
    chosen: dict[Candidate, None] = {}

    def augment(region: str, seen: set[str]) -> bool:
        for edge in ordered:
            operator = edge.operator
            if edge.region != region or edge in chosen or operator in seen:
                continue
            seen.add(operator)
            if room[operator] > 0:
                room[operator] -= 1
                chosen[edge] = None
                return True
            for held in [one for one in chosen if one.operator == operator and one.region != region]:
                if augment(held.region, seen):
                    del chosen[held]
                    chosen[edge] = None
                    return True
        return False

    for region in dict.fromkeys(one.region for one in ordered):
        while regions[region] < kept.room(tier, region) and len(chosen) < wanted and augment(region, set()):
            regions[region] += 1
    return [one for one in ordered if one in chosen]


def _refusal(
    tier: Tier, ordered: Sequence[Candidate], taken: Mapping[int, Candidate], kept: _Kept, wanted: int
) -> LockboxError:
    """What is missing, most basic first: nodes, regions, nodes in the right regions, operators."""
    cap = tier.shards_per_region_max
    used = Counter(holder.region for holder in taken.values())
    supply = Counter(candidate.region for candidate in ordered)
    sets = [allowed | used.keys() for allowed in _region_sets(ordered, taken)]
    regions = max(len(allowed) for allowed in sets)
    legal = max(
        sum(min(supply[name], max(0, kept.room(tier, name) - used[name])) for name in allowed) for allowed in sets
    )
    needs = (
        f"{tier.name.capitalize()} needs {tier.n} nodes in at least {tier.regions_min} regions 1000 km apart "
        f"with at most {cap} per region and per operator"
    )
    if len(ordered) < wanted:
        code, found = ErrorCode.INSUFFICIENT_NODES, f"eligible nodes found: {len(taken) + len(ordered)}"
    elif regions < tier.regions_min:
        code, found = ErrorCode.INSUFFICIENT_REGIONS, f"such regions found: {regions}"
    elif legal < wanted:
        code, found = ErrorCode.INSUFFICIENT_NODES, f"legal nodes found: {len(taken) + legal}"
    else:
        operators = len({one.operator for one in (*ordered, *taken.values())})
        code, found = ErrorCode.INSUFFICIENT_OPERATORS, f"operators found: {operators}"
    smaller = "" if tier is TIERS[0] else "choose a smaller tier, or "
    return LockboxError(f"{needs}; {found}", hint=smaller + _HINTS[code], code=code)


_HINTS = {
    ErrorCode.INSUFFICIENT_NODES: "wait until more nodes have joined",
    ErrorCode.INSUFFICIENT_REGIONS: "wait until nodes in other regions have joined",
    ErrorCode.INSUFFICIENT_OPERATORS: "wait until more operators have joined",
}
