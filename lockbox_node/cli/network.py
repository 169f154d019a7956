"""A test network that runs: its plan, its directory, its daemons, and the verbs that `lockbox-testnet` sends it.

Node i is called n01, n02, ... and listens on 127.1.i.1; regions and operators are dealt in turn. One authority signs
all; one client certificate lies beside it. The process that runs `up` owns every daemon, so a daemon killed from
outside is simply down until somebody restarts it.
"""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node import control
from lockbox_node.cli import faults
from lockbox_node.cli.authority import create_authority, create_client, create_node, issue
from lockbox_node.cli.processes import Daemon
from lockbox_node.config import Config, NodeSettings, load, to_toml
from lockbox_node.core.regions import REGIONS, spread_regions
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SOCKET_NAME = "testnet.sock"
STATE_NAME = "testnet.json"
PORT_FIRST, PORT_STEP, PORTS = 7420, 10, 100  # one port of these for all nodes; HTTP is the next one
REGIONS_DEFAULT = 7
OPERATORS_MIN = 5
BOOTSTRAP_NODES = 7
KNOWN_TIMEOUT_S = 60.0
STARTS_AT_ONCE = 8

# Short times, so that a test sees in seconds what a real network does in minutes (--real-times leaves the tiers' own).
HOLD_OFF_S = 3.0
SWEEP_S = 10.0
GUARD_S = 10.0


@dataclass(frozen=True, slots=True)
class TestnetPlan:
    """What `up` was asked for."""

    __test__ = False
    nodes: int
    directory: Path
    regions: tuple[str, ...]
    operators: int
    config: Config

    @classmethod
    def of(cls, nodes: int, directory: Path, regions: str, *, real_times: bool, policy: tuple[str, ...]) -> TestnetPlan:
        """Check the words of the command line. UsageError says what is wrong."""
        names = tuple(regions.split(",")) if regions else tuple(spread_regions(REGIONS_DEFAULT))
        for name in names:
            if name not in REGIONS:
                raise UsageError(f"{name!r} is not a region", f"known: {', '.join(REGIONS)}")
        config = Config()
        if not real_times:
            config = replace(
                config,
                repair=replace(config.repair, hold_off_s=HOLD_OFF_S, sweep_s=SWEEP_S),
                guard=replace(config.guard, quiet_s=GUARD_S),
            )
        for word in policy:
            config = _with_policy(config, word)
        return cls(nodes, directory, names, max(OPERATORS_MIN, len(names)), config)


