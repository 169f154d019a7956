"""A real test network of three nodes: its plan, its line, and its end without orphans."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node.adapters.identity import ClientIdentity, NetworkFile
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.cli import network as networks
from lockbox_node.cli.delays import round_trip_ms
from lockbox_node.cli.network import BALLAST_BYTES, NODES_MAX, Testnet, TestnetPlan
from lockbox_node.config import Config
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30
TESTNET = [sys.executable, "-m", "lockbox_node.cli.testnet"]


def plan_of(tmp_path: Path, *policy: str, regions: str = "", real_times: bool = False) -> TestnetPlan:
    return TestnetPlan.of(3, tmp_path, regions, real_times=real_times, policy=policy)


@contextmanager
def up(directory: Path, *options: str, nodes: int = 2) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """(the process, its line)."""
    words = ["up", "--nodes", str(nodes), "--dir", str(directory), "--json", *options]
    with subprocess.Popen([*TESTNET, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline() or "{}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE_S)


def gone(pid: int) -> bool:
    """Whether the process is no more, or only a zombie of somebody else's."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "an orphan is left"
        time.sleep(0.02)


def test_the_plan_has_seven_regions_far_apart_and_short_times(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert (len(plan.regions), plan.operators) == (7, 7)
    assert (plan.config.repair.hold_off_s, plan.config.repair.sweep_s, plan.config.guard.quiet_s) == (3.0, 10.0, 10.0)
    assert plan.config.leases.look_every_s == 10.0


def test_places_are_measured_soon_where_the_policy_asks_for_it(tmp_path: Path) -> None:
    usual = plan_of(tmp_path).config.measuring
    assert usual == plan_of(tmp_path, "location=measured", real_times=True).config.measuring
    hasty = plan_of(tmp_path, "healing=off", "location=measured").config.measuring
    assert hasty.pings_per_s > usual.pings_per_s
    assert hasty.exchange_s < usual.exchange_s


def test_few_regions_still_have_five_operators_and_real_times_are_the_tiers_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, regions="eu-west-1,us-east-1", real_times=True)
    assert (plan.regions, plan.operators) == (("eu-west-1", "us-east-1"), 5)
    store = dataclasses.replace(Config().store, ballast_bytes=BALLAST_BYTES)
    assert plan.config == Config(store=store)


def test_policy_words_are_for_the_authority_to_sign_and_leave_the_configuration_alone(tmp_path: Path) -> None:
    words = ("healing=off", "hold-off=1.5", "sweep=2", "guard=0")
    assert plan_of(tmp_path, *words).policy == words
    assert plan_of(tmp_path, *words).config == plan_of(tmp_path).config


@pytest.mark.parametrize(
    "word",
    ["healing=maybe", "sweep=", "healing", "sweep=soon", "sweep=nan", "sweep=-1", "guard=inf", "colour=red", "", "=1"],
)
def test_wrong_policy_words_are_wrong_usage(word: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        plan_of(tmp_path, word)


def test_an_unknown_region_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="atlantis"):
        plan_of(tmp_path, regions="eu-west-1,atlantis")


