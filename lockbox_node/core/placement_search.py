"""The complete search behind greedy placement: a legal set of holders is found if there is one, within counted steps.

Two questions, one inside the other. Which regions may be used together: every maximal set of pairwise far ones (Bron
and Kerbosch, 1973, with a pivot, on the graph of far pairs), cut off where a cover by near groups shows that too little
can come of it. Which index goes to which node of such a set: a maximum flow index -> region -> operator by augmenting
paths (Ford and Fulkerson, 1956). The first question is hard in general, so its steps are counted: a search that was
ended says so and claims nothing. The built-in table has 96 maximal sets; all searches over it end.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lockbox_node.core.placement import Candidate, Kept
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.tiers import Tier

SEARCH_STEPS_MAX = 1_000_000  # a step = one region weighed or one edge of the flow walked: about half a second in all


class SearchEnded(Exception):
    """The steps are used up: neither is a set found nor is it known that there is none."""


class Steps:
    """What one search may still do."""

    def __init__(self, limit: int = SEARCH_STEPS_MAX) -> None:
        self.left = limit

    def take(self, count: int) -> None:
        """Spend `count`; SearchEnded when there are not as many."""
        self.left -= count
        if self.left < 0:
            raise SearchEnded


class FarSets:
    """The sets of these regions that are pairwise far. Regions are bits, the first is the lowest."""

    def __init__(self, names: Sequence[str], near: Mapping[str, frozenset[str]], steps: Steps) -> None:
        self._names = names
        bit_of = {name: 1 << number for number, name in enumerate(names)}
        self._closed = [bit_of[name] | sum(bit_of[other] for other in near[name] if other in bit_of) for name in names]
        self._steps = steps

    def maximal(self, weights: Mapping[str, int], wanted: int) -> Iterator[frozenset[str]]:
        """Every maximal set of at least this weight, once; those with earlier regions first. SearchEnded."""
        for chosen, _ in self._walk([weights[name] for name in self._names], wanted):
            yield frozenset(self._names[number] for number in _numbers(chosen))

    def heaviest(self, weights: Mapping[str, int]) -> int:
        """The greatest weight of any set. SearchEnded."""
        found = self._walk([weights[name] for name in self._names], 0, rising=True)
        return max(weight for _, weight in found)

    def _walk(self, weights: list[int], wanted: int, *, rising: bool = False) -> Iterator[tuple[int, int]]:
        """(maximal set, its weight) of all that weigh what is wanted; `rising` = and more than those before.

        A stack, not recursion, for tables of any size.
        """
        closed = self._closed
        stack = [(0, 0, (1 << len(closed)) - 1, 0)]  # chosen, its weight, may join, was tried
        while stack:
            chosen, weight, free, passed = stack.pop()
            self._steps.take(1 + free.bit_count() + passed.bit_count())
            if weight + self._bound(weights, free) < wanted:
                continue
            if not free:
                if not passed:
                    wanted = weight + 1 if rising else wanted
                    yield chosen, weight
                continue
            pivot = min(_numbers(free | passed), key=lambda number: (free & closed[number]).bit_count())
            children = []
            for number in _numbers(free & closed[pivot]):
                bit = 1 << number
                far = ~closed[number]
                children.append((chosen | bit, weight + weights[number], free & far, passed & far))
                free &= ~bit
                passed |= bit
            stack.extend(reversed(children))

    def _bound(self, weights: list[int], free: int) -> int:
        """No set within `free` weighs more: of regions that are all near to one another, one at most is in it."""
        total = 0
        while free:
            group, heaviest = free, 0
            while group:
                number = (group & -group).bit_length() - 1
                heaviest = max(heaviest, weights[number])
                free &= ~(1 << number)
                group &= self._closed[number] & ~(1 << number)
            total += heaviest
        return total


def _numbers(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class Demand:
    """What is to be placed beside what, and what each region can give.

    A region takes at most c holders that count, and of indices that it does not store already at most what it lacks to
    c: what the disks of absent holders keep may come back. Raises nothing; `ordered` is by rising distance.
    """

    def __init__(
        self,
        tier: Tier,
        ordered: Sequence[Candidate],
        taken: Mapping[int, Candidate],
        kept: Sequence[Kept],
        missing: Sequence[int],
    ) -> None:
        cap = tier.shards_per_region_max
        self.missing = missing
        self._ordered = ordered
        self.used = Counter(holder.region for holder in taken.values())
        self._room = dict.fromkeys((one.operator for one in ordered), tier.shards_per_operator_max)
        for holder in taken.values():
            if holder.operator in self._room:
                self._room[holder.operator] -= 1
        stored: dict[str, set[int]] = {}
        for index, node in [*taken.items(), *kept]:
            stored.setdefault(node.region, set()).add(index)
        self._offers = self._offered()
        self._homes = {name: sorted(stored.get(name, set()).intersection(missing)) for name in self._offers}
        self._new_max = {name: max(0, cap - len(stored.get(name, ()))) for name in self._offers}
        self._total_max = {name: max(0, cap - self.used[name]) for name in self._offers}

    def _offered(self) -> dict[str, dict[str, list[Candidate]]]:
        """Region -> operator -> its nearest nodes there, as many as could ever be of use.

        Each shard that is placed takes the room of one operator at most, so of as many operators as shards are missing
        one is left for the last of them.
        """
        offers: dict[str, dict[str, list[Candidate]]] = {}
        for one in self._ordered:
            region, room = offers.setdefault(one.region, {}), self._room[one.operator]
            if room > 0 and (one.operator in region or len(region) < len(self.missing)):
                nodes = region.setdefault(one.operator, [])
                if len(nodes) < room:
                    nodes.append(one)
        return offers

    def weights(self) -> dict[str, int]:
        """Region -> how many shards it could take if it were alone; without those that can take none."""
        found = {}
        for name, offer in self._offers.items():
            most = min(
                self._total_max[name], self._new_max[name] + len(self._homes[name]), sum(map(len, offer.values()))
            )
            if most > 0:
                found[name] = most
        return found

    def assigned(self, allowed: Sequence[str], steps: Steps) -> dict[int, Candidate] | None:
        """A holder for every missing index in these regions, if there is such an assignment. SearchEnded."""
        flow = _Flow(steps)
        for index in self.missing:
            flow.edge("source", index, 1)
            flow.edge(index, "any", 1)
        for name in allowed:
            flow.edge("any", ("in", name), self._new_max[name])
            for index in self._homes[name]:
                flow.edge(index, ("in", name), 1)
            flow.edge(("in", name), ("out", name), self._total_max[name])
            for operator, nodes in self._offers[name].items():
                flow.edge(("out", name), ("operator", operator), len(nodes))
        for operator in {operator: None for name in allowed for operator in self._offers[name]}:
            flow.edge(("operator", operator), "sink", self._room[operator])
        if not all(flow.augment() for _ in self.missing):
            return None
        return self._dealt(flow, allowed)

    def _dealt(self, flow: _Flow, allowed: Sequence[str]) -> dict[int, Candidate]:
        """Indices to nodes: in each region first those that it stores already, then the lowest to the nearest."""
        chosen = {
            node: name
            for name in allowed
            for operator, nodes in self._offers[name].items()
            for node in islice(nodes, flow.used(("out", name), ("operator", operator)))
        }
        homes = {
            name: deque(index for index in self._homes[name] if flow.used(index, ("in", name))) for name in allowed
        }
        returning = {index for indices in homes.values() for index in indices}
        others = iter([index for index in self.missing if index not in returning])
        dealt: dict[int, Candidate] = {}
        for node in self._ordered:
            if node in chosen:
                home = homes[chosen[node]]
                dealt[home.popleft() if home else next(others)] = node
        return {index: dealt[index] for index in self.missing}


Vertex = int | str | tuple[str, str]


class _Flow:
    """A network with whole capacities; one unit more with each augmenting path, the first in order of the edges."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._left: dict[Vertex, dict[Vertex, int]] = {}

    def edge(self, start: Vertex, end: Vertex, capacity: int) -> None:
        """An edge, from now on."""
        self._left.setdefault(start, {})[end] = capacity
        self._left.setdefault(end, {}).setdefault(start, 0)

    def used(self, start: Vertex, end: Vertex) -> int:
        """How much flows along an edge: what could flow back."""
        return self._left[end][start]

    def augment(self) -> bool:
        """One unit more from source to sink, if there is a way. SearchEnded."""
        path: list[Vertex] = ["source"]
        open_edges = [iter(self._left["source"].items())]
        seen: set[Vertex] = {"source"}
        while path and path[-1] != "sink":
            for there, left in open_edges[-1]:
                self._steps.take(1)
                if left > 0 and there not in seen:
                    seen.add(there)
                    path.append(there)
                    open_edges.append(iter(self._left[there].items()))
                    break
            else:
                path.pop()
                open_edges.pop()
        for here, there in pairwise(path):
            self._left[here][there] -= 1
            self._left[there][here] += 1
        return bool(path)


