"""All verbs, on one real network of three nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node import control
from lockbox_node.cli.authority import open_authority
from lockbox_node.cli.signing import Signing
from lockbox_node.cli.verbs import status_lines
from lockbox_node.core.regions import Region
from tests.cli.test_network import PATIENCE_S, TESTNET, until_gone, up

if TYPE_CHECKING:
    from collections.abc import Iterator


class Network:
    """A running network and its verbs."""

    def __init__(self, directory: Path, line: dict[str, Any]) -> None:
        self.directory, self.line = directory, line

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*TESTNET, *words, "--dir", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def states(self) -> list[str]:
        return [node["state"] for node in self.json("status")["nodes"]]

    def node(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.json("status")["nodes"][number - 1]
        return found


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    directory = tmp_path_factory.mktemp("verbs") / "net"
    with up(directory, "--policy", "healing=off", nodes=3) as (_, line):
        yield Network(directory, line)


@pytest.fixture
def whole(network: Network) -> Iterator[Network]:
    """All three up again afterwards."""
    yield network
    names = [node["name"] for node in network.json("status")["nodes"][:3] if node["state"] != "up"]
    if names:
        network.json("restart", *names)


@pytest.mark.real
def test_kill_and_restart(whole: Network) -> None:
    pid = whole.node(2)["pid"]
    assert whole.json("kill", "n02", "n02")["nodes"] == ["n02"]
    until_gone([pid])
    assert whole.states() == ["up", "down", "up"]
    whole.json("restart", "n02")
    assert whole.states() == ["up"] * 3
    assert whole.node(2)["status"]["members"]["alive"] == 3


@pytest.mark.real
def test_a_node_killed_from_outside_stays_down_and_is_reaped(whole: Network) -> None:
    pid = whole.node(3)["pid"]
    os.kill(pid, signal.SIGKILL)
    until_gone([pid])
    assert whole.states() == ["up", "up", "down"]
    assert not os.path.exists(f"/proc/{pid}"), "no zombie"


@pytest.mark.real
def test_stop_cont_and_restart_of_a_stopped_node(whole: Network) -> None:
    whole.json("stop", "n01")
    assert whole.states() == ["stopped", "up", "up"]
    assert whole.run("status").stdout.splitlines()[1].split()[:2] == ["n01", "stopped"]
    whole.json("policy", "healing=on")
    whole.json("cont", "n01")
    assert whole.node(1)["status"]["repairs"]["enabled"] is True, "what was said meanwhile"
    whole.json("policy", "healing=off")
    whole.json("stop", "n01")
    whole.json("restart", "n01")
    assert whole.states() == ["up"] * 3


@pytest.mark.real
def test_a_wiped_node_comes_back_as_itself_with_nothing_and_one_that_was_down_stays_down(whole: Network) -> None:
    whole.json("kill", "n02")
    ids = [whole.node(number)["id"] for number in (1, 2)]
    stores = [Path(whole.node(number)["data"]) / "STORE" for number in (1, 2)]
    before = stores[0].read_text()
    assert whole.json("wipe", "n01", "n02")["nodes"] == ["n01", "n02"]
    assert whole.states() == ["up", "down", "up"]
    assert stores[0].read_text() != before, "another store"
    assert not stores[1].exists()
    whole.json("restart", "n02")
    assert whole.states() == ["up"] * 3
    assert [whole.node(number)["id"] for number in (1, 2)] == ids


@pytest.mark.real
def test_policy_reaches_those_that_run_those_that_are_down_and_those_to_come(whole: Network) -> None:
    whole.json("kill", "n01")
    assert whole.json("policy", "healing=on")["nodes"] == ["n02", "n03"]
    assert [whole.node(number)["status"]["repairs"]["enabled"] for number in (2, 3)] == [True, True]
    whole.json("restart", "n01")
    assert whole.node(1)["status"]["repairs"]["enabled"] is True
    wanted = whole.node(2)["status"]["documents"]
    assert set(wanted) == {"revocations", "releases", "regions", "policy"}
    assert whole.node(1)["status"]["documents"] == wanted
    whole.json("policy", "healing=off")
    assert whole.run("status").stdout.splitlines()[-1] == "3 nodes: 3 up; healing is paused"


@pytest.mark.real
def test_a_wrong_policy_changes_nothing(whole: Network) -> None:
    before = whole.node(1)["status"]["documents"]
    refused = whole.run("policy", "guard=5", "colour=red")
    assert refused.returncode == 2
    assert "colour=red" in refused.stderr
    assert whole.node(1)["status"]["documents"] == before


@pytest.mark.real
def test_a_region_is_killed_and_a_node_added_in_a_new_one_while_it_is_down(whole: Network) -> None:
    region = whole.node(3)["region"]
    assert whole.json("kill-region", region)["nodes"] == ["n03"]
    authority = whole.directory / "ca"
    signing = Signing(authority, *open_authority(authority))
    signing.set_regions(signing.regions().with_region(Region("lisbon", "", 38.72, -9.14)))
    assert whole.run("add", "1", "--region", "porto").returncode == 2
    assert whole.json("add", "1", "--region", "lisbon")["nodes"] == ["n04"]
    assert whole.states() == ["up", "up", "down", "up"]
    assert whole.node(4)["region"] == "lisbon"
    whole.json("kill", "n04")


def dropped(network: Network, name: str) -> list[str]:
    """What this daemon says that it drops, after it has looked."""
    said: dict[str, Any] = trio.run(control.ask, network.directory / name / "control.sock", "parting")
    hosts: list[str] = said["dropped"]
    return hosts


@pytest.mark.real
def test_a_partition_stands_for_all_until_it_is_replaced_or_healed(whole: Network) -> None:
    whole.json("stop", "n03")
    whole.json("kill", "n02")
    said = whole.json("partition", "n01,n02", "n03", "--client", "A")
    assert (said["a"], said["b"], said["client"]) == (["n01", "n02"], ["n03"], "A")
    assert whole.json("status")["partition"] == {"a": ["n01", "n02"], "b": ["n03"], "client": "A"}
    whole.json("restart", "n02")
    whole.json("cont", "n03")
    assert [dropped(whole, name) for name in ("n01", "n02", "n03")] == [
        ["127.1.3.1"],
        ["127.1.3.1"],
        ["127.0.0.1", "127.1.1.1", "127.1.2.1"],
    ]
    whole.json("partition", "n01", "n02")
    assert [dropped(whole, name) for name in ("n01", "n02", "n03")] == [["127.1.2.1"], ["127.1.1.1"], []]
    assert "n01 and B = n02 do not hear" in whole.run("status").stdout.splitlines()[-1]
    assert whole.json("heal")["healed"] is True
    assert whole.json("status")["partition"] is None
    assert [dropped(whole, name) for name in ("n01", "n02", "n03")] == [[], [], []]
    assert whole.json("heal")["healed"] is False


@pytest.mark.real
def test_corrupt_counts_what_it_changed(whole: Network) -> None:
    assert whole.json("corrupt", "n01", "n02", "--share", "0.5")["changed"] == 0


@pytest.mark.real
@pytest.mark.parametrize(
    "words",
    [
        ("kill", "n77"),
        ("restart", "n01", "n77"),
        ("stop", "N01"),
        ("cont", ""),
        ("corrupt", "n77"),
        ("wipe", "n01", "n77"),
        ("kill-region", "atlantis"),
        ("policy", "healing=maybe"),
        ("policy", "colour=3"),
        ("add", "249"),
        ("partition", "n01", "n77"),
        ("partition", "n01,n02", "n02"),
        ("partition", "", "n02"),
    ],
    ids=" ".join,
)
def test_wrong_words_are_one_line_and_exit_2(words: tuple[str, ...], network: Network) -> None:
    done = network.run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("lockbox-testnet: USAGE: ")


@pytest.mark.real
def test_nothing_is_touched_when_one_of_the_names_is_wrong(network: Network) -> None:
    refused = network.run("kill", "n01", "n77", "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "USAGE"
    assert network.states()[:3] == ["up"] * 3


def test_the_table_has_columns_under_their_heads_and_counts() -> None:
    said: dict[str, Any] = {"members": {"alive": 24, "dead": 1}, "stripes": 1234, "shards": 9876, "corrupt": 0}
    said["repairs"] = {"done": 5, "pending": 0, "enabled": True}
    rows: list[dict[str, Any]] = [
        {"name": "n01", "state": "up", "region": "ap-northeast-1", "operator": "op1", "status": said},
        {"name": "n02", "state": "stopped", "region": "eu-west-1", "operator": "op12"},
    ]
    head, first, second, count = status_lines(rows)
    assert len({len(head), len(first), len(second)}) == 1
    for word in ("STATE", "REGION", "OPERATOR"):
        assert first[head.index(word) - 1] == second[head.index(word) - 1] == " "
    assert count == "2 nodes: 1 up, 1 stopped"
    said["repairs"] |= {"pending": 3, "left_s": 12.4, "margin_worst": 2}
    words = "2 nodes: 1 up, 1 stopped; the worst stripe may lose 2 more; 3 repairs wait, about 12 s"
    assert status_lines(rows)[-1] == words
