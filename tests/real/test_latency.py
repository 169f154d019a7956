"""Ten daemons in namespaces all over the world, each packet held for as long as its way takes: it costs what it costs
on `lockbox-testnet --latency world`, where the delay is made inside of the daemons.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import local_network
from lockbox_node.cli.delays import round_trip_ms
from tests.real import netns, wan
from tests.real.village import Village

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.local_network import LocalNetwork

pytestmark = pytest.mark.root

NODES, CLIENT, REGION = 10, 11, "eu-central-1"
MEASURE_S = 180
LATE_MS = 25.0  # what a busy machine adds to the quickest of some tries
RATIO_MAX = 1.5


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    netns.require_tools()
    (tmp_path / "village").mkdir()
    village = Village(tmp_path / "village", NODES, wan.address_of)
    with netns.namespaces(CLIENT), wan.relaying([*village.regions, REGION]):
        yield village


def measured(network: LocalNetwork, home: Path, prefix: Sequence[str] = ()) -> dict[str, Any]:
    home.mkdir()
    (home / "summary").write_text(json.dumps(network.summary))
    line = [*prefix, sys.executable, "-m", "tests.real.far_client", str(home / "summary"), str(home), REGION]
    done = subprocess.run(line, capture_output=True, text=True, cwd=wan.ROOT, timeout=MEASURE_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_packets_held_between_namespaces_cost_what_the_delays_of_the_daemons_cost(
    village: Village, tmp_path: Path
) -> None:
    with village.running() as network:
        held = measured(network, tmp_path / "held", netns.inside(CLIENT))
    with local_network(NODES, "--latency", "world", "--client-region", REGION, "--policy", "healing=off") as network:
        made = measured(network, tmp_path / "made")
    print(json.dumps({"held": held, "made": made}))
    for region, connect_ms in held["connect_ms"].items():
        assert 0 <= connect_ms - round_trip_ms(REGION, region) < LATE_MS
    for found in (held, made):
        assert (found["lock"]["trips"], found["unlock"]["trips"]) == (1, 2)
        assert 1 <= found["lock"]["ratio"] < RATIO_MAX
        assert 1 <= found["unlock"]["ratio"] < RATIO_MAX
