"""The daemon as a process: how it starts, says that it is ready, obeys signals, and what it refuses with one line."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node import control
from lockbox_node.adapters.document_files import save_documents
from lockbox_node.cli.authority import create_authority, create_node, issue, open_authority
from lockbox_node.cli.signing import Signing
from lockbox_node.config import Config, NodeSettings, load, to_toml
from lockbox_node.core.regions import BUILT_IN, Region
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real

PATIENCE_S = 20
COMMAND = [sys.executable, "-m", "lockbox_node.cli.node", "run", "--config"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_node(home: Path, name: str, days: int = 30, documents: Path | None = None, **settings: object) -> Path:
    """The data_dir of a new node of the network in `home`/ca, made when it is not there."""
    if not (home / "ca").exists():
        create_authority(home / "ca", "test")
    given = {"region": "eu-west-1", "operator": "op1", "http": ""} | settings
    node = NodeSettings(listen=f"127.0.0.1:{free_port()}", **given)  # type: ignore[arg-type]
    data = home / name
    create_node(data, home / "ca" / "network.pem", Config(node=node), documents)
    issue(home / "ca", data / "identity/node.csr", "node", data / "identity/node.pem", days)
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_node(tmp_path, "n01")


class Running:
    """A daemon, its notifications and its log."""

    def __init__(self, process: subprocess.Popen[str], notify: socket.socket) -> None:
        self.process, self._notify = process, notify

    def told(self) -> str:
        """The next notification."""
        return self._notify.recv(4096).decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, list[dict[str, Any]]]:
        """(exit code, seconds it took, log lines) after a signal."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, time.monotonic() - began, [json.loads(line) for line in log.splitlines()]


