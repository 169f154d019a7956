"""A test network that runs: its plan, its directory, its daemons.

Node i is called n01, n02, ... and listens on 127.1.i.1; regions and operators are dealt in turn. One authority signs
all; one client certificate lies beside it. The process that runs `up` owns every daemon: a daemon killed from outside
is simply down until somebody restarts it, and none outlives `up`, however that ends. The verbs: `cli.verbs`.
"""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.observe import logging  # before whatever imports structlog: it loads it without rich

# isort: split

from lockbox_node import control
from lockbox_node.adapters.document_files import save_documents
from lockbox_node.cli.authority import create_authority, create_client, create_node, issue, open_authority
from lockbox_node.cli.processes import Daemon
from lockbox_node.cli.publishing import hand_over
from lockbox_node.cli.short_times import shortened
from lockbox_node.cli.signing import FOLDER, Signing, check_setting
from lockbox_node.config import Config, NodeSettings, host_port
from lockbox_node.core.regions import BUILT_IN, spread_regions
from lockbox_node.errors import LockboxError, PeerUnreachable, UsageError
from lockbox_node.observe.watch import AWAIT_PER_NODE_S, AWAIT_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from lockbox_node.cli.delays import Delays
    from lockbox_node.cli.partitions import Partition

STATE_NAME = "testnet.json"
PARTING_NAME = "partition.json"  # what the daemons drop; there while a partition stands
LATENCY_NAME = "latency.json"  # how far apart all are; there when they are
PORT_FIRST, PORT_STEP, PORTS = 7420, 10, 100  # one port of these for all nodes; HTTP is the next one
NODES_MAX = 250  # node i listens on 127.1.i.1
REGIONS_DEFAULT = 7
OPERATORS_MIN = 5
BOOTSTRAP_NODES = 7
KNOWN_TIMEOUT_S = 10.0  # longer than a node waits itself, which then says who is missing
STARTS_AT_ONCE = 8
OBEY_TIMEOUT_S = 15.0  # for a running node to have the documents that another was given
END_TIMEOUT_S = 30.0  # all daemons together, after which they go as we go
BALLAST_BYTES = 1 << 20  # many nodes share one disk


@dataclass(frozen=True, slots=True)
class TestnetPlan:
    """What `up` was asked for."""

    __test__ = False
    nodes: int
    directory: Path
    regions: tuple[str, ...]
    operators: int
    config: Config
    policy: tuple[str, ...] = ()  # KEY=VALUE, signed by the authority of the network
    delays: Delays | None = None  # None: all are in one place, whatever they claim

    @classmethod
    def of(cls, nodes: int, directory: Path, regions: str, *, real_times: bool, policy: tuple[str, ...]) -> TestnetPlan:
        """Check the words of the command line. UsageError says what is wrong."""
        names = tuple(regions.split(",")) if regions else tuple(spread_regions(REGIONS_DEFAULT))
        for name in names:
            if name not in BUILT_IN:
                raise UsageError(f"{name!r} is not a region", f"known: {', '.join(BUILT_IN.regions)}")
        config = Config()
        config = replace(config, store=replace(config.store, ballast_bytes=BALLAST_BYTES))
        if not real_times:
            config = shortened(config, measured="location=measured" in policy)
        for word in policy:
            key, _, value = word.partition("=")
            check_setting(key, value)
        return cls(nodes, directory, names, max(OPERATORS_MIN, len(names)), config, policy)


@dataclass(slots=True)
class Member:
    """One node of the network: its daemon and what is known of it."""

    name: str
    node_id: str
    address: str
    http: str
    region: str
    operator: str
    data: Path
    daemon: Daemon = field(repr=False)

    @property
    def host(self) -> str:
        """The address that it listens on, and dials from."""
        return host_port(self.address, "address")[0]

    async def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Ask the running daemon. LockboxError, PeerUnreachable."""
        return await control.ask(self.data / "control.sock", verb, **arguments)

    def described(self) -> dict[str, object]:
        """The line of CONTRACT's `up --json`."""
        return {
            "name": self.name,
            "id": self.node_id,
            "pid": self.daemon.pid,
            "address": self.address,
            "region": self.region,
            "operator": self.operator,
            "http": f"http://{self.http}",
            "data": str(self.data),
        }


