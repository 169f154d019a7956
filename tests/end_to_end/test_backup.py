"""A node burns and comes back from its backup: it holds what it held, and serves it when nobody else is left to."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.local_network import command
from tests.end_to_end.test_holders import holders_of
from tests.fakes.backed_up import held_in

if TYPE_CHECKING:
    from benchmarks.local_network import LocalNetwork, Person

LARGE_BYTES = 3_000_000  # a file of its own at each holder
LOCKS_MAX = 20
READY_S = 60.0


def locked(person: Person, source: Path, size: int, tier: str) -> str:
    """A new asset of the content that `source` now has."""
    source.write_bytes(os.urandom(size))
    return str(person.json("lock", str(source), "--tier", tier)["asset"])


def said_of(verb: str, data: Path, *words: str) -> dict[str, Any]:
    """What `lockbox-node VERB --json` says of the node in `data`."""
    done = command("lockbox-node", verb, *words, "--config", str(data / "node.toml"), "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def until_ready(data: Path) -> None:
    """Return when the node in `data` answers for what it holds."""
    deadline = time.monotonic() + READY_S
    while not said_of("status", data)["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_wiped_node_comes_back_from_full_and_delta_and_serves_its_parts(
    whole: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    names = {node["id"]: node["name"] for node in whole.nodes}
    asset = locked(alice, tmp_path / "large", LARGE_BYTES, "basic")
    node, *others = holders_of(alice, asset)
    data = Path(next(one["data"] for one in whole.nodes if one["id"] == node))
    backup = tmp_path / "backup"
    full = said_of("backup", data, str(backup))
    assert (full["kind"], full["big"]["files"] > 0) == ("full", True)
    for _ in range(LOCKS_MAX):  # Elite goes to 20 of the 24 nodes
        locked(alice, tmp_path / "small", 1_000, "elite")
        if said_of("status", data)["stripes"] > full["parts"]:
            break
    delta = said_of("backup", data, str(backup))
    assert (delta["kind"], delta["parts"] > full["parts"]) == ("delta", True)
    assert said_of("status", data)["last_backup"] == {name: delta[name] for name in ("unix_s", "kind", "bytes")}

    whole.verb("kill", names[node])
    held = held_in(data)
    assert len(held) == delta["parts"]
    shutil.rmtree(data)
    command("lockbox-node", "restore", str(backup), "--dir", str(data))
    assert held_in(data) == held

    whole.verb("restart", names[node])
    until_ready(data)  # it asks its siblings first what it missed
    found = said_of("status", data)["restored"]
    assert (found["checked"], found["dropped"]) == (len(held), 0)
    whole.verb("stop", *(names[other] for other in others[:2]))  # 3 of 5 are needed: every one that is left
    alice.json("unlock", asset, "-o", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "large").read_bytes()
