"""How a holder that lost, missed or kept something wrong comes right again: what is told and learned, wired together.

`Mender` brings own parts back, `Lessons` takes in what others know better, `Reconciler` compares with the siblings, so
that either finds out, `Trimming` gives up a copy that is one too many, `Draining` all of them. They share one way of
asking (`Sources`), which the rebuilder of others' parts uses too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.errors import LockboxError
from lockbox_node.services.draining import Draining
from lockbox_node.services.lessons import Lessons
from lockbox_node.services.mending import Mender
from lockbox_node.services.rebuilding import Rebuilder
from lockbox_node.services.reconciling import Reconciler
from lockbox_node.services.sources import MembersView, Requests, Sources
from lockbox_node.services.trimming import Trimming
from lockbox_node.services.yielding import Yielder
from protocol.errors import RemoteProtocolError
from protocol.messages import TellHolders, Told

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from lockbox_node.config import Config
    from lockbox_node.ports import ShardStore, WallClock, Workers
    from lockbox_node.services.announcing import NodeState, Operational
    from lockbox_node.services.healing import Healing
    from protocol.ids import Address, DescriptorHash, NodeId
    from protocol.messages import HolderTable

log = structlog.get_logger()


class Rejoining:
    """The services of one node; `run` serves them all."""

    def __init__(
        self,
        store: ShardStore,
        pool: Requests,
        members: MembersView,
        workers: Workers,
        clock: WallClock,
        config: Config,
        rng: Random,
    ) -> None:
        self._store = store
        self._clock = clock
        self.trimming: Trimming | None = None  # once there is somebody to repair with
        self._draining: Draining | None = None
        self._healing: Healing | None = None
        sources = Sources(pool, members, workers, config.repair)
        self.lessons = Lessons(store, sources, clock)
        self.mender = Mender(store, sources, clock)
        self.rebuilder = Rebuilder(store, sources, clock)
        self.reconciler = Reconciler(store, sources, self.lessons, self.mender, config.reconcile, rng)

    @property
    def menders(self) -> tuple[Rebuilder, Mender]:
        """Those who bring back what others lost, and what we did."""
        return self.rebuilder, self.mender

    def repair_with(self, healing: Healing, announce: Callable[[NodeState], None], identity: Operational) -> Draining:
        """What is found damaged or missing here goes to `healing`, which says when it is mended.

        Returns what empties this node, when the operator wants that; `announce` makes our state known.
        """
        self._healing = healing
        yielder = Yielder(self._store, self.mender)
        self.trimming = Trimming(self._store, yielder, self.mender.sources.members, self._clock, healing)
        self._store.on_corrupt = self._on_corrupt
        self._store.on_lost = self._on_lost
        params = self.mender.sources.params
        self._draining = Draining(self._store, self, healing, announce, identity, self._clock, params)
        return self._draining

    def _on_corrupt(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        self.mender.report(address, descriptor_hash)
        if self._healing is not None:
            self._healing.sweep_soon()

    def _on_lost(self, lost: int) -> None:
        """The store was rebuilt after damage: what it lost without a name shows when the siblings are asked."""
        log.error("store.salvaged", lost=lost)
        self.reconciler.lost()
        if self._healing is not None:
            self._healing.sweep_soon()

    def on_differing(self, node: NodeId) -> None:
        """A sibling that compared itself with us keeps something else than we do."""
        self.reconciler.differs(node)

    def on_missing(self, table: HolderTable) -> None:
        """A sibling told of a part that should be here and is not."""
        self.reconciler.missing()
        if self._healing is not None:
            self._healing.missing(table)

    async def tell(self, node: NodeId, table: HolderTable) -> None:
        """Tell a node what it should hold, and learn what it knows better. Silence is no obstacle."""
        try:
            reply = await self.mender.sources.ask(node, TellHolders([table], None))
        except (LockboxError, RemoteProtocolError) as error:
            log.info("rejoining.tell_failed", node=node.hex()[:8], reason=str(error.code))
            return
        assert isinstance(reply, Told), "the codec checked the type of the reply"
        self.lessons.take(reply, [table], node)

    def unconfirmed(self) -> bool:
        """Whether this node was restored and is still asking its siblings."""
        return self.reconciler.unconfirmed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.lessons.run)
            await nursery.start(self.mender.run)
            await nursery.start(self.reconciler.run)
            if self.trimming is not None and self._draining is not None:
                await nursery.start(self.trimming.run)
                await nursery.start(self._draining.run)
            task_status.started()