class Testnet:
    """The running network. `run` returns when a signal ends it, with every daemon stopped."""

    __test__ = False

    def __init__(self, plan: TestnetPlan, progress: Callable[[str], None]) -> None:
        """`progress` takes words for a person who waits."""
        self.plan = plan
        self.config = plan.config  # of nodes to come
        self.members: dict[str, Member] = {}
        self.partition: Partition | None = None
        self._progress = progress
        self._directory = plan.directory
        self._network = plan.directory / "network.pem"
        self._claim: socket.socket | None = None  # held as long as we run
        self._port = 0

    async def run(
        self, ready: Callable[[dict[str, Any]], None], verbs: Callable[[Testnet], dict[str, control.Verb]], path: Path
    ) -> None:
        """Make what is missing, start all, call `ready` with the summary, serve `verbs` at `path` until a signal."""
        started = trio.current_time()
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGCHLD) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                    self._prepare()
                    logging.configure("error")
                    await self.add(self.plan.nodes)
                    await nursery.start(control.serve, path, verbs(self))
                    ready(self.summary() | {"seconds": round(trio.current_time() - started, 2)})
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT_S):
                    await self._end()

    async def _end(self) -> None:
        """Every daemon stopped, in order if it can be."""
        async with trio.open_nursery() as ends:
            for member in self.members.values():
                ends.start_soon(member.daemon.terminate)
        if self._claim is not None:
            self._claim.close()

    async def _obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """SIGINT and SIGTERM end the network; SIGCHLD says that a daemon ended: it is reaped."""
        async for number in signals:
            if number != signal.SIGCHLD:
                scope.cancel()
            for member in self.members.values():
                _ = member.daemon.pid  # reaps

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            taken = (self._directory / STATE_NAME).exists()
            with tempfile.TemporaryFile(dir=self._directory):  # writable?
                pass
        except OSError as error:
            raise UsageError(f"{self._directory} cannot be used: {error.strerror}", "give another --dir") from None
        if taken:
            raise UsageError(f"{self._directory} holds a test network already", "give another --dir, or remove it")
        self._claim, self._port = _claim_port()
        authority = self._directory / "ca"
        create_authority(authority, "testnet")
        if self.plan.policy:
            self.set_policy(self.plan.policy)
        self._network.write_bytes((authority / "network.pem").read_bytes())
        create_client(self._directory / "client.key", self._directory / "client.csr")
        issue(authority, self._directory / "client.csr", "client", self._directory / "client.pem")

    def set_policy(self, words: Sequence[str]) -> dict[str, int]:
        """Sign the next policy; the versions of all documents then. UsageError."""
        signing = self._signing()
        signing.set_policy(words)
        return signing.versions()

    async def publish(self) -> None:
        """Hand the documents to a running node of each side, wait until all who can hear have them.

        Those that are down get the files; a side of a partition that clients do not reach learns when it is healed.
        """
        root, key = open_authority(self._directory / "ca")
        signing, up = self._signing(), self._admitted()
        for member in self.members.values():
            if member not in up:
                save_documents(member.data / "network", signing.signed())
        reached = [member for member in up if self.partition is None or self.partition.reach_clients(member.name)]
        told: list[Member] = []
        for member in reached:
            if not any(self._reaches(one, member) for one in told):
                told.append(member)
                await hand_over(root, key, *host_port(member.address, "the node's address"), signing.signed())
        async with trio.open_nursery() as nursery:
            for member in reached:
                nursery.start_soon(_obeys, member, signing.versions())

    async def add(self, count: int, region: str = "") -> list[Member]:
        """`count` new nodes, ready, and known to all others that run. UsageError, LockboxError.

        They stand in the plan's regions in turn, or all in `region`, which the network's table must name.
        """
        if len(self.members) + count > NODES_MAX:
            raise UsageError(f"a test network has at most {NODES_MAX} nodes, this one has {len(self.members)}")
        members = [self._create(region) for _ in range(count)]
        await self.start(members)
        return members

    def _create(self, region: str = "") -> Member:
        number = len(self.members) + 1
        plan, name = self.plan, f"n{number:02d}"
        data = self._directory / name
        region = region or plan.regions[(number - 1) % len(plan.regions)]
        operator = f"op{(number - 1) % plan.operators + 1}"
        first = range(1, min(plan.nodes, BOOTSTRAP_NODES) + 1)
        settings = NodeSettings(
            region=region,
            operator=operator,
            listen=f"127.1.{number}.1:{self._port}",
            http=f"127.1.{number}.1:{self._port + 1}",
            bootstrap=tuple(f"127.1.{other}.1:{self._port}" for other in first if other != number),
        )
        create_node(data, self._network, replace(self.config, node=settings), self._directory / "ca" / FOLDER)
        node_id = issue(self._directory / "ca", data / "identity" / "node.csr", "node", data / "identity" / "node.pem")
        latency = None if plan.delays is None else self._directory / LATENCY_NAME
        log, parting = self._directory / f"{name}.log", self._directory / PARTING_NAME
        daemon = Daemon(name, data / "node.toml", log, parting, latency)
        member = Member(name, node_id, settings.listen, settings.http, region, operator, data, daemon)
        self.members[name] = member
        if plan.delays is not None and latency is not None:
            places = {one.host: plan.delays.place_of(one.name, one.region) for one in self.members.values()}
            plan.delays.save(latency, places, self._signing().regions())
        return member

    async def start(self, members: list[Member]) -> None:
        """Start these, and return when every running node knows all that it reaches. LockboxError of the first failure.

        One that fails does not keep the others from starting.
        """
        limiter = trio.CapacityLimiter(STARTS_AT_ONCE)
        failures: list[LockboxError] = []
        ready = 0

        async def one(member: Member) -> None:
            nonlocal ready
            async with limiter:
                try:
                    await member.daemon.start()
                except LockboxError as error:
                    failures.append(error)
                    return
            ready += 1
            self._progress(f"starting {len(members)} nodes: {ready} ready")

        self._progress(f"starting {len(members)} nodes: 0 ready")
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(one, member)
        self.save()
        if failures:
            raise failures[0]
        self._progress("waiting until all nodes know each other...")
        await self._until_all_known()

    def running(self) -> list[Member]:
        """Members whose daemon is up."""
        return [member for member in self.members.values() if member.daemon.state == "up"]

    def _admitted(self) -> list[Member]:
        """Those that run and are not revoked: the others hear of nothing."""
        revoked = self._signing().revoked()
        return [member for member in self.running() if bytes.fromhex(member.node_id) not in revoked]

    def _signing(self) -> Signing:
        authority = self._directory / "ca"
        return Signing(authority, *open_authority(authority))

    async def _until_all_known(self) -> None:
        up = self._admitted()
        limit_s = AWAIT_TIMEOUT_S + AWAIT_PER_NODE_S * len(up) + KNOWN_TIMEOUT_S
        with trio.move_on_after(limit_s) as scope:
            async with trio.open_nursery() as nursery:
                for member in up:
                    nursery.start_soon(_knows, member, [other.node_id for other in up if self._reaches(member, other)])
        if scope.cancelled_caught:
            raise LockboxError(f"the nodes did not all find each other within {limit_s:.0f} s", "look at their logs")

    def _reaches(self, one: Member, other: Member) -> bool:
        return self.partition is None or not self.partition.parts(one.name, other.name)

    def part(self, partition: Partition | None) -> None:
        """Write down who is to hear whom from now on (None: everybody everybody), before the daemons are told."""
        path = self._directory / PARTING_NAME
        if partition is None:
            path.unlink(missing_ok=True)
        else:
            written = path.with_suffix(".new")
            written.write_text(json.dumps(partition.orders(lambda name: self.members[name].host)))
            written.replace(path)
        self.partition = partition

    def summary(self) -> dict[str, Any]:
        """The line of CONTRACT's `up --json`."""
        return {
            "dir": str(self._directory),
            "bootstrap": [member.address for member in list(self.members.values())[:BOOTSTRAP_NODES]],
            "network": str(self._network),
            "client_cert": str(self._directory / "client.pem"),
            "client_key": str(self._directory / "client.key"),
            "nodes": [member.described() for member in self.members.values()],
        }

    def save(self) -> None:
        """Write down who is there, for people and scripts."""
        (self._directory / STATE_NAME).write_text(json.dumps(self.summary(), indent=1))

    def named(self, names: Iterable[str]) -> list[Member]:
        """The members of these names, each once. UsageError."""
        for name in names:
            if name not in self.members:
                raise UsageError(f"there is no node {name!r}", f"the nodes are {', '.join(self.members)}")
        return [self.members[name] for name in dict.fromkeys(names)]