async def test_more_nodes_than_addresses_are_refused_before_any_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most"):
        await Testnet(plan_of(tmp_path), print).add(NODES_MAX + 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_line_is_as_promised_and_a_signal_ends_all_with_exit_0(number: signal.Signals, tmp_path: Path) -> None:
    with up(tmp_path / "net") as (process, line):
        assert list(line)[:6] == ["ready", "dir", "bootstrap", "network", "client_cert", "client_key"]
        assert line["ready"] is True
        assert {"name", "id", "pid", "address", "region", "operator", "http", "data"} == set(line["nodes"][0])
        assert [node["name"] for node in line["nodes"]] == ["n01", "n02"]
        assert line["bootstrap"] == [node["address"] for node in line["nodes"]]
        assert all(os.path.isfile(line[name]) for name in ("network", "client_cert", "client_key"))
        pids = [node["pid"] for node in line["nodes"]]
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")
    until_gone(pids)


@pytest.mark.real
def test_over_the_world_every_node_is_as_far_as_it_stands_and_not_as_it_claims(tmp_path: Path) -> None:
    words = ("--regions", "us-east-1,ap-southeast-2", "--liar", "n02=eu-central-1", "--client-region", "eu-central-1")
    with up(tmp_path / "net", "--latency", "world", *words) as (_, line):
        near, far = (dial_s(line, number) for number in (1, 0))
        assert [node["region"] for node in line["nodes"]] == ["us-east-1", "ap-southeast-2"]
    assert far >= 2 * round_trip_ms("eu-central-1", "us-east-1") / 1000
    assert near < far  # from Frankfurt to Frankfurt, although it says that it is in Sydney


def dial_s(line: dict[str, Any], number: int) -> float:
    """The quickest of a few dials of one node by a client, TCP and TLS."""
    network = NetworkFile.load(Path(line["network"]))
    host, _, port = line["nodes"][number]["address"].rpartition(":")

    async def once() -> float:
        began = trio.current_time()
        stream = await TcpNetwork(ClientIdentity.guest(network)).dial(host, int(port))
        took_s = trio.current_time() - began
        await stream.aclose()
        return took_s

    return min(trio.run(once) for _ in range(5))


@pytest.mark.real
def test_a_killed_up_takes_its_nodes_with_it_the_stopped_ones_too(tmp_path: Path) -> None:
    with up(tmp_path / "net") as (process, line):
        pids = [node["pid"] for node in line["nodes"]]
        os.kill(pids[0], signal.SIGSTOP)
        process.kill()
        process.wait(PATIENCE_S)
        until_gone(pids)


@pytest.mark.real
def test_a_second_network_in_one_directory_is_refused_and_another_directory_is_not(tmp_path: Path) -> None:
    with up(tmp_path / "net", nodes=1), up(tmp_path / "net") as (second, _):
        out, err = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 2
        assert err == ""
        assert json.loads(out or "{}") == {} or "already" in out


@pytest.mark.real
def test_a_node_that_cannot_start_ends_up_and_leaves_nothing_running(tmp_path: Path) -> None:
    net = tmp_path / "net"
    (net / "n02" / "shards.db").mkdir(parents=True)
    with up(net) as (process, line):
        assert line["error"]["message"].startswith("n02 ended with exit code 78")
        assert process.wait(PATIENCE_S) == 1
    pids = [node["pid"] for node in json.loads((net / "testnet.json").read_text())["nodes"] if node["pid"]]
    until_gone(pids)


def test_networks_beside_each_other_get_ports_of_their_own_until_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "PORT_FIRST", 17420)
    monkeypatch.setattr(networks, "PORTS", 2)
    claims = [networks._claim_port() for _ in range(2)]
    assert [port for _, port in claims] == [17420, 17430]
    with pytest.raises(LockboxError, match="2 test networks run"):
        networks._claim_port()
    for claim, _ in claims:
        claim.close()


class Terminal:
    """`up` with a terminal as its stderr."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self._screen, side = pty.openpty()
        words = ["up", "--nodes", str(nodes), "--dir", str(directory)]
        self.process = subprocess.Popen([*TESTNET, *words], stdout=subprocess.PIPE, stderr=side, text=True)
        os.close(side)
        self.seen = ""

    def until(self, words: str) -> None:
        """Read the screen until it shows `words`, or all of it is read."""
        while words not in self.seen:
            try:
                self.seen += os.read(self._screen, 4096).decode()
            except OSError:  # the other side is closed
                break
        assert words in self.seen

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """(exit code, stdout) after a signal."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        os.close(self._screen)
        return self.process.returncode, out


def daemons_in(directory: Path) -> list[int]:
    """Processes whose command line names something in `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.fsencode(directory) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
    return found


@pytest.mark.real
def test_a_terminal_sees_how_many_are_ready(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "net", 2)
    for words in ("starting 2 nodes: 0 ready", "starting 2 nodes: 1 ready", "starting 2 nodes: 2 ready"):
        terminal.until("\r\x1b[K" + words)
    assert terminal.process.stdout is not None
    assert terminal.process.stdout.readline().startswith("2 nodes are ready in ")
    assert terminal.end(signal.SIGINT)[0] == 0


@pytest.mark.real
def test_a_signal_while_nodes_start_ends_all_at_once_with_exit_0(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "net", 6)
    terminal.until("starting 6 nodes: 0 ready")
    began = time.monotonic()
    assert terminal.end(signal.SIGTERM) == (0, "")
    assert time.monotonic() - began < 5
    assert daemons_in(tmp_path) == []


@pytest.mark.real
def test_a_killed_up_leaves_no_node_that_was_just_starting(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "net", 3)
    terminal.until("starting 3 nodes: 0 ready")
    assert terminal.end(signal.SIGKILL)[0] == -signal.SIGKILL
    until_gone(daemons_in(tmp_path))


@pytest.mark.real
def test_a_directory_whose_path_is_too_long_for_a_socket_will_do(tmp_path: Path) -> None:
    net = tmp_path / ("d" * 120) / ("e" * 120)
    with up(net, nodes=1) as (_, line):
        assert line["ready"] is True
        words = [*TESTNET, "status", "--dir", str(net)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stdout.splitlines()[-1] == "1 nodes: 1 up"
