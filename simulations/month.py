"""A month of a network's repairs, from a heap: one node gone for good each week, daily reboots, a region dark once.

Only the decisions run (core.repair, core.placement), over tables that every holder knows; deaths are events, probes are
not stepped. What it shows: whether any stripe is ever lost or unreadable, whether a region ever stores enough to
rebuild one, and how many shards move beside those that had to. One seed is one story.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.placement import Candidate, place, replacement
from lockbox_node.core.repair import due_at, health, line_of, table_with
from lockbox_node.core.tiers import TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol.ids import NodeId, distance
from protocol.messages import NO_INDEX, HolderEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY_S = 86_400.0
REGIONS = ("us-east-1", "us-west-1", "sa-east-1", "eu-west-1", "af-south-1", "ap-south-1", "ap-northeast-1")


@dataclass(frozen=True, slots=True)
class MonthParams:
    """Sizes and rates."""

    nodes: int = 84
    stripes: int = 1000
    days: float = 30.0
    loss_every_s: float = 7 * DAY_S
    reboot_s: float = 20.0  # mean time that a node is away each day
    dark_s: float = 1800.0  # of one region, once
    detect_s: float = 12.0
    trim_s: float = DAY_S  # how long a holder that came back keeps what others rebuilt


@dataclass(slots=True)
class Held:
    """One stripe: its table, and on whose disks it lies, of nodes that are away too."""

    address: bytes
    tier: Tier
    entries: list[HolderEntry]
    disks: dict[NodeId, int]
    since: dict[int, float] = field(default_factory=dict)  # missing index -> when that was noticed
    index: int = 0  # of whoever looks
    corrupt: bool = False


@dataclass(slots=True)
class Told:
    """What a month came to."""

    losses: int = 0
    reboots: int = 0
    moved: int = 0
    moved_for_losses: int = 0  # of the moved, those that a node took with it for good
    trimmed: int = 0
    refused: int = 0  # repairs for which there was no legal place
    lost: int = 0  # stripes that fewer than k disks hold
    unreadable: int = 0  # times that fewer than k holders of a stripe lived
    crowded: int = 0  # times that a region stored enough to rebuild
    surplus: int = 0  # copies beside n at the end
    short: int = 0  # stripes that miss a shard at the end
    margin_worst: int = 99


class Month:
    """One run. `run` may be called once."""

    def __init__(self, params: MonthParams, seed: int) -> None:
        self._params = params
        self._rng = Random(seed)
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.told = Told()
        self._all = {node.node: node for node in map(self._node, range(params.nodes))}
        self._live: dict[NodeId, Candidate] = {NodeId(node): one for node, one in self._all.items()}
        self._gone: set[NodeId] = set()
        self._down_since: dict[NodeId, float] = {}
        self._dark: frozenset[NodeId] = frozenset()
        self._stripes = [self._stripe(number) for number in range(params.stripes)]
        self._on: dict[NodeId, set[int]] = {node: set() for node in self._live}
        for number, stripe in enumerate(self._stripes):
            for node in stripe.disks:
                self._on[node].add(number)

    def _node(self, number: int) -> Candidate:
        digest = self._rng.randbytes(32)
        return Candidate(NodeId(digest), REGIONS[number % len(REGIONS)], f"op{number % 9}")

    def _stripe(self, number: int) -> Held:
        tier, address = TIERS[number % len(TIERS)], hashlib.sha256(self._rng.randbytes(8)).digest()
        holders = place(tier, address, self._live.values())
        entries = [HolderEntry(index, one.node, 1) for index, one in holders.items()]
        return Held(address, tier, entries, {NodeId(one.node): index for index, one in holders.items()})

    # Events

    def run(self) -> Told:
        """All of it, and what it came to."""
        self._plan()
        end = self._params.days * DAY_S
        while self._heap and self._heap[0][0] <= end:
            self._now, _, event = heapq.heappop(self._heap)
            event()
        self._settle()
        return self.told

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, event))

    def _plan(self) -> None:
        rng, params = self._rng, self._params
        end = params.days * DAY_S
        names = sorted(self._live)
        for number in range(int(end / params.loss_every_s)):
            victim = rng.choice([name for name in names if name not in self._gone])
            self._gone.add(victim)
            at = (number + rng.random()) * params.loss_every_s
            self._at(at, lambda victim=victim: self._lose(victim))  # type: ignore[misc]
        for name in names:
            for day in range(int(params.days)):
                at = (day + rng.random()) * DAY_S
                self._at(at, lambda name=name: self._reboot(name))  # type: ignore[misc]
        region = rng.choice(REGIONS)
        self._at(rng.uniform(0.3, 0.6) * end, lambda: self._go_dark(region))
        self._gone.clear()

    def _lose(self, node: NodeId) -> None:
        self.told.losses += 1
        self._gone.add(node)
        for number in self._on[node]:
            self._stripes[number].disks.pop(node, None)
        if node in self._live:
            self._down(node)

    def _reboot(self, node: NodeId) -> None:
        if node in self._live and not self._dark:
            self.told.reboots += 1
            self._down(node)
            self._at(self._now + self._rng.expovariate(1 / self._params.reboot_s), lambda: self._up(node))

    def _go_dark(self, region: str) -> None:
        nodes = [node for node, one in sorted(self._live.items()) if one.region == region]
        self._dark = frozenset(nodes)
        for node in nodes:
            self._down(node)
        self._at(self._now + self._params.dark_s, self._lights_on)

    def _lights_on(self) -> None:
        nodes, self._dark = self._dark, frozenset()
        for node in sorted(nodes):
            self._up(node)

    def _down(self, node: NodeId) -> None:
        del self._live[node]
        self._down_since[node] = self._now
        for number in sorted(self._on[node]):
            self._watch(self._stripes[number])
        began = self._now
        self._at(self._now + self._params.detect_s, lambda: self._notice(node, began))

    def _notice(self, node: NodeId, began: float) -> None:
        if self._down_since.get(node) == began:
            for number in sorted(self._on[node]):
                self._look(number)

    def _up(self, node: NodeId) -> None:
        if node in self._gone or node in self._live:
            return
        self._live[node] = self._all[node]
        del self._down_since[node]
        for number in sorted(self._on[node]):
            self._look(number)
        self._at(self._now + self._params.trim_s, lambda: self._trim(node))

    # Repair

    def _steward(self, stripe: Held) -> NodeId | None:
        holders = [node for node in stripe.disks if node in self._live]
        return min(holders, key=lambda node: distance(node, stripe.address), default=None)

    def _look(self, number: int) -> None:
        """Judge a stripe as its nearest live holder does; when it must act, it will."""
        stripe = self._stripes[number]
        steward = self._steward(stripe)
        if steward is None:
            return
        stripe.index = stripe.disks[steward]
        seen = health(stripe, stripe.tier, self._live, steward)
        stripe.since = {index: stripe.since.get(index, self._now) for index in seen.missing}
        if stripe.since:
            due = due_at(min(stripe.since.values()), 0, stripe.tier.hold_off_s, seen.margin)
            if due > self._now:
                self._at(due, lambda: self._look(number))
            else:
                self._repair(number, stripe, steward)

    def _repair(self, number: int, stripe: Held, steward: NodeId) -> None:
        seen = health(stripe, stripe.tier, self._live, steward)
        if seen.margin < 0:
            return
        taken = {index: self._live[nodes[0]] for index, nodes in seen.live.items()}
        counted = {one.node for one in taken.values()}
        kept = [(index, self._all[node]) for node, index in stripe.disks.items() if node not in counted]
        named = {entry.node for entry in stripe.entries}
        added: dict[int, NodeId] = {}
        for index in seen.missing:
            free = [one for one in self._live.values() if one.node not in counted | named]
            try:
                holder = replacement(stripe.tier, stripe.address, free, taken, index, kept)
            except LockboxError:
                self.told.refused += 1
                continue
            taken[index] = holder
            counted.add(holder.node)
            added[index] = NodeId(holder.node)
        stripe.entries = table_with(stripe.entries, self._live, added)
        gone = {index for index in added if index not in stripe.disks.values()}
        for index, node in added.items():
            stripe.disks[node] = index
            self._on[node].add(number)
            stripe.since.pop(index, None)
        self.told.moved += len(added)
        self.told.moved_for_losses += len(gone)
        self._watch(stripe)

    def _trim(self, node: NodeId) -> None:
        """What others hold in its place goes from a holder that came back a while ago."""
        if node not in self._live:
            return
        for number in sorted(self._on[node]):
            stripe = self._stripes[number]
            live = Counter(index for holder, index in stripe.disks.items() if holder in self._live)
            index = stripe.disks.get(node)
            if index is not None and live[index] > 1 and len(live) == stripe.tier.n and self._is_younger(stripe, node):
                del stripe.disks[node]
                self._on[node].discard(number)
                stripe.entries = [*stripe.entries, line_of(stripe.entries, node, NO_INDEX)]
                self.told.trimmed += 1

    def _is_younger(self, stripe: Held, node: NodeId) -> bool:
        """Whether another live holder of the same index has the newer line: it was placed while this one was away."""
        mine = max(entry.sequence for entry in stripe.entries if entry.node == node)
        index = stripe.disks[node]
        others = [
            entry.sequence
            for entry in stripe.entries
            if entry.index == index and entry.node != node and stripe.disks.get(NodeId(entry.node)) == index
        ]
        return max(others, default=0) > mine

    # What must hold

    def _watch(self, stripe: Held) -> None:
        tier, told = stripe.tier, self.told
        alive = {index for node, index in stripe.disks.items() if node in self._live}
        told.margin_worst = min(told.margin_worst, len(alive) - tier.k)
        told.unreadable += len(alive) < tier.k
        told.lost += len(set(stripe.disks.values())) < tier.k
        stored: dict[str, set[int]] = {}
        for node, index in stripe.disks.items():
            stored.setdefault(self._all[node].region, set()).add(index)
        told.crowded += any(len(indices) >= tier.k for indices in stored.values())

    def _settle(self) -> None:
        for stripe in self._stripes:
            held = [index for node, index in stripe.disks.items() if node in self._live]
            self.told.surplus += len(held) - len(set(held))
            self.told.short += len(set(held)) < stripe.tier.n


def table(params: MonthParams, seed: int) -> Iterator[str]:
    """The rows of a report."""
    told = Month(params, seed).run()
    yield f"| {params.days:g} days, {params.nodes} nodes, {params.stripes:,} stripes, seed {seed} | |"
    yield "|---|---|"
    yield f"| nodes gone for good; reboots | {told.losses}; {told.reboots:,} |"
    grave = f"{told.lost}; {told.unreadable}; {told.crowded}"
    yield f"| stripes lost; times unreadable; times a region could rebuild | {grave} |"
    yield f"| worst margin of any stripe at any time | {told.margin_worst} |"
    yield f"| shards moved; of them lost with a node | {told.moved:,}; {told.moved_for_losses:,} |"
    yield f"| copies dropped by holders that came back; surplus at the end | {told.trimmed:,}; {told.surplus:,} |"
    yield f"| stripes short at the end; repairs without a place | {told.short:,}; {told.refused:,} |"
