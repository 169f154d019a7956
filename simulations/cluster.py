"""Whole nodes by name, their lives and deaths, on one hub with the latencies of their regions.

A node keeps from one life to the next what a host keeps: its disk, its certificates, its clock, the known members and
the network's documents. A life runs under a scope of its own and is told apart from a later one of the same node: a
crash cuts its network and its disk in one step, so that whatever it still does before it ends has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config, NodeSettings
from lockbox_node.core.regions import spread_regions
from lockbox_node.node import Node, Ports
from simulations import crashing
from simulations.crashing import at_step
from simulations.disk import SimDisk
from simulations.geography import Geography
from simulations.identities import FakeNetwork, Papers
from simulations.journal import MemoryJournal
from simulations.network import Hub
from simulations.world import DriftingClock, InlineWorkers, who

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.ports import StripePart
    from protocol.messages import Signed, SignedDocument
    from simulations.disk import SimStore
    from simulations.network import MemoryNetwork
    from simulations.people import Kept as Asset
    from simulations.people import Person
    from simulations.world import World

SOFTWARE = bytes(32)
REGIONS = 7
BOOTSTRAP = 3  # nodes that everybody knows from the start, unless it is told otherwise
REMEMBER_EVERY_S = 5.0  # as the daemon
LIVES_MAX = 1024  # starts that wait for their turn


@dataclass(eq=False)
class Life:
    """One run of a node's process."""

    number: int
    mark: str
    network: MemoryNetwork
    store: SimStore
    node: Node
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass(eq=False)
class Host:
    """What a node keeps. `life` is None while it does not run."""

    name: str
    papers: Papers
    region: str
    operator: str
    clock: DriftingClock
    disk: SimDisk
    remembered: Sequence[Signed] = ()
    documents: Sequence[SignedDocument] = ()
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    lives: int = 0
    life: Life | None = None

    @property
    def id(self) -> bytes:
        """Its node id."""
        return self.papers.node_id