def _with_policy(config: Config, word: str) -> Config:
    key, equals, value = word.partition("=")
    if key == "healing" and value in ("on", "off"):
        return replace(config, repair=replace(config.repair, enabled=value == "on"))
    try:
        if equals and key == "hold-off":
            return replace(config, repair=replace(config.repair, hold_off_s=float(value)))
        if equals and key == "sweep":
            return replace(config, repair=replace(config.repair, sweep_s=float(value)))
        if equals and key == "guard":
            return replace(config, guard=replace(config.guard, quiet_s=float(value)))
    except ValueError:
        raise UsageError(f"{word!r}: {value!r} is not a number of seconds") from None
    raise UsageError(f"{word!r} is not a policy of a test network", "healing=on|off, hold-off=S, sweep=S, guard=S")


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

    def __init__(self, plan: TestnetPlan) -> None:
        self._plan = plan
        self._directory = plan.directory
        self._members: dict[str, Member] = {}
        self._network = plan.directory / "network.pem"
        self._claim, self._port = _claim_port()  # held as long as we live

    async def run(self, ready: Callable[[dict[str, Any]], None]) -> None:
        """Make what is missing, start all, call `ready` with the summary, serve the verbs until a signal."""
        started = trio.current_time()
        self._prepare()
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_signal, signals, nursery.cancel_scope)
                    await self._start(list(self._members.values()))
                    await self._until_all_known()
                    await nursery.start(control.serve, self._directory / SOCKET_NAME, self._verbs())
                    ready(self._summary() | {"seconds": round(trio.current_time() - started, 2)})
            finally:
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as ends:
                        for member in self._members.values():
                            ends.start_soon(member.daemon.terminate)

    @staticmethod
    async def _until_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            scope.cancel()

    def _prepare(self) -> None:
        if (self._directory / STATE_NAME).exists():
            raise UsageError(f"{self._directory} holds a test network already", "give another --dir, or remove it")
        self._directory.mkdir(parents=True, exist_ok=True)
        authority = self._directory / "ca"
        create_authority(authority, "testnet")
        self._network.write_bytes((authority / "network.pem").read_bytes())
        create_client(self._directory / "client.key", self._directory / "client.csr")
        issue(authority, self._directory / "client.csr", "client", self._directory / "client.pem")
        for number in range(1, self._plan.nodes + 1):
            self._create(number)
        self._save()

    def _create(self, number: int) -> Member:
        plan, name = self._plan, f"n{number:02d}"
        data = self._directory / name
        region = plan.regions[(number - 1) % len(plan.regions)]
        operator = f"op{(number - 1) % plan.operators + 1}"
        bootstrap = tuple(
            f"127.1.{i}.1:{self._port}" for i in range(1, min(plan.nodes, BOOTSTRAP_NODES) + 1) if i != number
        )
        settings = NodeSettings(
            region=region,
            operator=operator,
            listen=f"127.1.{number}.1:{self._port}",
            http=f"127.1.{number}.1:{self._port + 1}",
            bootstrap=bootstrap,
        )
        create_node(data, self._network, replace(plan.config, node=settings))
        node_id = issue(self._directory / "ca", data / "identity" / "node.csr", "node", data / "identity" / "node.pem")
        daemon = Daemon(name, data / "node.toml", self._directory / f"{name}.log")
        member = Member(name, node_id, settings.listen, settings.http, region, operator, data, daemon)
        self._members[name] = member
        return member

    async def _start(self, members: list[Member]) -> None:
        limiter = trio.CapacityLimiter(STARTS_AT_ONCE)

        async def one(member: Member) -> None:
            async with limiter:
                await member.daemon.start()

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(one, member)
        self._save()

    async def _until_all_known(self) -> None:
        """Wait until every running node knows every other as alive."""
        up = [member for member in self._members.values() if member.daemon.observe() == "up"]
        with trio.move_on_after(KNOWN_TIMEOUT_S) as scope:
            for member in up:
                await control.ask(member.data / "control.sock", "await-members", alive=len(up))
        if scope.cancelled_caught:
            raise LockboxError(f"the nodes did not all find each other within {KNOWN_TIMEOUT_S:.0f} s")

    def _summary(self) -> dict[str, Any]:
        return {
            "dir": str(self._directory),
            "bootstrap": [member.address for member in list(self._members.values())[:BOOTSTRAP_NODES]],
            "network": str(self._network),
            "client_cert": str(self._directory / "client.pem"),
            "client_key": str(self._directory / "client.key"),
            "nodes": [member.described() for member in self._members.values()],
        }

    def _save(self) -> None:
        (self._directory / STATE_NAME).write_text(json.dumps(self._summary(), indent=1))

    # The verbs of the socket

    def _verbs(self) -> dict[str, control.Verb]:
        return {
            "kill": self._kill,
            "restart": self._restart,
            "stop": partial(self._pause, word="stopped"),
            "cont": partial(self._pause, word="running again"),
            "kill-region": self._kill_region,
            "add": self._add,
            "corrupt": self._corrupt,
            "policy": self._policy,
            "status": self._status,
        }

    def _named(self, names: list[str]) -> list[Member]:
        for name in names:
            if name not in self._members:
                raise UsageError(f"there is no node {name!r}", f"the nodes are {', '.join(self._members)}")
        return [self._members[name] for name in names]

    async def _kill(self, request: dict[str, Any]) -> object:
        return await self._kill_members(self._named(request["nodes"]))

    async def _kill_region(self, request: dict[str, Any]) -> object:
        members = [member for member in self._members.values() if member.region == request["region"]]
        if not members:
            raise UsageError(f"no node is in region {request['region']!r}", f"in use: {', '.join(self._plan.regions)}")
        return await self._kill_members(members)

    async def _kill_members(self, members: list[Member]) -> object:
        for member in members:
            member.daemon.signal(signal.SIGKILL)
        for member in members:
            await member.daemon.kill()
        self._save()
        return self._told(members, "killed")

    async def _restart(self, request: dict[str, Any]) -> object:
        members = self._named(request["nodes"])
        await self._kill_members(members)
        await self._start(members)
        await self._until_all_known()
        return self._told(members, "ready again")

    async def _pause(self, request: dict[str, Any], word: str) -> object:
        members = self._named(request["nodes"])
        for member in members:
            member.daemon.pause() if word == "stopped" else member.daemon.resume()
        return self._told(members, word)

    async def _add(self, request: dict[str, Any]) -> object:
        first = len(self._members) + 1
        members = [self._create(number) for number in range(first, first + request["count"])]
        await self._start(members)
        await self._until_all_known()
        self._save()
        return self._told(members, "added and ready")

    async def _corrupt(self, request: dict[str, Any]) -> object:
        members = self._named(request["nodes"])
        changed = 0
        for number, member in enumerate(members):
            damage = partial(faults.corrupt, member.data, request["share"], request["seed"] + number)
            changed += await trio.to_thread.run_sync(damage)
        return {**self._told(members, f"corrupted, {changed} stripe parts changed"), "changed": changed}

    async def _policy(self, request: dict[str, Any]) -> object:
        for word in request["settings"]:
            if word not in ("healing=on", "healing=off"):
                raise UsageError(f"{word!r} cannot be changed while nodes run", "healing=on or healing=off")
            self._plan = replace(self._plan, config=_with_policy(self._plan.config, word))
        told = []
        for member in self._members.values():
            config = load(member.data / "node.toml")
            (member.data / "node.toml").write_text(
                to_toml(replace(config, repair=replace(config.repair, enabled=self._plan.config.repair.enabled)))
            )
            if member.daemon.observe() == "up":
                await control.ask(member.data / "control.sock", "healing", enabled=self._plan.config.repair.enabled)
                told.append(member)
        return self._told(told, " ".join(request["settings"]))

    async def _status(self, _request: dict[str, Any]) -> object:
        rows = []
        for member in self._members.values():
            row: dict[str, object] = {**member.described(), "state": member.daemon.observe()}
            if row["state"] == "up":
                with trio.move_on_after(5):
                    row["status"] = await control.ask(member.data / "control.sock", "status")
            rows.append(row)
        return {"nodes": rows, "text": "\n".join(_status_lines(rows))}

    @staticmethod
    def _told(members: list[Member], word: str) -> dict[str, object]:
        names = [member.name for member in members]
        return {"nodes": names, "done": word, "text": f"{', '.join(names)}: {word}"}


def _claim_port() -> tuple[socket.socket, int]:
    """A port for all nodes of one network, and the socket that claims it from other networks on this machine."""
    for port in range(PORT_FIRST, PORT_FIRST + PORTS * PORT_STEP, PORT_STEP):
        claim = socket.socket()
        try:
            claim.bind(("127.1.0.1", port))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.1.1.1", port))
        except OSError:
            claim.close()
        else:
            return claim, port
    raise LockboxError(f"{PORTS} test networks run on this machine already", "stop some")


def _status_lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["NODE  STATE    REGION          OPERATOR  ALIVE  DEAD  STRIPES  REPAIRED  PENDING"]
    for row in rows:
        said = row.get("status") or {}
        members, repairs = said.get("members", {}), said.get("repairs", {})
        lines.append(
            f"{row['name']:<5} {row['state']:<8} {row['region']:<15} {row['operator']:<9} "
            f"{members.get('alive', '-'):>5} {members.get('dead', '-'):>5} {said.get('stripes', '-'):>8} "
            f"{repairs.get('done', '-'):>9} {repairs.get('pending', '-'):>8}"
        )
    return lines
