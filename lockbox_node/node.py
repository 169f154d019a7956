"""The composition root of a node: which machine gets which ports, and in which order things start and stop.

Infrastructure (store, pool, server, membership) outlives work (healing, pointers), so that work can end over a living
network: work first, then a farewell to the members, then the rest. Everything real comes in through `Ports`; the same
class runs in a seeded simulation. Stop order and why nobody cancels from outside: STYLE, trio.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config, host_port
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.membership import Membership
from lockbox_node.core.repair import Guard
from lockbox_node.core.routing_table import RoutingTable
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.pool import Pool
from lockbox_node.rpc.server import Server
from lockbox_node.services.announcing import Announcer, NodeState, Operational, Standing
from lockbox_node.services.discovery import Discovery
from lockbox_node.services.healing import Healing
from lockbox_node.services.membership import MembershipService
from lockbox_node.services.pointers import PointerSpreader
from lockbox_node.services.rebuilding import Rebuilder
from lockbox_node.services.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.ports import Entropy, Network, ShardStore, WallClock, Workers
    from protocol.certificates import NetworkRoot
    from protocol.messages import Signed

CHANGES_MAX = 4096  # member changes waiting for healing; what does not fit is found by the sweep
STOP_GRACE_S = 5.0
FAREWELL_S = 1.0


@dataclass(frozen=True, slots=True)
class Ports:
    """The world below the seam."""

    network: Network
    store: ShardStore
    workers: Workers
    entropy: Entropy
    clock: WallClock


class Node:
    """One node, wired. `run` until `stop` is set."""

    def __init__(
        self,
        config: Config,
        ports: Ports,
        identity: Operational,
        root: NetworkRoot,
        software: bytes,
        rng: Random,
        remembered: Sequence[Signed] = (),
    ) -> None:
        own = identity.node_id
        self.config = config
        self.store = ports.store
        self.stop = trio.Event()
        address = config.node.advertise or config.node.listen
        standing = Standing((address,), config.node.region, config.store.capacity_bytes, software)
        self.announcer = Announcer(identity, root, standing, ports.clock)
        self.machine = Membership(own, config.membership, Random(rng.getrandbits(64)))
        self.discovery = Discovery(self.announcer, self.machine, RoutingTable(own, config.routing))
        self.guard = Guard(config.guard)
        self.dispatcher = Dispatcher(config.admission)
        self.pool = Pool(ports.network, self.announcer, self.dispatcher)
        changes_send, changes = trio.open_memory_channel[MemberDead | MemberAlive](CHANGES_MAX)
        bootstrap = [host_port(peer, "node.bootstrap") for peer in config.node.bootstrap]
        self.membership = MembershipService(
            self.machine,
            self.announcer,
            self.discovery,
            self.pool,
            bootstrap,
            changes_send,
            ports.clock.now_unix_s,
            remembered,
        )
        discovery = self.discovery
        self.pointers = PointerSpreader(own, self.pool, discovery.nearest_contacts, ports.store, config.storage)
        self.storage = Storage(
            ports.store,
            own,
            ports.clock,
            discovery.nearest,
            discovery.nearest_nodes,
            self.pointers.on_stored,
            config.storage,
        )
        rebuilder = Rebuilder(ports.store, self.pool, discovery, ports.workers, config.repair)
        self.healing = Healing(ports.store, discovery, rebuilder, config.repair, self.guard, changes)
        ports.store.on_corrupt = lambda _address, _descriptor_hash: self.healing.sweep_soon()
        self.dispatcher.add(*self.membership.routes(), *self.discovery.routes(), *self.storage.routes())
        self.server = Server(ports.network, self.pool, self.announcer, self.dispatcher)

    @property
    def joined(self) -> bool:
        """Whether anybody else is known, or nobody else is needed."""
        return self.membership.joined.is_set()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`; started with the port when everything serves."""
        async with trio.open_nursery() as infrastructure:
            await infrastructure.start(self.pool.run)
            port = await infrastructure.start(self.server.run)
            await infrastructure.start(self.membership.run)
            self.membership.set_state(NodeState.ACTIVE)
            async with trio.open_nursery() as work:
                await work.start(self.pointers.run)
                await work.start(self.healing.run)
                task_status.started(port)
                await self.stop.wait()
                work.cancel_scope.deadline = trio.current_time() + STOP_GRACE_S
                work.cancel_scope.cancel()
            with trio.move_on_after(FAREWELL_S):
                await self.membership.leave()
            infrastructure.cancel_scope.cancel()
