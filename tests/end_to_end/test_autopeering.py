"""The autopeering suite: nodes that know one seed alone find each other, in one network, in two halves, and again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.local_network import LocalNetwork, local_network
from tests.end_to_end.suite import MERGED_S, is_settled, statuses, until_settled, within

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 8
HALF = NODES // 2
NEIGHBOURS_MIN = 2
NOTICED_S = 30.0


@pytest.fixture(scope="module")
def hamlet() -> Iterator[LocalNetwork]:
    """A seed, and others that came later and know its address only."""
    with local_network(1) as network:
        network.verb("add", str(NODES - 1))
        yield network


def test_all_find_each_other_through_one_seed(hamlet: LocalNetwork) -> None:
    seed, *others = hamlet.status()
    for row in others:
        config = tomllib.loads((Path(row["data"]) / "node.toml").read_text())
        assert config["node"]["bootstrap"] == [seed["address"]]
    until_settled(hamlet, NODES)
    assert all(said["connections"] >= NEIGHBOURS_MIN for said in statuses(hamlet).values())


def test_each_half_sees_its_own_also_after_a_restart_and_after_healing_all_are_one_within_30_s(
    hamlet: LocalNetwork,
) -> None:
    names = [row["name"] for row in hamlet.status()]
    (root,) = {said["state_root"] for said in statuses(hamlet).values()}
    hamlet.verb("partition", ",".join(names[:HALF]), ",".join(names[HALF:]))

    def halves() -> list[list[dict[str, object]]]:
        said = statuses(hamlet)
        return [[said[name] for name in side] for side in (names[:HALF], names[HALF:])]

    def parted() -> bool:
        return all(is_settled(half, HALF) for half in halves())

    within(NOTICED_S, parted, lambda: [[(one["members"], one["ready"]) for one in half] for half in halves()])
    hamlet.verb("restart", names[-1])  # the seed, all that it was told of, is on the other side
    within(NOTICED_S, parted, lambda: [[(one["members"], one["ready"]) for one in half] for half in halves()])
    assert len({str(half[0]["state_root"]) for half in halves()} | {root}) == 3

    hamlet.verb("heal")
    until_settled(hamlet, NODES, MERGED_S)
    assert {said["members"]["dead"] for said in statuses(hamlet).values()} == {0}
