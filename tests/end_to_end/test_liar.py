"""A node that claims Sydney and stands in Frankfurt: light refutes it everywhere, and it is given nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.local_network import local_network
from tests.end_to_end.suite import statuses, within

if TYPE_CHECKING:
    from pathlib import Path

REGIONS = "us-east-1,eu-west-1,eu-north-1,eu-central-1,ap-south-1,ap-northeast-1,ap-southeast-2"
NODES = 14
LIAR = "n07"  # the seventh region is Sydney
REFUTED_S = 60.0


def test_who_claims_sydney_from_frankfurt_is_excluded_with_a_reason_and_nobody_else(tmp_path: Path) -> None:
    world = ("--latency", "world", "--regions", REGIONS, "--liar", f"{LIAR}=eu-central-1")
    with local_network(NODES, *world) as network:
        liar = next(node["id"] for node in network.nodes if node["name"] == LIAR)

        def all_agree() -> bool:
            return all(said["location"]["refuted"] == [liar] for said in statuses(network).values())

        within(REFUTED_S, all_agree, lambda: {name: said["location"] for name, said in statuses(network).items()})
        told = statuses(network)[LIAR]["location"]
        assert (told["policy"], told["level"]) == ("measured", "refuted")
        assert len({by["operator"] for by in told["contradicted_by"]}) >= 3
        assert all(by["within_km"] < 15_700 for by in told["contradicted_by"]), "nearer than Sydney is to any of them"

        person = network.person("alice")
        person.init()
        source = tmp_path / "in"
        source.write_bytes(os.urandom(5_000))
        person.json("lock", str(source), "--tier", "standard")
        assert statuses(network)[LIAR]["stripes"] == 0
