"""A day in the life of thousands of nodes: they join, die and look each other up, over a heap and `core` alone.

Stepped: each join, death, refresh and lookup, in order of time; each node has a routing table of `core`, each lookup is
one of `core`. A lookup begins and ends at one moment of the day, though its round trips and silences are timed. Not
stepped: probes and rumours. What they would do is done at the moment of a join or a death: its watchers, the nearest in
XOR order, take the newcomer into their tables, and the dead out of them. All others notice a death when the dead does
not answer them, or `told_s` after it when the rumours of membership reach everybody (`math.inf` = they never do: what
tables do by themselves). There is one list of who lives, which stands for the member table of everybody; no node has
one of its own. Who died never comes back; newcomers have new ids, each its own network and operator.
"""

from __future__ import annotations

import heapq
import math
import statistics
from bisect import bisect_left
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.id_order import IdOrder
from lockbox_node.core.lookup import Lookup, LookupParams
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.routing_table import BUCKETS, RoutingParams, RoutingTable
from protocol.ids import ID_BYTES, NodeId
from simulations.swarm import SEEDS_MAX, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR_S = 3600.0
WATCHERS = MembershipParams().neighbours
SAMPLED = 200  # tables looked into at the end of each period


@dataclass(frozen=True, slots=True)
class DayParams:
    """Rates are of exponential gaps; a newcomer comes as often as somebody dies, so the size stays about the same."""

    nodes: int = 10_000
    hours: float = 24.0
    online_h: float = 24.0  # mean time that a node lives
    lookups_per_h: float = 200.0  # of random nodes for random targets; these are measured
    refresh_h: float = 8.0  # each node looks up a random id of one of its buckets in turn, so often
    join_lookups: int = 2  # of a newcomer: itself, then random ids of its widest buckets
    told_s: float = math.inf
    period_h: float = 4.0  # one line of the report


@dataclass(slots=True)
class Period:
    """What one stretch of the day brought. Shares are of the tables sampled at its end."""

    until_h: float
    live: int = 0
    joined: int = 0
    died: int = 0
    refreshes: int = 0
    messages: int = 0  # of all lookups: measured ones, refreshes, joins
    silent: int = 0  # of these: to who no longer lives
    probes: int = 0  # that full buckets asked for
    recalls: list[float] = field(default_factory=list)
    dead: int = 0  # nodes that results named and that no longer lived
    hops: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # messages of each measured lookup
    contacts: float = 0.0  # in one table
    dead_share: float = 0.0
    new_share: float = 0.0  # contacts that were not in that table a period ago

    @property
    def recall(self) -> float:
        """Mean share found of the k nearest that live."""
        return statistics.fmean(self.recalls) if self.recalls else math.nan

    @property
    def exact(self) -> float:
        """Share of lookups that found all of them."""
        return statistics.fmean(one == 1.0 for one in self.recalls) if self.recalls else math.nan