@contextmanager
def running(data: Path, *words: str) -> Iterator[Running]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("")
        notify.settimeout(PATIENCE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode()}
        process = subprocess.Popen(
            [*COMMAND, str(data / "node.toml"), *words],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        with process:
            try:
                yield Running(process, notify)
            finally:
                process.kill()


def refused(data: Path, *words: str) -> str:
    """The one line with which it refuses to start, after exit 78."""
    done = subprocess.run(
        [*COMMAND, str(data / "node.toml"), *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 78, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert done.stderr.startswith("lockbox-node: CONFIG: ")
    return done.stderr


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


def ask(data: Path, verb: str) -> dict[str, Any]:
    return trio.run(control.ask, data / "control.sock", verb)


def get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=PATIENCE_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_life_from_ready_over_reload_to_the_end(tmp_path: Path) -> None:
    port = free_port()
    data = make_node(tmp_path, "n01", http=f"127.0.0.1:{port}", bootstrap=(f"127.0.0.1:{free_port()}",))
    with running(data) as daemon:
        assert daemon.told().splitlines()[0] == "READY=1"
        assert get(port, "/health")[0] == 200
        status, words = get(port, "/ready")
        assert (status, json.loads(words)["reasons"]) == (503, ["no other node was reached yet"])
        assert "lockbox_" in get(port, "/metrics")[1]
        before = ask(data, "status")["certificates"]["operational_until"]
        assert "another lockbox-node" in refused(data), "a second daemon on the same data_dir"
        time.sleep(1.1)  # certificates know whole seconds
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE_S
        while ask(data, "status")["certificates"]["operational_until"] == before:
            assert time.monotonic() < deadline
        code, seconds, lines = daemon.end()
        assert daemon.told() == "STOPPING=1"
    assert code == 0
    assert seconds < 5
    assert events(lines)[-1] == "node.stopped"
    assert {"node.ready", "identity.renewed", "node.stopping"} <= set(events(lines))
    assert not (data / "control.sock").exists()


def test_a_reload_with_broken_files_keeps_the_old_certificate_and_says_so(data: Path) -> None:
    with running(data) as daemon:
        daemon.told()
        (data / "identity/node.pem").write_text("rubbish")
        daemon.process.send_signal(signal.SIGHUP)
        assert ask(data, "status")["state"] == "active"
        code, _, lines = daemon.end(signal.SIGINT)
    assert code == 0
    assert "identity.not_renewed" in events(lines)


def test_an_expired_certificate_starts_warns_and_is_not_ready(tmp_path: Path) -> None:
    data = make_node(tmp_path, "n01", days=0)
    with running(data) as daemon:
        daemon.told()
        assert ask(data, "status")["ready"] is False
        code, _, lines = daemon.end()
    assert code == 0
    assert "certificate_expired" in events(lines)


def test_of_two_copies_of_one_node_the_less_started_one_stops_and_says_why(data: Path) -> None:
    _live(data)
    copy = data.parent / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock"))
    config = load(copy / "node.toml")
    node = replace(config.node, listen=f"127.0.0.1:{free_port()}", bootstrap=(config.node.listen,))
    (copy / "node.toml").write_text(to_toml(replace(config, node=node)))
    _live(copy)
    with running(data) as one:
        assert one.told().splitlines()[0] == "READY=1"
        with running(copy) as two:
            _, log = one.process.communicate(timeout=PATIENCE_S)
            assert one.process.returncode == 4
            *logged, last = log.splitlines()
            assert last.startswith("lockbox-node: CONFLICT: another copy of this node is running with a later epoch")
            assert [line for line in logged if json.loads(line)["event"] == "node.superseded"]
            assert "Traceback" not in log
            assert two.process.poll() is None
            assert two.end()[0] == 0


def _live(data: Path) -> None:
    """One life: the epoch rises."""
    with running(data) as daemon:
        assert daemon.told().splitlines()[0] == "READY=1"
        assert daemon.end()[0] == 0


def test_it_dies_with_its_parent_even_when_it_is_stopped(data: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([*sys.argv[1:], '--die-with', str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("")
        notify.settimeout(PATIENCE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode()}
        with subprocess.Popen(
            [sys.executable, "-c", script, *COMMAND, str(data / "node.toml")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        ) as parent:  # fmt: skip
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            descriptor = os.pidfd_open(child)
            notify.recv(4096)
            os.kill(child, signal.SIGSTOP)
            parent.kill()
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], "the child outlived its parent"
    finally:
        os.close(descriptor)


def test_a_parent_that_is_gone_already_ends_it_at_once(data: Path) -> None:
    with running(data, "--die-with", "1") as daemon:
        assert daemon.process.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_node_runs_in_a_region_that_was_added_and_once_it_has_served_in_one_that_is_no_more(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "test")
    root, key = open_authority(tmp_path / "ca")
    signing = Signing(tmp_path / "ca", root, key)
    signing.set_regions(BUILT_IN.with_region(Region("lisbon", "", 38.72, -9.14)))
    data = make_node(tmp_path, "n01", documents=tmp_path / "ca" / "documents", region="lisbon")

    def events() -> list[str]:
        with running(data) as daemon:
            assert daemon.told().splitlines()[0] == "READY=1"
            return [line["event"] for line in daemon.end()[2]]

    assert "node.region_unknown" not in events()
    signing.set_regions(BUILT_IN)
    save_documents(data / "network", signing.signed())
    assert "node.region_unknown" in events()


def rewrite(data: Path, **settings: object) -> None:
    config = load(data / "node.toml")
    (data / "node.toml").write_text(to_toml(replace(config, node=replace(config.node, **settings))))  # type: ignore[arg-type]


def test_every_wrong_file_is_one_line_and_exit_78(data: Path, tmp_path: Path) -> None:
    toml = (data / "node.toml").read_text()

    (data / "node.toml").write_text(toml + "\n[nodes]\nx = 1\n")
    assert "nodes is not a key" in refused(data)
    (data / "node.toml").write_text(toml.replace('level = "info"', "level = 7"))
    assert "log.level is 7" in refused(data)
    (data / "node.toml").write_text(toml)

    rewrite(data, region="atlantis")
    assert "atlantis" in refused(data)
    rewrite(data, region="eu-west-1", data_dir="elsewhere")
    assert "elsewhere" in refused(data)
    rewrite(data, data_dir=".", listen="0.0.0.0:7420")
    assert "nobody can dial" in refused(data)
    (data / "node.toml").write_text(toml)
    rewrite(data, operator="somebody else")
    assert "node.operator" in refused(data)
    (data / "node.toml").write_text(toml)

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        address = f"127.0.0.1:{squatter.getsockname()[1]}"
        rewrite(data, listen=address)
        assert f"cannot listen on {address}" in refused(data)
        (data / "node.toml").write_text(toml)
        rewrite(data, http=address)
        assert address in refused(data)
        (data / "node.toml").write_text(toml)

    key = data / "identity/key.pem"
    key.chmod(0o644)
    assert "can be read by others" in refused(data)
    key.chmod(0o600)

    certificate = data / "identity/node.pem"
    kept = certificate.read_bytes()
    certificate.unlink()
    assert "node.pem is missing" in refused(data)
    other = make_node(tmp_path / "other", "n01")
    shutil.copy(other / "identity/node.pem", certificate)
    assert "another" in refused(data)
    shutil.copy(other / "identity/key.pem", key)
    assert "another network" in refused(data)
    assert kept


def test_only_a_daemon_of_a_test_network_can_be_parted(data: Path) -> None:
    with running(data) as daemon:
        assert daemon.told().splitlines()[0] == "READY=1"
        with pytest.raises(LockboxError, match="does not know 'parting'"):
            ask(data, "parting")
    config = load(data / "node.toml")
    listen = replace(config.node, listen="0.0.0.0:7420", advertise="127.0.0.1:7420")
    (data / "node.toml").write_text(to_toml(replace(config, node=listen)))
    parting, latency = ("--parting", str(data / "partition.json")), ("--latency", str(data / "latency.json"))
    assert "test networks" in refused(data, *parting)
    assert "test networks" in refused(data, *parting, *latency)
    assert "test networks" in refused(data, *latency)


def test_the_data_dir_of_another_node_is_refused(data: Path, tmp_path: Path) -> None:
    with running(data) as daemon:
        daemon.told()
        daemon.end()
    other = make_node(tmp_path, "n02")
    for name in ("key.pem", "node.pem"):
        shutil.copy(other / "identity" / name, data / "identity" / name)
    assert "is the data_dir of node" in refused(data)