async def _knows(member: Member, ids: list[str]) -> None:
    """Return when `member` believes all these alive; one that ended meanwhile is not waited for."""
    try:
        await member.ask("await-members", nodes=ids)
    except PeerUnreachable:
        if member.daemon.state == "up":
            raise


async def _obeys(member: Member, versions: dict[str, int]) -> None:
    """Return when these documents are in force at `member`; one that ended meanwhile is not waited for."""
    try:
        with trio.fail_after(OBEY_TIMEOUT_S):
            await member.ask("await-documents", documents=versions)
    except trio.TooSlowError:
        raise LockboxError(f"{member.name} does not take the documents", "is it stopped?") from None
    except PeerUnreachable:
        if member.daemon.state == "up":
            raise


def _claim_port() -> tuple[socket.socket, int]:
    """A port for all nodes of one network, and the socket that claims it from other networks on this machine."""
    for port in range(PORT_FIRST, PORT_FIRST + PORTS * PORT_STEP, PORT_STEP):
        claim = socket.socket()
        try:
            claim.bind(("127.1.0.1", port))
            for used in (port, port + 1):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.1.1.1", used))
        except OSError:
            claim.close()
        else:
            return claim, port
    raise LockboxError(f"{PORTS} test networks run on this machine already", "stop some")
