"""Lookups side by side with the `kademlia` package's own: `python -m benchmarks.lookups [--lookups 100]`.

Both sides get one network of one seed: the same nodes, contacts, dead, colluders, askers and targets; the package with
its own routing table, crawler and heap, its ids being the first 160 bits of ours (it knows no others), which keeps the
order of distances. Ours asks each peer for 32 contacts, the package for its k. Its calls answer at once, so its time is
not told. CPU is of one simulated lookup with everything: who asks, who answers, and the truth to compare with.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kademlia.crawling import NodeSpiderCrawl
from kademlia.node import Node
from kademlia.routing import RoutingTable

from lockbox_node.core.lookup import LookupParams
from protocol.ids import ID_BYTES, NodeId
from simulations.swarm import Outcome, Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE_ID_BYTES = 20
PACKAGE_ALPHA = 3
ROWS = (
    (100, 0.0, 0.0),
    (100, 0.2, 0.0),
    (1000, 0.0, 0.0),
    (1000, 0.2, 0.0),
    (1000, 0.0, 0.2),
    (1000, 0.0, 0.4),
    (10_000, 0.0, 0.0),
    (10_000, 0.2, 0.0),
)


@dataclass
class Package:
    """The package over the contacts of a swarm; it is the protocol object that its tables and crawlers ask."""

    swarm: Swarm
    messages: int = 0

    def __post_init__(self) -> None:
        self._tables: dict[bytes, RoutingTable] = {}
        self._long = {node[:PACKAGE_ID_BYTES]: node for node in self.swarm.nodes}
        assert len(self._long) == len(self.swarm.nodes)

    def table(self, node: NodeId) -> RoutingTable:
        """The package's routing table of `node`, fed with the contacts that ours was fed with."""
        if node not in self._tables:
            table = self._tables[node] = RoutingTable(self, self.swarm.k, self.node(node))
            for other in self.swarm.contacts(node):
                table.add_contact(self.node(other))
        return self._tables[node]

    @staticmethod
    def node(node: bytes) -> Node:
        """The package's node of one of ours."""
        return Node(node[:PACKAGE_ID_BYTES], "10.0.0.1", 1)

    async def call_ping(self, _node: Node) -> tuple[bool, object]:
        """A full bucket's oldest, which the package pings and then leaves where it is."""
        return True, None

    async def call_find_node(self, peer: Node, target: Node) -> tuple[bool, list[tuple[bytes, str, int]] | None]:
        """One query, answered as the swarm answers; the honest by the package's own table."""
        self.messages += 1
        node = self._long[peer.id]
        if node in self.swarm.dead:
            return False, None
        if node in self.swarm.colluders:
            full = target.id + bytes(ID_BYTES - PACKAGE_ID_BYTES)
            gang = self.swarm.answer(node, full, self.swarm.k) or []
            return True, [(one[:PACKAGE_ID_BYTES], "10.0.0.1", 1) for one in gang]
        return True, [tuple(one) for one in self.table(node).find_neighbors(target)]

    async def look_up(self, asker: NodeId, target: bytes) -> Outcome:
        """One lookup by the package's crawler."""
        self.messages = 0
        goal = self.node(target)
        seeds = self.table(asker).find_neighbors(goal)
        found = await NodeSpiderCrawl(self, goal, seeds, self.swarm.k, PACKAGE_ALPHA).find()
        ids = {self._long[one.id] for one in found}
        wanted = [node for node in self.swarm.nearest(target) if node != asker]
        honest = [node for node in wanted if node not in self.swarm.colluders]
        return Outcome(
            recall=sum(node in ids for node in wanted) / len(wanted),
            dead=len(ids & self.swarm.dead),
            honest=not honest or any(node in ids for node in honest),
            hops=0,
            messages=self.messages,
            took_s=0.0,
        )


def cells(outcomes: list[Outcome], cpu_s: float) -> str:
    """The columns of one side."""
    hops = [one.hops for one in outcomes]
    hop_cell = f"{statistics.fmean(hops):.2f} ({max(hops)})" if any(hops) else "-"
    messages = [one.messages for one in outcomes]
    return " | ".join(
        (
            f"{statistics.fmean(one.recall for one in outcomes):.4f}",
            f"{100 * statistics.fmean(one.recall == 1.0 for one in outcomes):.1f}",
            f"{sum(one.dead for one in outcomes) / len(outcomes):.2f}",
            f"{100 * statistics.fmean(one.honest for one in outcomes):.1f}",
            hop_cell,
            f"{statistics.fmean(messages):.1f} ({max(messages)})",
            f"{1000 * cpu_s / len(outcomes):.2f}",
        )
    )


def rows(count: int, dead: float, colluding: float, lookups: int, seed: int) -> Iterator[str]:
    """Both sides of one network. Every lookup runs twice and the second is timed: by then all tables are made."""
    swarm = Swarm(count, seed, dead, colluding)
    what = f"{count:,} | {100 * dead:.0f} | {100 * colluding:.0f}"
    sides = {"one path": LookupParams(paths=1), "two paths": LookupParams()}
    for name, params in sides.items():
        swarm.run(lookups, params)
        start = time.process_time()
        outcomes = swarm.run(lookups, params)
        yield f"| {what} | ours, {name} | {cells(outcomes, time.process_time() - start)} |"
    if colluding:
        swarm.run(lookups, retry=True)
        start = time.process_time()
        outcomes = swarm.run(lookups, retry=True)
        yield f"| {what} | ours, two paths, four on retry | {cells(outcomes, time.process_time() - start)} |"
    package_outcomes, cpu_s = asyncio.run(by_package(swarm, lookups))
    yield f"| {what} | kademlia | {cells(package_outcomes, cpu_s)} |"


async def by_package(swarm: Swarm, lookups: int) -> tuple[list[Outcome], float]:
    """The package's lookups of the same targets by the same askers, and their CPU seconds."""
    package, asked = Package(swarm), swarm.questions(lookups)
    for asker, target in asked:
        await package.look_up(asker, target)
    start = time.process_time()
    outcomes = [await package.look_up(asker, target) for asker, target in asked]
    return outcomes, time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lookups", type=int, default=100)
    parser.add_argument("--nodes-max", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    for line in table(options.lookups, options.nodes_max, options.seed):
        print(line, flush=True)


def table(lookups: int, nodes_max: int, seed: int) -> Iterator[str]:
    """Every row of both sides, up to networks of `nodes_max`."""
    yield (
        "| nodes | dead % | colluders % | lookup | recall | exact % | dead in result | honest found % | hops (max) "
        "| messages (max) | CPU ms |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for count, dead, colluding in ROWS:
        if count <= nodes_max:
            yield from rows(count, dead, colluding, lookups, seed)


if __name__ == "__main__":
    main()
