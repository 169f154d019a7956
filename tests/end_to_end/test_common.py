"""The common suite: who comes late catches up, and who was away is not ready first, then ready, and holds the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.local_network import LocalNetwork, Person, local_network
from lockbox_node.core.tiers import BASIC
from tests.end_to_end.suite import readiness, statuses, until_compared, until_settled, within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODES = BASIC.n  # every asset stands on every node, until another comes
ASSETS = 3
READY_S = 30.0
NOTICED_S = 30.0
AWAY, DEAD, FIRST = "n02", "n03", ("n01", "n04")
BACKFILL_S = 60.0  # detection, hold-off of 3 s, repairs


@pytest.fixture(scope="module")
def village() -> Iterator[LocalNetwork]:
    with local_network(NODES, "--policy", "healing=off") as network:
        yield network


@pytest.fixture(scope="module")
def alice(village: LocalNetwork) -> Person:
    person = village.person("alice")
    person.init()
    return person


@pytest.fixture(scope="module")
def assets(alice: Person, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Asset -> content, all on all of the first nodes."""
    home = tmp_path_factory.mktemp("assets")
    return dict(locked(alice, home) for _ in range(ASSETS))


def locked(person: Person, home: Path) -> tuple[str, bytes]:
    """A new asset and its content."""
    source = home / "in"
    source.write_bytes(os.urandom(20_000))
    return str(person.json("lock", str(source), "--tier", BASIC.name)["asset"]), source.read_bytes()


def content_of(person: Person, asset: str, home: Path) -> bytes:
    """What unlocking it gives."""
    output = home / "out"
    output.unlink(missing_ok=True)
    person.json("unlock", asset, "-o", str(output))
    return output.read_bytes()


def dead_in_all_eyes(network: LocalNetwork) -> bool:
    """Whether all that answer have found out that one is gone."""
    return {said["members"]["dead"] for said in statuses(network).values()} == {1}


def test_who_comes_late_knows_what_all_know(village: LocalNetwork, assets: dict[str, bytes]) -> None:
    (late,) = village.verb("add", "1")["nodes"]
    until_settled(village, NODES + 1)
    said = statuses(village)
    assert said[late]["documents"] == said["n01"]["documents"]
    *first, last = (one["stripes"] for one in said.values())
    assert len(set(first)) == 1
    assert first[0] >= len(assets)
    assert last == 0


def test_who_was_away_is_not_ready_until_it_hears_the_others_and_then_holds_what_it_held(
    village: LocalNetwork, alice: Person, assets: dict[str, bytes], tmp_path: Path
) -> None:
    before = statuses(village)[AWAY]
    others = [name for name in statuses(village) if name != AWAY]
    village.verb("kill", AWAY)
    within(NOTICED_S, lambda: dead_in_all_eyes(village), lambda: statuses(village))
    asset, content = locked(alice, tmp_path)
    assets[asset] = content
    village.verb("partition", AWAY, ",".join(others))
    village.verb("restart", AWAY)
    assert readiness(village, AWAY) == (503, {"ready": False, "reasons": ["no other node was reached yet"]})
    assert not statuses(village)[AWAY]["ready"]

    village.verb("heal")
    within(READY_S, lambda: statuses(village)[AWAY]["ready"], lambda: readiness(village, AWAY))
    assert readiness(village, AWAY) == (200, {"ready": True, "reasons": []})
    until_settled(village, len(others) + 1)
    until_compared(village, [AWAY])
    after = statuses(village)[AWAY]
    for figure in ("stripes", "shards", "corrupt"):
        assert after[figure] == before[figure]
    assert after["siblings"]["differing"] == 0
    for asset, content in assets.items():
        assert content_of(alice, asset, tmp_path) == content


def test_who_came_late_takes_the_place_of_a_dead_node_in_every_asset(
    village: LocalNetwork, alice: Person, assets: dict[str, bytes], tmp_path: Path
) -> None:
    said = statuses(village)
    wanted = sum(one["stripes"] for one in said.values())
    village.verb("policy", "healing=on")
    village.verb("kill", DEAD)
    within(BACKFILL_S, lambda: sum(one["stripes"] for one in statuses(village).values()) == wanted, lambda: said)
    village.verb("policy", "healing=off")
    village.verb("stop", *FIRST)  # 3 of 5 are needed: every one that is left, the late one among them
    for asset, content in assets.items():
        assert content_of(alice, asset, tmp_path) == content