class Cluster:
    """The hosts of a world, in the order of their names."""

    def __init__(
        self, world: World, nodes: int, config: Config | None = None, regions: int = REGIONS, seeds: int = BOOTSTRAP
    ) -> None:
        """`seeds`: how many nodes, the first ones, everybody is told of."""
        self.world, self.config = world, config or Config()
        self.seeds = seeds
        self.geography = Geography(world.rng)
        self.hub = Hub(geography=self.geography, trace=world.trace.add)
        self.authority = FakeNetwork()
        self.hosts: dict[str, Host] = {}
        self.people: list[Person] = []
        self.on_locked: Callable[[Asset, int], None] = lambda _asset, _placed: None  # in the step that told a person
        self.on_read: Callable[[StripePart], None] = lambda _part: None  # a store hands a part out
        self._lives: dict[Life, None] = {}  # those not ended, crashed ones too
        self._starting, self._starts = trio.open_memory_channel[tuple[Host, Life]](LIVES_MAX)
        names = spread_regions(regions)
        for number in range(1, nodes + 1):
            self._add(number, names[number % regions])

    def _add(self, number: int, region: str) -> None:
        name = f"node{number}"
        operator = f"operator {number}"
        papers = Papers(self.authority.node(number, operator=operator, region=region))
        clock = DriftingClock()
        disk = SimDisk(self.config.store, clock, self.world.rng(f"disk {name}"))
        self.hosts[name] = Host(name, papers, region, operator, clock, disk)
        self.geography.place(name, region)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let nodes live, for ever."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.hub.run)
            task_status.started()
            async for host, life in self._starts:
                nursery.start_soon(self._live, host, life)

    @property
    def bootstrap(self) -> list[str]:
        """Addresses that everybody knows."""
        return [f"{name}:7420" for name in list(self.hosts)[: self.seeds]]

    def living(self) -> list[Host]:
        """Hosts whose node runs."""
        return [host for host in self.hosts.values() if host.life is not None]

    def leftovers(self) -> list[str]:
        """What is still there, for who believes that all nodes and clients have ended."""
        running = [life.mark for life in self._lives]
        left = [f"{mark} runs" for mark in running]
        left += [f"{mark} left {task} behind" for mark, task in crashing.marked() if mark not in running]
        left += [f"somebody listens at {host}:{port}" for host, port in self.hub.listeners]
        return left + [f"a stream from {link.hosts[0]} to {link.hosts[1]}" for link in self.hub.links.values()]

    def start(self, name: str) -> Life:
        """Begin the next life of a node; wait for its `ready` if need be."""
        host = self.hosts[name]
        assert host.life is None, f"{name} runs"
        host.lives += 1
        mark = f"{name} {host.lives}"
        self.hub.power_on(name)
        own = f"{name}:7420"
        addresses = tuple(address for address in self.bootstrap if address != own)
        config = replace(
            self.config, node=NodeSettings(listen=own, region=host.region, bootstrap=addresses, operator="")
        )
        network = self.hub.network(name, host.papers.leaf)
        store = host.disk.open()
        store.on_read = lambda part: self.on_read(part)
        ports = Ports(network, store, InlineWorkers(), self.world.entropy(mark), host.clock, host.journal.start())
        root, rng = self.authority.root, self.world.rng(mark)
        node = Node(config, ports, host.papers, root, SOFTWARE, rng, host.remembered, store.epoch, host.documents)
        host.life = life = Life(host.lives, mark, network, store, node)
        self.world.trace.add("start", name, host.lives)
        self._lives[life] = None
        self._starting.send_nowait((host, life))
        return life

    async def start_all(self, over_s: float = 10.0) -> None:
        """Start every node, spread over some seconds, and wait until all serve."""
        lives = []
        for name in self.hosts:
            lives.append(self.start(name))
            await trio.sleep(over_s / len(self.hosts))
        for life in lives:
            await life.ready.wait()

    async def stop(self, name: str) -> None:
        """End a node in order, as SIGTERM does."""
        life = self._ending(name)
        self.world.trace.add("stop", name, life.number)
        life.node.stop.set()
        await life.ended.wait()

    def crash(self, name: str, *, power: bool = False) -> None:
        """End a node here and now, without a word: its process, or its host's power too."""
        life = self._ending(name)
        self.world.trace.add("crash", name, life.number, int(power))
        if power:
            self.hub.power_off(life.network)
            self.hosts[name].journal.lose_power()
        else:
            self.hub.kill(life.network)
        self.hosts[name].disk.crash()
        life.scope.cancel()

    def crash_at(self, name: str, step: int, *, power: bool = False) -> Callable[[], None]:
        """Crash a node before that step of its tasks, counted from now. Call what is returned to call it off."""
        life = self.hosts[name].life
        assert life is not None, f"{name} does not run"

        def crash() -> None:
            if self.hosts[name].life is life:
                self.crash(name, power=power)

        return at_step(life.mark, step, crash)

    def put_back(self, name: str, image: SimDisk) -> None:
        """Give a node that does not run another disk: an old image of its own, or an empty one."""
        assert self.hosts[name].life is None, f"{name} runs"
        self.world.trace.add("other disk", name)
        self.hosts[name].disk = image

    def hang(self, name: str) -> Callable[[], None]:
        """Nothing comes from a host or reaches it, while its node runs on. Call what is returned to let it go on."""
        return self.hub.partition([name], self.geography.hosts())

    def _ending(self, name: str) -> Life:
        host = self.hosts[name]
        assert host.life is not None, f"{name} does not run"
        life, host.life = host.life, None
        return life

    async def _live(self, host: Host, life: Life) -> None:
        who.set(host.name)
        crashing.mark.set(life.mark)
        node = life.node
        try:
            with life.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(life.store.run)
                    nursery.start_soon(self._remember, host, life)
                    nursery.start_soon(self._keep_documents, host, life)
                    async with trio.open_nursery() as running:
                        await running.start(node.run)
                        self.world.trace.add("ready", host.name, life.number)
                        life.ready.set()
                    nursery.cancel_scope.cancel()
        finally:
            self.world.trace.add("ended", host.name, life.number)
            life.ended.set()
            del self._lives[life]
            if host.life is life:
                host.life = None

    async def _remember(self, host: Host, life: Life) -> None:
        while True:
            await trio.sleep(REMEMBER_EVERY_S)
            host.remembered = life.node.membership.records()

    async def _keep_documents(self, host: Host, life: Life) -> None:
        documents = life.node.documents
        while True:
            changed = documents.changed
            host.documents = documents.all()
            await changed.wait()


def agreed(cluster: Cluster) -> bool:
    """Whether every running node sees all running nodes, and no other, alive."""
    living = {host.id for host in cluster.living()}
    return all(
        {*host.life.node.machine.alive(), host.id} == living for host in cluster.living() if host.life is not None
    )
