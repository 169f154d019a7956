"""The snapshot suite: a whole network goes, and comes back from what each node backed up, full copy and delta.

A truncated delta is refused and leaves nothing; whole ones bring back every part, and all nodes say one state root.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import LocalNetwork, Person, command, local_network
from lockbox_node.core.tiers import BASIC
from tests.end_to_end.suite import statuses, until_compared, until_settled
from tests.end_to_end.test_backup import said_of
from tests.fakes.backed_up import held_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lockbox_node.ports import StripePart

NODES = BASIC.n  # every asset stands on every node
SIZES = 20_000, 3_000_000  # the larger one is a file of its own at each holder
READY_S = 60.0


class Saved:
    """A network, its backups, and what stood in each node when they were made."""

    def __init__(self, network: LocalNetwork, alice: Person, home: Path) -> None:
        self.network, self.alice, self._home = network, alice, home
        self.data = {row["name"]: Path(row["data"]) for row in network.nodes}
        self.assets: dict[str, bytes] = {}
        self.held: dict[str, dict[bytes, StripePart]] = {}
        self.parts = 0  # of each node

    def backup_of(self, name: str) -> Path:
        """Where the backups of a node are."""
        return self._home / name

    def lock(self) -> None:
        """One asset of each size."""
        source = self._home / "in"
        for size in SIZES:
            source.write_bytes(os.urandom(size))
            asset = self.alice.json("lock", str(source), "--tier", BASIC.name)["asset"]
            self.assets[asset] = source.read_bytes()

    def back_up(self) -> set[str]:
        """Every node; of which kind the backups are."""
        made = {name: said_of("backup", data, str(self.backup_of(name))) for name, data in self.data.items()}
        (self.parts,) = {one["parts"] for one in made.values()}
        return {one["kind"] for one in made.values()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """All nodes backed up twice, with two assets between the full copy and the delta; then every node is killed."""
    with local_network(NODES) as network:
        alice = network.person("alice")
        alice.init()
        saved = Saved(network, alice, tmp_path_factory.mktemp("backups"))
        saved.lock()
        assert saved.back_up() == {"full"}
        before = saved.parts
        saved.lock()
        assert saved.back_up() == {"delta"}
        assert saved.parts > before
        network.verb("kill", *saved.data)
        saved.held = {name: held_in(data) for name, data in saved.data.items()}
        yield saved


def delta_in(backup: Path) -> Path:
    """The one delta file."""
    (delta,) = backup.glob("delta-*")
    return delta


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0], ids=["empty", "half", "a byte less"])
def test_a_truncated_delta_is_refused_in_one_line_and_nothing_is_restored(
    left: float, saved: Saved, tmp_path: Path
) -> None:
    backup, target = tmp_path / "backup", tmp_path / "node"
    shutil.copytree(saved.backup_of("n01"), backup)
    delta = delta_in(backup)
    os.truncate(delta, min(int(delta.stat().st_size * left), delta.stat().st_size - 1))
    refused = command("lockbox-node", "restore", str(backup), "--dir", str(target), expect=6)
    assert refused.stderr.startswith(f"lockbox-node: METADATA_CORRUPT: {delta} is damaged; nothing was restored; ")
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
    assert not target.exists() or not any(target.iterdir())


def test_a_whole_network_comes_back_from_full_and_delta_and_every_node_says_one_state_root(
    saved: Saved, tmp_path: Path
) -> None:
    network = saved.network
    for name, data in saved.data.items():
        shutil.rmtree(data)
        command("lockbox-node", "restore", str(saved.backup_of(name)), "--dir", str(data))
        assert held_in(data) == saved.held[name]
    network.verb("restart", *saved.data)
    until_settled(network, NODES, READY_S)  # ready only when all siblings were asked what was missed
    until_compared(network, list(saved.data))
    said: dict[str, dict[str, Any]] = statuses(network)
    for one in said.values():
        assert one["restored"] == {"checked": saved.parts, "dropped": 0, "missing": 0, "mended": 0}
        assert (one["siblings"]["differing"], one["digest_mismatches"], one["repairs"]["done"]) == (0, 0, 0)
    output = tmp_path / "out"
    for asset, content in saved.assets.items():
        assert saved.alice.json("verify", asset)["state"] == "healthy"
        saved.alice.json("unlock", asset, "-o", str(output), "--force")
        assert output.read_bytes() == content
