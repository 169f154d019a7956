"""One real network of 24 daemons for the whole folder, healing paused until a test wants it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.local_network import LocalNetwork, Person, local_network

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 24


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture(scope="package")
def network() -> Iterator[LocalNetwork]:
    with local_network(NODES, "--policy", "healing=off") as network:
        yield network


@pytest.fixture(scope="package")
def alice(network: LocalNetwork) -> Person:
    person = network.person("alice")
    person.init()
    return person


@pytest.fixture
def whole(network: LocalNetwork) -> Iterator[LocalNetwork]:
    """The network, with everything that the test stopped or killed running again afterwards."""
    yield network
    rows = network.status()
    stopped = [row["name"] for row in rows if row["state"] == "stopped"]
    down = [row["name"] for row in rows if row["state"] == "down"]
    if stopped:
        network.verb("cont", *stopped)
    if down:
        network.verb("restart", *down)
