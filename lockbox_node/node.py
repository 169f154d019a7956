"""The composition root of a node: which machine gets which ports, and in which order things start and stop.

Infrastructure (store, pool, server, membership) outlives work (healing, pointers), so that work can end over a living
network: repairs under way end first, then the other work, a farewell goes to the members, and the rest ends. All that
is real comes in through `Ports`; the same class runs in a seeded simulation. Why this order: STYLE, trio.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.config import Config, host_port
from lockbox_node.core.member_events import MemberAlive, MemberDead
from lockbox_node.core.membership import Membership
from lockbox_node.core.policy import Governed
from lockbox_node.core.repair import Guard
from lockbox_node.core.routing_table import RoutingTable
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.pool import Pool
from lockbox_node.rpc.server import Server
from lockbox_node.services.announcing import Announcer, NodeState, Operational, Standing, free_tenths
from lockbox_node.services.approaching import Approaching
from lockbox_node.services.audit_rounds import AuditRounds
from lockbox_node.services.auditing import auditing_of
from lockbox_node.services.comparing import Comparing
from lockbox_node.services.discovery import Discovery, contacts_of
from lockbox_node.services.documents import DocumentService
from lockbox_node.services.enforcing import Enforcing
from lockbox_node.services.granting import Granting, around_of
from lockbox_node.services.healing import Healing
from lockbox_node.services.lookups import Lookups
from lockbox_node.services.measuring import Measuring
from lockbox_node.services.membership import MembershipService
from lockbox_node.services.pointers import PointerSpreader
from lockbox_node.services.rejoining import Rejoining
from lockbox_node.services.storage import Storage
from lockbox_node.services.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.ports import Entropy, Journal, Network, ShardStore, WallClock, Workers
    from protocol.certificates import NetworkRoot
    from protocol.messages import Signed, SignedDocument

log = structlog.get_logger()

CHANGES_MAX = 4096  # member changes waiting for healing; what does not fit is found by the sweep
STOP_GRACE_S = 5.0
FAREWELL_S = 1.0
INSTANCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Ports:
    """The world below the seam."""

    network: Network
    store: ShardStore
    workers: Workers
    entropy: Entropy
    clock: WallClock
    journal: Journal


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
        epoch: int = 1,
        documents: Sequence[SignedDocument] = (),
    ) -> None:
        """`epoch` is the store's: above that of every earlier life of this node; `documents` are what it kept."""
        own = identity.node_id
        self.config, self.store, self.stop = config, ports.store, trio.Event()
        ports.entropy.fill(instance := bytearray(INSTANCE_BYTES))
        capacity_bytes, addresses = config.store.capacity_bytes, (config.node.advertised,)
        standing = Standing(addresses, config.node.region, capacity_bytes, software, epoch, bytes(instance))
        free = partial(free_tenths, ports.store, capacity_bytes)
        self.announcer = Announcer(identity, root, standing, ports.clock, free)
        self.machine = Membership(own, config.membership, Random(rng.getrandbits(64)))
        self.discovery = discovery = Discovery(self.announcer, self.machine, RoutingTable(own, config.routing))
        self.guard, self.dispatcher = Guard(config.guard), Dispatcher(config.admission)
        self.pool = Pool(ports.network, self.announcer, self.dispatcher)
        given = (ports.store, self.pool, discovery, ports.workers, ports.clock, config)
        self.rejoining = Rejoining(*given, Random(rng.getrandbits(64)))
        self.lookups = Lookups(self.pool, root, own, ports.clock.now_unix_s, config.lookup)
        approach = Approaching(self.lookups, discovery, lambda: self.membership).approach
        near, learn = discovery.nearest_contacts, self.rejoining.lessons.take
        self.pointers = PointerSpreader(own, self.pool, near, ports.store, learn, config.storage, approach)
        bootstrap = [host_port(peer, "node.bootstrap") for peer in config.node.bootstrap]
        changes_send, changes = trio.open_memory_channel[MemberDead | MemberAlive](CHANGES_MAX)
        parts, now_unix_s = (self.machine, self.announcer, discovery, self.pool), ports.clock.now_unix_s
        told = (changes_send, now_unix_s, self.pointers.on_joined, remembered)
        self.membership = MembershipService(*parts, bootstrap, *told)
        nearest, nearest_nodes, on_stored = discovery.nearest, discovery.nearest_nodes, self.pointers.on_stored
        around = around_of(discovery, lambda: self.dispatcher.rules)
        self.granting = Granting(identity, root, around, ports.clock, ports.journal)
        kept = (ports.store, own, ports.clock, nearest, nearest_nodes, on_stored, self.granting.redeeming)
        self.storage = Storage(*kept, config.storage, self.rejoining.unconfirmed, self.rejoining.mender.gives_away)
        self.comparing = Comparing(ports.store, own, ports.clock, nearest_nodes, self.rejoining, config.storage)
        self.healing = Healing(ports.store, discovery, *self.rejoining.menders, config.repair, self.guard, changes)
        self.draining = self.rejoining.repair_with(self.healing, self.membership.set_state, identity)
        judging = (ports.store, self.pool, discovery, self.rejoining.tell, ports.entropy, now_unix_s, self.healing)
        self.rounds = AuditRounds(*judging, self.rejoining.unconfirmed, rng.random(), config.audit)
        ports.store.on_broken, self.storage.closed = self._on_broken, lambda: self.draining.active
        self.upkeep = Upkeep(ports.store, self.pool, ports.clock, config, Random(rng.getrandbits(64)))
        self.pool.on_lost, self.pool.on_same = self.membership.connection_lost, self.membership.met_same
        self.measuring = Measuring(*parts[1:], now_unix_s, ports.entropy, Random(bytes(instance)), config.measuring)
        seen = (lambda: self.measuring.judgement), (lambda: self.dispatcher.rules)
        self.auditing = auditing_of(identity, epoch, around, ports, self.pool, discovery, self.machine, seen, approach)
        services = (self.membership, discovery, self.storage, self.comparing, self.measuring, self.granting)
        self.dispatcher.add(*(route for service in (*services, self.auditing) for route in service.routes()))
        self.server = Server(ports.network, self.pool, self.announcer, self.dispatcher)
        self._known = bootstrap, contacts_of(remembered)
        self.documents = self._obeying(root, now_unix_s, Random(rng.getrandbits(64)), documents)

    def _obeying(
        self, root: NetworkRoot, now_unix_s: Callable[[], float], rng: Random, kept: Sequence[SignedDocument]
    ) -> DocumentService:
        """The network's documents, and everybody here who goes by them."""
        told = (self.dispatcher, self.pool, self.server, self.membership, self.healing, self.guard)
        governed = Governed(self.config.repair, self.config.guard, self.config.audit)
        enforcing = Enforcing(self.announcer.id, now_unix_s, *told, self.storage, self.measuring, self.rounds, governed)
        documents = DocumentService(root, self.pool, self.discovery, rng, kept, enforcing.obey)
        self.discovery.go_by(lambda: documents.rules, now_unix_s)
        self.discovery.excluded = lambda: {*self.measuring.excluded(), *self.rounds.excluded()}
        self.discovery.outvoted, self.discovery.unproven = self.measuring.outvoted, self.rounds.findings.at
        exchanging = self.membership.exchanging
        exchanging.documents, exchanging.on_documents = documents.versions, documents.heard
        self.dispatcher.add(*documents.routes())
        return documents

    @property
    def joined(self) -> bool:
        """Whether another node was reached since the start, or none is needed."""
        return self.membership.joined.is_set()

    def _on_broken(self, why: str) -> None:
        """The store is read-only until a restart: it refuses puts itself, and our siblings take over what we hold."""
        log.error("store.broken", reason=why)
        self.membership.set_state(NodeState.DRAINING)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`, which may be set at any time; started with the port when everything serves.

        Superseded, at once and in a group, when a later life of this node runs elsewhere.
        """
        async with trio.open_nursery() as infrastructure:
            await infrastructure.start(self.pool.run)
            await infrastructure.start(self.documents.run)
            self.dispatcher.serving = False  # what was said while we were away counts before we serve
            await self.documents.catch_up(*self._known)
            self.dispatcher.serving = True
            port = await infrastructure.start(self.server.run)
            await self._join(infrastructure)
            async with trio.open_nursery() as work:
                for service in (self.pointers, self.rejoining, self.upkeep, self.measuring, self.rounds):
                    await work.start(service.run)
                async with trio.open_nursery() as repairs:
                    await repairs.start(self.healing.run)
                    task_status.started(port)
                    await self.stop.wait()
                    self._end_repairs()
                    repairs.cancel_scope.deadline = trio.current_time() + STOP_GRACE_S
                work.cancel_scope.cancel()
            with trio.move_on_after(FAREWELL_S):
                await self.membership.leave()
            infrastructure.cancel_scope.cancel()

    async def _join(self, infrastructure: trio.Nursery) -> None:
        """Start membership, which tries to join first; a stop meanwhile cuts that."""
        async with trio.open_nursery() as attempt:
            attempt.start_soon(self._cut_by_stop, attempt.cancel_scope)
            await infrastructure.start(self.membership.run)
            self.membership.set_state(self.draining.state)
            attempt.cancel_scope.cancel()

    async def _cut_by_stop(self, scope: trio.CancelScope) -> None:
        await self.stop.wait()
        scope.cancel()

    def _end_repairs(self) -> None:
        """Repairs under way may end, within the grace; no other begins."""
        self.healing.pause()
        self.membership.stop_publishing()
