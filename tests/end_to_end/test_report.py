"""The standing report before and after a region is killed: what it foretold is what is left."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from benchmarks.local_network import LocalNetwork, command, local_network
from lockbox_node.core.tiers import STANDARD
from tests.end_to_end.suite import statuses, within

if TYPE_CHECKING:
    from pathlib import Path

NODES = STANDARD.n  # every asset stands on every node, so that each knows all of it
ASSETS = 2
NOTICED_S = 60.0


def report(network: LocalNetwork, name: str, *words: str) -> str:
    return command("lockbox-node", "report", "--config", str(network.directory / name / "node.toml"), *words).stdout


def said_by(network: LocalNetwork, name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(report(network, name, "--json"))
    return said


def region_of(said: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(region for region in said["regions"] if region["name"] == name)
    return found


def test_the_margins_after_a_region_was_killed_are_those_that_the_report_foretold(tmp_path: Path) -> None:
    with local_network(NODES, "--policy", "healing=off") as network:
        person = network.person("alice")
        person.init()
        source = tmp_path / "in"
        source.write_bytes(os.urandom(5_000))
        locked = [person.json("lock", str(source), "--tier", "standard") for _ in range(ASSETS)]
        region = next(row["region"] for row in network.status() if row["name"] == "n02")
        dead = sum(row["region"] == region for row in network.status())

        before = said_by(network, "n01")
        assert before["stripes"] >= ASSETS
        assert before["margins"] == {"5": before["stripes"]}
        assert region_of(before, region)["worst"] == 5 - dead
        assert region_of(before, region)["stripes"] == before["stripes"]
        assert before["out_of_placement"] == before["short"] == before["lost"] == 0

        network.verb("kill-region", region)
        within(
            NOTICED_S,
            lambda: statuses(network)["n01"]["members"]["dead"] == dead,
            lambda: statuses(network)["n01"]["members"],
        )
        after = said_by(network, "n01")
        assert after["margins"] == {str(5 - dead): before["stripes"]}
        assert after["short"] == before["stripes"]
        gone = region_of(after, region)
        assert (gone["nodes"], gone["gone"], gone["shards"], gone["worst"]) == (0, dead, 0, None)
        assert after["regions"][0]["worst"] < before["regions"][0]["worst"]

        verified = person.json("verify", locked[0]["asset"], expect=None)
        assert verified["margin"]["nodes"] == 5 - dead
        at_risk = {risk["address"]: risk for risk in after["worst"]}
        assert at_risk[locked[0]["address"][:16]]["margin"] == verified["margin"]["nodes"]

        lines = report(network, "n01").splitlines()
        (line,) = [line for line in lines if line.startswith(region)]
        assert line.removeprefix(f"{region}  {gone['city']}").split() == ["-", *"00000000", str(dead)]