def find(demand: Demand, regions: RegionTable, steps: Steps) -> dict[int, Candidate] | None:
    """A holder for every missing index, None when there is no legal set. SearchEnded when that is not known."""
    weights = demand.weights()
    settled = [name for name in weights if name in demand.used]
    if demand.assigned([*weights], steps) is None:  # not even if all regions were far from one another
        return None
    wanted = len(demand.missing) - sum(weights[name] for name in settled)
    for allowed in _far_sets(demand, regions, steps).maximal(weights, wanted):
        found = demand.assigned([name for name in weights if name in allowed or name in settled], steps)
        if found is not None:
            return found
    return None


def most(demand: Demand, regions: RegionTable, steps: Steps) -> tuple[int, int]:
    """How many regions could be used at the most, those taken among them, and how many shards placed. SearchEnded."""
    weights = demand.weights()
    far, settled = _far_sets(demand, regions, steps), [name for name in weights if name in demand.used]
    placed = sum(weights[name] for name in settled) + far.heaviest(weights)
    return len(demand.used) + far.heaviest(dict.fromkeys(weights, 1)), placed


def largest(tier: Tier, ordered: Sequence[Candidate], regions: RegionTable, steps: Steps) -> list[Candidate]:
    """As many of these nodes as may hold a shard each side by side, nearer ones first. SearchEnded."""
    cap, supply = tier.shards_per_region_max, Counter(one.region for one in ordered)
    weights = {name: min(cap, supply[name]) for name in dict.fromkeys(one.region for one in ordered)}
    best: list[Candidate] = []
    for allowed in FarSets([*weights], regions.near, steps).maximal(weights, 0):
        if sum(weights[name] for name in allowed) > len(best):
            best = max(best, _together(tier, [one for one in ordered if one.region in allowed], steps), key=len)
    return best


def _together(tier: Tier, ordered: Sequence[Candidate], steps: Steps) -> list[Candidate]:
    """The most of these nodes, in far regions all, that the caps of regions and operators allow together."""
    flow, nodes = _Flow(steps), Counter((one.region, one.operator) for one in ordered)
    for region, operator in nodes:
        flow.edge("source", ("in", region), tier.shards_per_region_max)
        flow.edge(("in", region), ("operator", operator), nodes[region, operator])
        flow.edge(("operator", operator), "sink", tier.shards_per_operator_max)
    while flow.augment():
        pass
    left = {(region, operator): flow.used(("in", region), ("operator", operator)) for region, operator in nodes}
    chosen = []
    for one in ordered:
        if left[one.region, one.operator]:
            left[one.region, one.operator] -= 1
            chosen.append(one)
    return chosen


def _far_sets(demand: Demand, regions: RegionTable, steps: Steps) -> FarSets:
    """Over the regions that are not used and may be, beside those that are."""
    free = [name for name in demand.weights() if name not in demand.used and regions.near[name].isdisjoint(demand.used)]
    return FarSets(free, regions.near, steps)
