"""A few whole Nodes in far regions whose stores outlive them: lives of a holder that goes, comes back, is restored."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from lockbox_node.config import Config
from lockbox_node.core.reconcile import ReconcileParams
from lockbox_node.core.regions import spread_regions
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.errors import RequestRefused
from lockbox_node.ports import SlotView, settled
from lockbox_node.rpc.pool import Contact
from protocol.ids import NodeId
from tests.fakes.memory_store import BreakingStore
from tests.fakes.nodes import Town
from tests.fakes.stripes import OWNER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from lockbox_node.node import Node
    from lockbox_node.ports import StripePart
    from protocol.messages import Message

T = TypeVar("T")
QUICK = Config(
    repair=RepairParams(hold_off_s=30, sweep_s=60, request_timeout_s=2, lost_hold_s=1),
    reconcile=ReconcileParams(first_s=3, every_s=200, retry_s=5),
    guard=GuardParams(lost_share=0.9),
)


@dataclass
class Hamlet:
    """Nodes 1 to `count`; `nodes` are those that run."""

    count: int = 8
    config: Config = QUICK
    town: Town = field(default_factory=Town)
    nodes: dict[int, Node] = field(default_factory=dict)
    lives: int = 0

    def __post_init__(self) -> None:
        self.ids = [NodeId(bytes(32)), *(self.town.papers(number).node_id for number in range(1, self.count + 1))]
        self.stores = {number: self.empty_store() for number in range(1, self.count + 1)}
        self._scopes: dict[int, trio.Event] = {}

    def empty_store(self) -> BreakingStore:
        """A disk with nothing on it."""
        return BreakingStore(self.config.store, self.town.clock)

    @asynccontextmanager
    async def running(self, *numbers: int) -> AsyncIterator[trio.Nursery]:
        """These nodes (all, when none is named), started and acquainted."""
        async with trio.open_nursery() as nursery:
            for number in numbers or range(1, self.count + 1):
                await self.start(nursery, number)
            await trio.sleep(5)
            yield nursery
            for number in list(self.nodes):
                await self.end(number)

    async def start(self, nursery: trio.Nursery, number: int) -> Node:
        """A new life of node `number` over its store."""
        self.lives += 1
        others = [other for other in self.nodes if other != number][:3]
        region = spread_regions(7)[number % 7]
        node = self.town.node(
            number, others, store=self.stores[number], base=self.config, region=region, epoch=self.lives
        )
        self.nodes[number] = node
        self._scopes[number] = trio.Event()
        await nursery.start(self._run, number, node)
        return node

    async def _run(self, number: int, node: Node, *, task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as own:
            task_status.started(await own.start(node.run))
        self._scopes[number].set()

    async def end(self, number: int) -> None:
        """Stop a node and wait until it is gone."""
        self.nodes.pop(number).stop.set()
        await self._scopes[number].wait()

    async def keep(self, parts: Sequence[StripePart], *but: int) -> None:
        """Put each part at its holder; those in `but` miss it."""
        for part in parts:
            number = self.ids.index(NodeId(part.entries[part.index].node))
            if number not in but:
                await settled(partial(self.stores[number].put, part, (), OWNER))

    async def look(self, number: int, address: bytes) -> SlotView:
        """What stands at an address there."""
        return await settled(partial(self.stores[number].look, address))  # type: ignore[arg-type]

    def holders(self, *numbers: int) -> list[bytes]:
        """Ids of nodes, as a table of holders."""
        return [self.ids[number] for number in numbers]

    def contact(self, number: int) -> Contact:
        """Where a node stands."""
        return Contact(self.ids[number], (f"node{number}:7420",))

    async def ask(self, number: int, message: Message) -> Message:
        """Ask a node as a client. RequestRefused."""
        outcome: Message | RequestRefused
        async with self.town.asker(self.town.authority.client(1)) as pool:
            try:
                outcome = await pool.request(self.contact(number), message)
            except RequestRefused as refusal:
                outcome = refusal
        if isinstance(outcome, RequestRefused):
            raise outcome
        return outcome


def with_reconcile(**changes: float) -> Config:
    """The quick configuration with other settings of the comparison."""
    return replace(QUICK, reconcile=replace(QUICK.reconcile, **changes))  # type: ignore[arg-type]
