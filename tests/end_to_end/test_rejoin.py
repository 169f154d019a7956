"""A holder that lost its disk gets it back from its siblings: no client is there, nobody asks for it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.local_network import LocalNetwork, Person, local_network
from tests.end_to_end.test_holders import holders_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 12
WAIT_S = 50.0  # less than the time between two regular comparisons


@pytest.fixture(scope="module")
def hamlet() -> Iterator[LocalNetwork]:
    """A network of its own, since the others are told not to heal; it waits long before it rebuilds elsewhere."""
    with local_network(NODES, "--policy", "hold-off=600") as network:
        yield network


@pytest.fixture(scope="module")
def carol(hamlet: LocalNetwork) -> Person:
    person = hamlet.person("carol")
    person.init()
    return person


def row_of(network: LocalNetwork, name: str) -> dict[str, object]:
    row = next(row for row in network.status() if row["name"] == name)
    said: dict[str, object] = row.get("status") or {}
    return said


def until_holding(network: LocalNetwork, name: str, stripes: object) -> None:
    """Poll the node itself; no client is asked, so that none brings anything back."""
    deadline = time.monotonic() + WAIT_S
    while row_of(network, name).get("stripes") != stripes:
        assert time.monotonic() < deadline, row_of(network, name)
        time.sleep(0.5)


def test_an_emptied_holder_gets_its_parts_back_without_any_client(
    hamlet: LocalNetwork, carol: Person, tmp_path: Path
) -> None:
    assets = []
    for number, size in enumerate((1_000, 400_000, 3_000_000)):
        source = tmp_path / str(number)
        source.write_bytes(os.urandom(size))
        assets.append(carol.json("lock", str(source), "--tier", "standard")["asset"])
    node = holders_of(carol, assets[0])[4]
    name = hamlet.named(node)
    before = row_of(hamlet, name)
    stripes = before["stripes"]
    assert stripes

    hamlet.verb("kill", name)
    data = Path(next(one["data"] for one in hamlet.nodes if one["id"] == node))
    for path in [data / "STORE", *data.glob("shards.db*")]:
        path.unlink()
    shutil.rmtree(data / "big")
    hamlet.verb("restart", name)
    until_holding(hamlet, name, stripes)
    for asset in assets:
        assert carol.json("verify", asset)["state"] == "healthy"
    assert row_of(hamlet, name)["shards"] == before["shards"]
