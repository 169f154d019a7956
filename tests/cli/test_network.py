"""A real test network of three nodes: its plan, its line, and its end without orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lockbox_node.cli.network import NODES_MAX, Testnet, TestnetPlan, with_policy
from lockbox_node.config import Config
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def test_few_regions_still_have_five_operators_and_real_times_are_the_tiers_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, regions="eu-west-1,us-east-1", real_times=True)
    assert (plan.regions, plan.operators) == (("eu-west-1", "us-east-1"), 5)
    assert plan.config == Config()


def test_policy_words_change_the_settings() -> None:
    config = Config()
    for word in ("healing=off", "hold-off=1.5", "sweep=2", "guard=0"):
        config = with_policy(config, word)
    assert (config.repair.enabled, config.repair.hold_off_s, config.repair.sweep_s) == (False, 1.5, 2.0)
    assert config.guard.quiet_s == 0.0


@pytest.mark.parametrize(
    "word", ["healing=maybe", "healing", "sweep=soon", "sweep=nan", "sweep=-1", "guard=inf", "colour=red", "", "=1"]
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
