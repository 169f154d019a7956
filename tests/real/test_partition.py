"""Ten daemons in ten network namespaces, cut apart by nft on their bridge: the story of end_to_end/split_story.py."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from benchmarks.local_network import BIN, COMMAND_TIMEOUT_S, PASSPHRASE, CommandFailed, LocalNetwork, Person
from lockbox_node import control
from lockbox_node.cli.authority import create_authority, create_client, create_node, issue
from lockbox_node.cli.network import TestnetPlan
from lockbox_node.config import NodeSettings
from lockbox_node.errors import PeerUnreachable
from tests.end_to_end.split_story import HALF, LONG_S, NODES, SHORT_S, play
from tests.real import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root
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


class ByPackets:
    """Node i, and whoever stands beside it, in namespace i."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._nodes = [home / f"n{number:02d}" for number in range(1, NODES + 1)]
        self.ids = self._prepare()

    def _prepare(self) -> list[str]:
        """Authority, client and nodes with the times of a test network; the ids of the nodes."""
        authority = self.home / "ca"
        create_authority(authority, "namespaces")
        create_client(self.home / "client.key", self.home / "client.csr")
        issue(authority, self.home / "client.csr", "client", self.home / "client.pem")
        plan = TestnetPlan.of(NODES, self.home, "", real_times=False, policy=())
        ids = []
        for number, data in enumerate(self._nodes, start=1):
            settings = NodeSettings(
                region=plan.regions[number % len(plan.regions)],
                operator=f"op{number % plan.operators}",
                listen=f"{netns.address_of(number)}:{PORT}",
                http="",
                bootstrap=tuple(address for address in self._addresses() if address != self._addresses()[number - 1]),
            )
            create_node(data, authority / "network.pem", replace(plan.config, node=settings))
            ids.append(issue(authority, data / "identity/node.csr", "node", data / "identity/node.pem"))
        return ids

    @staticmethod
    def _addresses() -> list[str]:
        return [f"{netns.address_of(number)}:{PORT}" for number in range(1, NODES + 1)]

    @contextmanager
    def running(self) -> Iterator[LocalNetwork]:
        """All daemons, each in its namespace, once all know one another."""
        daemons: list[subprocess.Popen[str]] = []
        try:
            for number, data in enumerate(self._nodes, start=1):
                line = [*netns.inside(number), str(BIN / "lockbox-node"), "run", "--config", str(data / "node.toml")]
                with (self.home / f"n{number:02d}.log").open("w") as log:
                    daemons.append(subprocess.Popen(line, stdout=log, stderr=log, text=True))
            for data in self._nodes:
                self._await_members(data)
            summary = {
                "network": str(self.home / "ca" / "network.pem"),
                "bootstrap": self._addresses(),
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
                _ask(data, "await-members", nodes=self.ids)
            except PeerUnreachable:
                assert time.monotonic() < deadline, "a daemon does not start"
                time.sleep(0.2)
            else:
                return

    def part(self) -> None:
        netns.part(range(1, HALF + 1), range(HALF + 1, NODES + 1))

    def heal(self) -> None:
        netns.heal()

    def statuses(self) -> list[dict[str, Any]]:
        return [_ask(data, "status") for data in self._nodes]

    def stand(self, person: Person, side: str) -> None:
        assert isinstance(person, Villager)
        person.namespace = 1 if side == "A" else NODES


def _ask(data: Path, verb: str, **arguments: object) -> dict[str, Any]:
    async def once() -> dict[str, Any]:
        return await control.ask(data / "control.sock", verb, **arguments)

    return trio.run(once)


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[ByPackets]:
    netns.require_tools()
    with netns.namespaces(NODES):
        yield ByPackets(tmp_path)


@pytest.mark.parametrize(
    "apart_s", [pytest.param(SHORT_S, id="short"), pytest.param(LONG_S, id="long", marks=pytest.mark.long)]
)
def test_two_halves_read_on_repair_nothing_and_become_one_again(halves: ByPackets, apart_s: float) -> None:
    people = [halves.home / name for name in ("alice", "bob", "carol")]
    for home in people:
        home.mkdir()
    with halves.running() as network:
        alice, bob, carol = (Villager(network, home) for home in people)
        alice.init()
        play(halves, alice, bob, carol, apart_s, halves.home)
