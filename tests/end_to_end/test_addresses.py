"""Where nodes are reached: behind a forwarder as behind NAT, at another port after a restart, over IPv6."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import BIN, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S = 40.0
REGIONS = {"a": "us-east-1", "b": "eu-west-1"}


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Forwarder:
    """A port forward of a router: what comes to `outside` goes to `inside`, both on loopback."""

    def __init__(self, outside: int, inside: int) -> None:
        self._inside = inside
        self._listener = socket.create_server(("127.0.0.1", outside))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=work, args=sockets)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self._inside))
                self._sockets.append(far)
                for one, other in ((near, far), (far, near)):
                    self._begin(self._pump, one, other)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # either side is gone
            while some := source.recv(65536):
                target.sendall(some)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):  # it has ended already
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        for one in self._sockets:
            one.close()


class Hosts:
    """An authority, and daemons that are set up by hand as operators do it."""

    def __init__(self, directory: Path, ending: ExitStack) -> None:
        self.directory, self._ending = directory, ending
        self.ca = directory / "ca"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        command("lockbox-node", "ca", "init", "--dir", str(self.ca), "--network", "addresses")

    def issue(self, csr: Path, role: str, certificate: Path) -> None:
        command(
            "lockbox-node", "ca", "issue", "--dir", str(self.ca), "--csr", str(csr), "--role", role,
            "-o", str(certificate),
        )  # fmt: skip

    def make(self, name: str, listen: str, *options: str) -> None:
        home = self.directory / name
        command(
            "lockbox-node", "init", "--dir", str(home), "--network", str(self.ca / "network.pem"),
            "--region", REGIONS[name], "--operator", f"op {name}", "--listen", listen,
            "--http", f"127.0.0.1:{free_port()}", *options,
        )  # fmt: skip
        self.issue(home / "identity" / "node.csr", "node", home / "identity" / "node.pem")
        self.start(name)

    def start(self, name: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([str(BIN / "lockbox-node"), "run", "--config", self.toml(name)], stderr=log)
        self._running[name] = process
        self._ending.callback(self._end, process)

    def stop(self, name: str) -> None:
        self._end(self._running[name])

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)

    def toml(self, name: str) -> str:
        return str(self.directory / name / "node.toml")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def ask(self, name: str, verb: str) -> dict[str, Any]:
        done = command("lockbox-node", verb, "--config", self.toml(name), "--json", expect=None)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def until(self, name: str, verb: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while not holds(answer := self.ask(name, verb)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.3)
        return answer


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as ending:
        yield Hosts(tmp_path, ending)


def is_ready(status: dict[str, Any]) -> bool:
    return bool(status.get("ready"))


def at(*addresses: str) -> Callable[[dict[str, Any]], bool]:
    """Whether exactly the nodes at these addresses are alive."""
    wanted = sorted(addresses)

    def holds(answer: dict[str, Any]) -> bool:
        rows = answer.get("members", [])
        return sorted(row["addresses"][0] for row in rows if row["status"] == "alive") == wanted

    return holds


def test_a_node_behind_a_forwarder_joins_when_it_works_and_may_move_to_another_port(hosts: Hosts) -> None:
    seed, inside, outside = (f"127.0.0.1:{free_port()}" for _ in range(3))
    hosts.make("a", seed)
    hosts.until("a", "status", is_ready)
    hosts.make("b", inside, "--advertise", outside, "--bootstrap", seed)
    status = hosts.until("b", "status", lambda status: bool(status.get("not_ready")) and "uptime_s" in status)
    status = hosts.until("b", "status", lambda status: outside in str(status.get("not_ready")))
    assert not status["ready"]
    assert "node.advertise" in status["not_ready"][0]
    assert at(seed)(hosts.ask("a", "members"))
    assert hosts.log("b").count("join.unreachable") == 1
    forwarder = Forwarder(int(outside.split(":")[1]), int(inside.split(":")[1]))
    try:
        hosts.until("b", "status", is_ready)
        hosts.until("a", "members", at(seed, outside))
    finally:
        forwarder.close()

    hosts.stop("b")
    moved = f"127.0.0.1:{free_port()}"
    text = (hosts.directory / "b" / "node.toml").read_text()
    (hosts.directory / "b" / "node.toml").write_text(text.replace(inside, moved).replace(outside, moved))
    hosts.start("b")
    hosts.until("a", "members", at(seed, moved))
    hosts.until("b", "status", is_ready)


def test_two_nodes_and_a_client_meet_over_ipv6(hosts: Hosts, tmp_path: Path) -> None:
    try:
        one, two = (f"[::1]:{free_port('::1')}" for _ in range(2))
    except OSError:
        pytest.skip("this machine has no ::1: enable IPv6 on loopback")
    hosts.make("a", one)
    hosts.until("a", "status", is_ready)
    hosts.make("b", two, "--bootstrap", one)
    hosts.until("b", "status", is_ready)
    for name in "ab":
        hosts.until(name, "members", at(one, two))
    command("lockbox", "csr", "-o", str(tmp_path / "me.csr"), "--key", str(tmp_path / "me.key"))
    hosts.issue(tmp_path / "me.csr", "client", tmp_path / "me.pem")
    command(
        "lockbox", "init", "--network", str(hosts.ca / "network.pem"), "--bootstrap", two,
        "--cert", str(tmp_path / "me.pem"), "--key", str(tmp_path / "me.key"), "--json", home=tmp_path,
    )  # fmt: skip
    (tmp_path / "in").write_bytes(os.urandom(100))
    refused = command("lockbox", "lock", str(tmp_path / "in"), "--tier", "basic", home=tmp_path, expect=5)
    assert "INSUFFICIENT" in refused.stderr, "two nodes were found, and five are needed"
