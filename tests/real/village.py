"""Daemons in network namespaces, one in each, and people beside them; root only."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.local_network import BIN, COMMAND_TIMEOUT_S, PASSPHRASE, CommandFailed, LocalNetwork, Person
from lockbox_node import control
from lockbox_node.cli.authority import create_authority, create_client, create_node, issue
from lockbox_node.cli.network import TestnetPlan
from lockbox_node.config import NodeSettings
from lockbox_node.errors import PeerUnreachable
from tests.real import netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PORT = 7420
START_S = 30.0
STOP_S = 20.0


class Villager(Person):
    """Somebody at a shell in one of the namespaces."""

    namespace = 1

    def run(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        line = [*netns.inside(self.namespace), str(BIN / "lockbox"), *words]
        environment = {**os.environ, "LOCKBOX_PASSPHRASE": PASSPHRASE, "HOME": str(self.home)}
        done = subprocess.run(
            line, capture_output=True, text=True, env=environment, timeout=COMMAND_TIMEOUT_S, check=False
        )
        if expect is not None and done.returncode != expect:
            raise CommandFailed(line, done)
        return done


class Village:
    """Node i, and whoever stands beside it, in namespace i."""

    def __init__(self, home: Path, nodes: int, address_of: Callable[[int], str] = netns.address_of) -> None:
        self.home = home
        self.nodes = [home / f"n{number:02d}" for number in range(1, nodes + 1)]
        self.addresses = [f"{address_of(number)}:{PORT}" for number in range(1, nodes + 1)]
        self.regions: list[str] = []
        self.ids = self._prepare()

    def _prepare(self) -> list[str]:
        """Authority, client and nodes with the times of a test network; the ids of the nodes."""
        authority = self.home / "ca"
        create_authority(authority, "namespaces")
        create_client(self.home / "client.key", self.home / "client.csr")
        issue(authority, self.home / "client.csr", "client", self.home / "client.pem")
        plan = TestnetPlan.of(len(self.nodes), self.home, "", real_times=False, policy=())
        ids = []
        for number, (data, address) in enumerate(zip(self.nodes, self.addresses, strict=True), start=1):
            self.regions.append(plan.regions[number % len(plan.regions)])
            settings = NodeSettings(
                region=self.regions[-1],
                operator=f"op{number % plan.operators}",
                listen=address,
                http="",
                bootstrap=tuple(other for other in self.addresses if other != address),
            )
            create_node(data, authority / "network.pem", replace(plan.config, node=settings))
            ids.append(issue(authority, data / "identity/node.csr", "node", data / "identity/node.pem"))
        return ids

    @contextmanager
    def running(self) -> Iterator[LocalNetwork]:
        """All daemons, each in its namespace, once all know one another."""
        daemons: list[subprocess.Popen[str]] = []
        try:
            for number, data in enumerate(self.nodes, start=1):
                line = [*netns.inside(number), str(BIN / "lockbox-node"), "run", "--config", str(data / "node.toml")]
                with (self.home / f"n{number:02d}.log").open("w") as log:
                    daemons.append(subprocess.Popen(line, stdout=log, stderr=log, text=True))
            for data in self.nodes:
                self._await_members(data)
            summary = {
                "network": str(self.home / "ca" / "network.pem"),
                "bootstrap": self.addresses,
                "client_cert": str(self.home / "client.pem"),
                "client_key": str(self.home / "client.key"),
                "nodes": [],
            }
            yield LocalNetwork(self.home, summary, daemons[0])
        finally:
            for daemon in daemons:
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(STOP_S)

    def _await_members(self, data: Path) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                ask(data, "await-members", nodes=self.ids)
            except PeerUnreachable:
                assert time.monotonic() < deadline, "a daemon does not start"
                time.sleep(0.2)
            else:
                return


def ask(data: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """Ask the daemon with this data_dir."""

    async def once() -> dict[str, Any]:
        return await control.ask(data / "control.sock", verb, **arguments)

    return trio.run(once)