class Day:
    """One network through one day; everything follows from `seed`."""

    def __init__(self, params: DayParams, seed: int) -> None:
        self._params = params
        self._rng = Random(f"{seed} day")
        self._lookup = LookupParams()
        self._routing = RoutingParams(k=self._lookup.k)
        self._now = 0.0
        self._born: dict[NodeId, int] = {}
        self._died: dict[NodeId, float] = {}
        self._tables: dict[NodeId, RoutingTable] = {}  # of who lives
        self._turns: dict[NodeId, int] = {}  # the next bucket to refresh
        self._crowd: list[NodeId] = []  # who lives, in any order
        self._place: dict[NodeId, int] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._steps = 0
        self._period = Period(params.period_h)
        self._sampled: dict[NodeId, set[bytes]] = {}
        first = sorted({NodeId(self._rng.randbytes(ID_BYTES)) for _ in range(params.nodes)})
        self._order = IdOrder(first)
        for node in first:
            self._enter(node)
        self._fill(first)

    def run(self) -> Iterator[Period]:
        """The periods of the day, one after another."""
        self._sample()
        self._after(self._gap(self._params.online_h / self._params.nodes), self._join)
        self._after(self._gap(1 / self._params.lookups_per_h), self._ask)
        while self._period.until_h <= self._params.hours:
            end = self._period.until_h * HOUR_S
            while self._heap and self._heap[0][0] <= end:
                self._now, _, step = heapq.heappop(self._heap)
                step()
            self._now = end
            self._sample()
            yield self._period
            self._period = Period(self._period.until_h + self._params.period_h)

    # What happens

    def _join(self) -> None:
        self._after(self._gap(self._params.online_h / self._params.nodes), self._join)
        node = NodeId(self._rng.randbytes(ID_BYTES))
        bootstrap = self._rng.choice(self._crowd)
        self._order.add(node)
        self._enter(node)
        self._period.joined += 1
        self._meet(node, bootstrap)
        self._look_up(node, node)
        for turn in range(self._params.join_lookups - 1):
            self._look_up(node, self._within(node, turn))
        for watcher in self._order.nearest(node, WATCHERS + 1):
            if watcher != node:
                self._meet(watcher, node)
                self._meet(node, watcher)

    def _die(self, node: NodeId) -> None:
        self._order.discard(node)
        place, last = self._place.pop(node), self._crowd.pop()
        if last != node:
            self._crowd[place], self._place[last] = last, place
        del self._tables[node], self._turns[node]
        self._died[node] = self._now
        self._period.died += 1
        for watcher in self._order.nearest(node, WATCHERS):
            self._lose(watcher, node)
            self._meet(watcher, self._order.nearest(watcher, WATCHERS + 1)[-1])  # whom it watches instead

    def _refresh(self, node: NodeId) -> None:
        if node not in self._tables:
            return
        self._after(self._params.refresh_h * HOUR_S, lambda: self._refresh(node))
        self._period.refreshes += 1
        self._turns[node] = (self._turns[node] + 1) % max(1, (len(self._crowd) // self._lookup.k).bit_length())
        self._look_up(node, self._within(node, self._turns[node]))

    def _ask(self) -> None:
        self._after(self._gap(1 / self._params.lookups_per_h), self._ask)
        asker, target = self._rng.choice(self._crowd), self._rng.randbytes(ID_BYTES)
        lookup = self._look_up(asker, target)
        found = lookup.result()
        wanted = [node for node in self._order.nearest(target, self._lookup.k) if node != asker]
        period = self._period
        period.recalls.append(len(set(wanted) & set(found)) / len(wanted))
        period.dead += sum(node in self._died for node in found)
        period.hops.append(lookup.hops)
        period.asked.append(lookup.messages)

    def _look_up(self, asker: NodeId, target: bytes) -> Lookup:
        """One lookup; who answered and who was silent is told to the asker's table."""
        seeds = self._named(asker, target, SEEDS_MAX)[: self._lookup.k]
        lookup = Lookup(target, asker, seeds, self._lookup, 0.0)
        asked: list[NodeId] = []

        def answer(peer: NodeId) -> list[NodeId] | None:
            asked.append(peer)
            return self._named(peer, target, self._lookup.reply_max) if peer in self._tables else None

        drive(lookup, self._rng, answer)
        for peer in asked:
            if peer in self._tables:
                self._meet(asker, peer)
            else:
                self._period.silent += 1
                self._lose(asker, peer)
        self._period.messages += lookup.messages
        return lookup

    # Tables

    def _named(self, node: NodeId, target: bytes, count: int) -> list[NodeId]:
        """The nearest contacts of `node`; of whose death everybody was told is gone by then."""
        while True:
            near = [NodeId(contact.id) for contact in self._tables[node].nearest(target, count)]
            gone = [one for one in near if self._is_told(one)]
            if not gone:
                return near
            for one in gone:
                self._lose(node, one)

    def _is_told(self, node: NodeId) -> bool:
        return self._died.get(node, math.inf) + self._params.told_s <= self._now

    def _meet(self, node: NodeId, other: NodeId) -> None:
        """`other` answered `node`; whom the full bucket wants probed is probed."""
        self._probe(node, self._seen(node, other))

    def _lose(self, node: NodeId, other: NodeId) -> None:
        self._probe(node, self._tables[node].failed(other))

    def _probe(self, node: NodeId, wanted: NodeId | None) -> None:
        while wanted is not None:
            self._period.probes += 1
            lives = wanted in self._tables
            wanted = self._seen(node, wanted) if lives else self._tables[node].failed(wanted)

    def _seen(self, node: NodeId, other: NodeId) -> NodeId | None:
        number = self._born[other]
        host = f"{10 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1"
        return self._tables[node].seen(other, host, 1, f"operator {number}")

    def _within(self, node: NodeId, turn: int) -> bytes:
        """A random id of the `turn`th widest bucket of `node`, the widest being 0."""
        bits = BUCKETS - turn
        own = int.from_bytes(node, "big")
        return ((own ^ 1 << (bits - 1)) >> (bits - 1) << (bits - 1) | self._rng.getrandbits(bits - 1)).to_bytes(
            ID_BYTES, "big"
        )

    # Time and chance

    def _enter(self, node: NodeId) -> None:
        self._born[node] = len(self._born)
        self._tables[node] = RoutingTable(node, self._routing)
        self._place[node] = len(self._crowd)
        self._crowd.append(node)
        self._turns[node] = self._rng.randrange(BUCKETS)
        self._after(self._gap(self._params.online_h), lambda: self._die(node))
        self._after(self._rng.random() * self._params.refresh_h * HOUR_S, lambda: self._refresh(node))

    def _gap(self, mean_h: float) -> float:
        return self._rng.expovariate(1 / (mean_h * HOUR_S))

    def _after(self, delay_s: float, step: Callable[[], None]) -> None:
        self._steps += 1
        heapq.heappush(self._heap, (self._now + delay_s, self._steps, step))

    def _fill(self, nodes: list[NodeId]) -> None:
        """Tables as a long life without deaths fills them: k of each bucket, by chance."""
        numbers = [int.from_bytes(node, "big") for node in nodes]
        for node, own in zip(nodes, numbers, strict=True):
            found: list[NodeId] = []
            for bits in range(BUCKETS, 0, -1):
                low = (own ^ 1 << (bits - 1)) >> (bits - 1) << (bits - 1)
                start, end = bisect_left(numbers, low), bisect_left(numbers, low + (1 << (bits - 1)))
                found += (
                    nodes[place] for place in self._rng.sample(range(start, end), min(self._lookup.k, end - start))
                )
            self._rng.shuffle(found)
            for other in found:
                self._seen(node, other)

    def _sample(self) -> None:
        """Look into some tables, and into those of last time that still live."""
        period = self._period
        period.live = len(self._crowd)
        fresh = self._rng.sample(self._crowd, min(SAMPLED, len(self._crowd)))
        tables = {node: self._contacts(node) for node in fresh}
        every = [contact for table in tables.values() for contact in table]
        period.contacts = len(every) / len(tables)
        period.dead_share = sum(contact in self._died for contact in every) / len(every)
        new = total = 0
        for node, before in self._sampled.items():
            if node in self._tables:
                now = self._contacts(node)
                new, total = new + len(now - before), total + len(now)
        period.new_share = new / total if total else 0.0
        self._sampled = tables

    def _contacts(self, node: NodeId) -> set[bytes]:
        """Of whose death nobody was told yet."""
        near = self._tables[node].nearest(node, len(self._tables))
        return {contact.id for contact in near if not self._is_told(NodeId(contact.id))}
