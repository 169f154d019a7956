"""Silent damage on a disk is found by a scrub, or by siblings, and mended, with no client asking for anything."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import LocalNetwork, command, local_network
from lockbox_node.errors import ExitCode
from tests.end_to_end.test_holders import holders_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def small() -> Iterator[LocalNetwork]:
    with local_network(8) as network:
        yield network


def status_of(network: LocalNetwork, name: str) -> dict[str, Any]:
    done = command("lockbox-node", "status", "--config", str(network.directory / name / "node.toml"), "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def scrubbed(network: LocalNetwork, name: str, expect: int) -> dict[str, Any]:
    config = str(network.directory / name / "node.toml")
    done = command("lockbox-node", "scrub", "--config", config, "--json", expect=expect)
    assert done.stderr == ""
    last: dict[str, Any] = json.loads(done.stdout)["last_scrub"]
    return last


def test_a_scrub_finds_what_a_disk_did_and_healing_replaces_it(small: LocalNetwork, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(200_000))
    person = small.person("carol")
    person.init()
    asset = person.json("lock", str(source), "--tier", "basic")["asset"]
    name = small.named(holders_of(person, asset)[0])
    held = scrubbed(small, name, expect=0)["parts"]
    assert held >= 1

    changed = small.verb("corrupt", name)["changed"]
    assert changed >= 1
    assert status_of(small, name)["corrupt"] == 0, "nobody has read it yet"
    found = scrubbed(small, name, expect=6)
    assert 1 <= found["corrupt"] <= found["parts"]

    deadline = time.monotonic() + PATIENCE_S
    while status_of(small, name)["corrupt"]:
        assert time.monotonic() < deadline, small.status()
        time.sleep(0.5)
    assert scrubbed(small, name, expect=0)["parts"] == held
    assert person.json("verify", asset)["state"] == "healthy"
    person.json("unlock", asset, "-o", str(output))
    assert output.read_bytes() == source.read_bytes()
    assert small.named(holders_of(person, asset)[0]) == name, "replaced in place"


def test_siblings_that_audit_find_what_a_disk_did_and_its_node_mends_it(small: LocalNetwork, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(os.urandom(1000))
    person = small.person("dora")
    person.init()
    asset = person.json("lock", str(source), "--tier", "basic")["asset"]
    name, *others = [small.named(node) for node in holders_of(person, asset)]
    small.verb("corrupt", name)
    assert any(audited(small, other) == ExitCode.CORRUPT for other in others)
    deadline = time.monotonic() + PATIENCE_S
    while person.json("verify", asset, expect=None)["state"] != "healthy":
        assert time.monotonic() < deadline, small.status()
        time.sleep(0.5)
    assert small.named(holders_of(person, asset)[0]) == name, "replaced in place"
    assert all(not status_of(small, other)["audits"]["faults"] for other in others), "who says it is forgiven"


def audited(network: LocalNetwork, name: str) -> int:
    """The exit code of a round by a node."""
    config = str(network.directory / name / "node.toml")
    done = command("lockbox-node", "audit", "--config", config, "--json", expect=None)
    said = json.loads(done.stdout)["pass"]
    assert said["held"] + said["corrupt"] == said["parts"] >= 1
    return done.returncode


def test_the_nodes_of_a_network_believe_their_clocks(small: LocalNetwork) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (clock := status_of(small, "n01")["clock"])["trusted"]:
        assert time.monotonic() < deadline, clock
        time.sleep(1.0)
