"""A node that claims Sydney and stands in Frankfurt: light refutes it everywhere, and it is given nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from benchmarks.local_network import LocalNetwork, command, local_network
from tests.end_to_end.suite import statuses, within

if TYPE_CHECKING:
    from pathlib import Path

REGIONS = "us-east-1,eu-west-1,eu-north-1,eu-central-1,ap-south-1,ap-northeast-1,ap-southeast-2"
NODES = 14
LIAR = "n07"  # the seventh region is Sydney
ASSETS = 1
REFUTED_S = 60.0
NOTICED_S = 60.0


def report(network: LocalNetwork, name: str) -> dict[str, Any]:
    config = network.directory / name / "node.toml"
    said: dict[str, Any] = json.loads(command("lockbox-node", "report", "--config", str(config), "--json").stdout)
    return said


def test_who_claims_sydney_from_frankfurt_is_excluded_with_a_reason_and_nobody_else(tmp_path: Path) -> None:
    world = ("--latency", "world", "--regions", REGIONS, "--liar", f"{LIAR}=eu-central-1")
    with local_network(NODES, *world, "--policy", "healing=off") as network:
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
        for _ in range(ASSETS):
            person.json("lock", str(source), "--tier", "standard")
        assert statuses(network)[LIAR]["stripes"] == 0

        before = report(network, "n01")
        assert before["margins"] == {"5": before["stripes"]}
        dead = sum(node["region"] == "eu-north-1" for node in network.nodes)
        network.verb("kill-region", "eu-north-1")
        within(
            NOTICED_S,
            lambda: statuses(network)["n01"]["members"]["dead"] == dead,
            lambda: statuses(network)["n01"]["members"],
        )
        after = report(network, "n01")
        foretold = next(region for region in before["regions"] if region["name"] == "eu-north-1")
        assert after["margins"] == left(before, foretold)


def left(before: dict[str, Any], foretold: dict[str, Any]) -> dict[str, int]:
    """Margin -> stripes, as a report says that the loss of a region would leave them."""
    margins: dict[str, int] = dict(foretold["margins"])
    untouched = before["stripes"] - foretold["stripes"]
    if untouched:
        margins["5"] = margins.get("5", 0) + untouched
    return dict(sorted(margins.items(), key=lambda one: int(one[0])))
