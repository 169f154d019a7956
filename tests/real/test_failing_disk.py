"""The disk of a node dies under it: it says so, its siblings take over, and nobody misses anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import LocalNetwork, local_network
from tests.end_to_end.test_holders import holders_of
from tests.real.loop_disk import fail, loop_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root
NODES = 14
DISK_BYTES = 128 * 1024 * 1024
WAIT_S = 90.0  # the node notices with its next write, at the latest its uptime a minute later


@pytest.fixture(scope="module")
def network() -> Iterator[LocalNetwork]:
    with local_network(NODES) as network:
        yield network


def row_of(network: LocalNetwork, name: str) -> dict[str, Any]:
    row = next(row for row in network.status() if row["name"] == name)
    said: dict[str, Any] = row.get("status") or {}
    return said


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


def test_a_node_whose_disk_dies_says_so_and_its_siblings_take_over(network: LocalNetwork, tmp_path: Path) -> None:
    alice = network.person("alice")
    alice.init()
    source = tmp_path / "secret"
    source.write_bytes(os.urandom(300_000))
    asset = alice.json("lock", str(source), "--tier", "standard")["asset"]
    node = holders_of(alice, asset)[3]
    name = network.named(node)
    data = Path(next(one["data"] for one in network.nodes if one["id"] == node))

    network.verb("kill", name)
    kept = tmp_path / "kept"
    shutil.copytree(data, kept, ignore=shutil.ignore_patterns("control.sock"))
    with loop_disk(tmp_path / "image", data, DISK_BYTES):
        subprocess.run(["cp", "-a", f"{kept}/.", str(data)], check=True)
        network.verb("restart", name)
        assert alice.json("verify", asset)["state"] == "healthy"
        fail(data)
        until(lambda: row_of(network, name).get("state") == "draining", lambda: row_of(network, name))
        assert not row_of(network, name)["ready"]

        def moved() -> bool:
            report = alice.json("verify", asset, expect=None)
            held = {row["node"] for row in report.get("holders", []) if row["verdict"] == "held"}
            return report.get("state") == "healthy" and node not in held

        until(moved, lambda: alice.json("verify", asset, expect=None))
        output = tmp_path / "out"
        alice.json("unlock", asset, "-o", str(output))
        assert output.read_bytes() == source.read_bytes()
        network.verb("kill", name)
