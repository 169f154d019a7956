"""Lookups over thousands of nodes: a heap of answers in flight over `core` alone, no task, stream or clock.

A swarm is nodes with routing tables of `core`, filled as a long life fills them: from every bucket's population, a
random choice of k. Then `dead` of the nodes die, and nobody has noticed. Colluders answer with colluders only, the
nearest to the target, and answer for one another; they cannot invent ids, since the authority issues those. Tables are
made when their node is first asked, each from a dice of its own, so the order of the questions changes nothing.
"""

from __future__ import annotations

import heapq
import statistics
from bisect import bisect_left
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.lookup import Lookup, LookupParams
from lockbox_node.core.routing_table import BUCKETS, RoutingParams, RoutingTable
from protocol.ids import ID_BYTES, NodeId, distance

if TYPE_CHECKING:
    from collections.abc import Callable

RTT_MIN_S, RTT_MAX_S = 0.01, 0.2
SEEDS_MAX = 40  # contacts of the asker's own table that a lookup starts from


@dataclass(frozen=True, slots=True)
class Outcome:
    """One lookup: what it found and what it cost. `recall` is the share found of the k nearest that live."""

    recall: float
    dead: int
    honest: bool  # one of the k nearest that live and are honest was found
    hops: int
    messages: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Many lookups."""

    lookups: int
    recall: float
    exact: float
    dead: int
    honest: float
    hops_mean: float
    hops_max: int
    messages_mean: float
    messages_max: int
    took_median_s: float


def summary(outcomes: list[Outcome]) -> Summary:
    """Means, maxima and shares over `outcomes` (at least one)."""
    return Summary(
        lookups=len(outcomes),
        recall=statistics.fmean(one.recall for one in outcomes),
        exact=statistics.fmean(one.recall == 1.0 for one in outcomes),
        dead=sum(one.dead for one in outcomes),
        honest=statistics.fmean(one.honest for one in outcomes),
        hops_mean=statistics.fmean(one.hops for one in outcomes),
        hops_max=max(one.hops for one in outcomes),
        messages_mean=statistics.fmean(one.messages for one in outcomes),
        messages_max=max(one.messages for one in outcomes),
        took_median_s=statistics.median(one.took_s for one in outcomes),
    )


def drive(lookup: Lookup, rng: Random, answer: Callable[[NodeId], list[NodeId] | None]) -> float:
    """Run a lookup that begins at 0 to its end; how long it took. Whom `answer` says None of is silent."""
    now, asked = 0.0, 0
    heap: list[tuple[float, int, NodeId, list[NodeId]]] = []
    while True:
        for peer in lookup.next_queries(now):
            asked += 1
            reply = answer(peer)
            if reply is not None:
                heapq.heappush(heap, (now + rng.uniform(RTT_MIN_S, RTT_MAX_S), asked, peer, reply))
        if lookup.finished:
            return now
        deadline = lookup.next_deadline()
        if heap and heap[0][0] <= deadline:
            now, _, peer, reply = heapq.heappop(heap)
            lookup.on_response(peer, reply)
        else:
            now = deadline


class Swarm:
    """`count` nodes; the shares `dead` and `colluding` of them are so. Everything follows from `seed`."""

    def __init__(self, count: int, seed: int, dead: float = 0.0, colluding: float = 0.0, k: int = 20) -> None:
        rng = Random(seed)
        self.k, self._seed = k, seed
        self.nodes = sorted({NodeId(rng.randbytes(ID_BYTES)) for _ in range(count)})
        picked = rng.sample(self.nodes, int(count * (dead + colluding)))
        cut = int(count * dead)
        self.dead, self.colluders = frozenset(picked[:cut]), frozenset(picked[cut:])
        self._numbers = [int.from_bytes(node, "big") for node in self.nodes]
        self._place = {node: place for place, node in enumerate(self.nodes)}
        self._tables: dict[NodeId, RoutingTable] = {}
        self._gang: dict[bytes, list[NodeId]] = {}

    def living(self) -> list[NodeId]:
        """Who answers, and answers the truth."""
        return [node for node in self.nodes if node not in self.dead and node not in self.colluders]

    def nearest(self, target: bytes) -> list[NodeId]:
        """The truth: the k nearest that live, colluders included."""
        there = (node for node in self.nodes if node not in self.dead)
        return heapq.nsmallest(self.k, there, key=lambda node: distance(node, target))

    def contacts(self, node: NodeId) -> list[NodeId]:
        """Whom `node` knows: k of each bucket, by its own dice."""
        rng = Random(f"{self._seed} {self._place[node]}")
        own = int.from_bytes(node, "big")
        found: list[NodeId] = []
        for bits in range(BUCKETS, 0, -1):
            low = (own ^ 1 << (bits - 1)) >> (bits - 1) << (bits - 1)
            start, end = bisect_left(self._numbers, low), bisect_left(self._numbers, low + (1 << (bits - 1)))
            found += (self.nodes[place] for place in rng.sample(range(start, end), min(self.k, end - start)))
        rng.shuffle(found)
        return found

    def table(self, node: NodeId) -> RoutingTable:
        """The routing table of `node`, made once."""
        table = self._tables.get(node)
        if table is None:
            table = self._tables[node] = RoutingTable(node, RoutingParams(k=self.k))
            for other in self.contacts(node):
                place = self._place[other]
                table.seen(other, f"10.{place >> 8 & 255}.{place & 255}.1", 1, f"operator {place}")
        return table

    def answer(self, peer: NodeId, target: bytes, count: int) -> list[NodeId] | None:
        """What `peer` says to FIND_NODE of `count` contacts; None = nothing."""
        if peer in self.dead:
            return None
        if peer in self.colluders:
            if target not in self._gang:
                near = heapq.nsmallest(count, self.colluders, key=lambda node: distance(node, target))
                self._gang = {target: near}
            return self._gang[target]
        return [NodeId(contact.id) for contact in self.table(peer).nearest(target, count)]

    def look_up(
        self, asker: NodeId, target: bytes, rng: Random, params: LookupParams, *, again: bool = False
    ) -> Outcome:
        """One lookup by `asker`; `again` = with the paths of a retry, from other seeds. Who is dead is silent."""
        known = [NodeId(one.id) for one in self.table(asker).nearest(target, SEEDS_MAX)]
        seeds, paths = known[: self.k], params.paths
        if again:
            seeds, paths = rng.sample(known, min(self.k, len(known))), params.retry_paths
        lookup = Lookup(target, asker, seeds, params, 0.0, paths=paths)
        took_s = drive(lookup, rng, lambda peer: self.answer(peer, target, params.reply_max))
        return self._outcome(lookup, asker, target, took_s)

    def _outcome(self, lookup: Lookup, asker: NodeId, target: bytes, now: float) -> Outcome:
        found = set(lookup.result())
        wanted = [node for node in self.nearest(target) if node != asker]
        honest = [node for node in wanted if node not in self.colluders]
        return Outcome(
            recall=sum(node in found for node in wanted) / len(wanted),
            dead=len(found & self.dead),
            honest=not honest or any(node in found for node in honest),
            hops=lookup.hops,
            messages=lookup.messages,
            took_s=now,
        )

    def run(self, lookups: int, params: LookupParams | None = None, *, retry: bool = False) -> list[Outcome]:
        """So many lookups of random targets by random living askers.

        `retry`: once more, with more paths, when no honest one was found.
        """
        params = params or LookupParams(k=self.k, candidates_max=3 * self.k)
        rng = Random(f"{self._seed} round trips")
        outcomes = []
        for asker, target in self.questions(lookups):
            outcome = self.look_up(asker, target, rng, params)
            if retry and not outcome.honest:
                outcome = self.look_up(asker, target, rng, params, again=True)
            outcomes.append(outcome)
        return outcomes

    def questions(self, count: int) -> list[tuple[NodeId, bytes]]:
        """So many random living honest askers and random targets, the same at each call."""
        rng = Random(f"{self._seed} questions")
        askers = self.living()
        return [(rng.choice(askers), rng.randbytes(ID_BYTES)) for _ in range(count)]
