"""The report verb: pages through the store, one at a time, and says of how much it speaks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.core.regions import spread_regions
from lockbox_node.core.tiers import STANDARD
from lockbox_node.observe.reporting import PAGE, Reporting
from lockbox_node.ports import settled
from protocol.ids import NodeId
from tests.fakes.healing_cluster import NODES as CLUSTER_NODES
from tests.fakes.healing_cluster import Cluster, View
from tests.fakes.stripes import NOW_UNIX_S, make_stripe, node_of

if TYPE_CHECKING:
    from trio.testing import MockClock


KEYS = {
    "node", "region", "operator", "made", "view_trusted", "members", "stripes", "tiers", "margins", "lost", "short",
    "out_of_placement", "location", "regions", "operators", "releases", "unlisted", "worst", "worst_listed_max",
}  # fmt: skip
CASE_KEYS = {"name", "nodes", "gone", "shards", "stripes", "worst", "lost", "margins"}


class NoMembers:
    """Of a membership only the table is read, for the dead."""

    members: dict[NodeId, Any] = {}  # noqa: RUF012


NODES = [NodeId(node_of(number)) for number in range(CLUSTER_NODES)]


def level(node: NodeId) -> str:
    return "refuted" if node == NODES[2] else "claimed"


def reporting(cluster: Cluster, node: NodeId) -> Reporting:
    machine: Any = NoMembers()
    view: Any = View(node, cluster)
    return Reporting(cluster.stores[node], view, machine, lambda: True, lambda: float(NOW_UNIX_S), level)


async def reported(cluster: Cluster, node: NodeId) -> dict[str, Any]:
    said = await reporting(cluster, node).report({})
    assert isinstance(said, dict)
    return said


async def test_a_node_that_holds_nothing_still_names_the_regions() -> None:
    cluster = Cluster()
    said = await reported(cluster, cluster.ids[0])
    assert set(said) == KEYS
    assert said["stripes"] == 0
    assert {region["name"] for region in said["regions"]} == set(spread_regions(7))
    assert all(set(case) == CASE_KEYS for case in said["operators"])
    assert set(said["regions"][0]) == CASE_KEYS | {"city", "latitude", "longitude", "location"}
    assert said["worst"] == []
    assert said["location"] == {"claimed": len(NODES) - 1, "refuted": 1}
    assert sum(region["location"].get("refuted", 0) for region in said["regions"]) == 1
    assert said["made"] == "2027-01-15T08:00:00+00:00"


async def test_a_dead_region_is_in_the_margins(autojump_clock: MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    node, *others = cluster.nearest_first(part)
    before = await reported(cluster, node)
    assert before["margins"] == {"5": 1}
    region = next(case["name"] for case in before["regions"] if case["name"] != cluster.records[node].region)
    expected = next(case["worst"] for case in before["regions"] if case["name"] == region)
    cluster.known_dead.update(one for one in others if cluster.records[one].region == region)
    after = await reported(cluster, node)
    assert after["margins"] == {str(expected): 1}, "the report before said what came"
    assert after["short"] == 1
    assert after["worst"][0]["address"] == part.address.hex()[:16]


async def test_every_stripe_of_many_pages_is_counted_once(autojump_clock: MockClock) -> None:
    cluster = Cluster()
    node = cluster.ids[0]
    parts = 2 * PAGE
    for number in range(parts):
        await cluster.put(node, make_stripe(number, shard_bytes=64, groups=1).parts[0])
    said = await reported(cluster, node)
    assert said["stripes"] == cluster.stores[node].figures().stripes == parts
    assert said["tiers"] == {STANDARD.name: parts}
    assert len(said["worst"]) == said["worst_listed_max"] == 20


async def test_what_lies_in_trash_is_left_out(autojump_clock: MockClock) -> None:
    cluster = Cluster()
    node = cluster.ids[0]
    await cluster.put(node, make_stripe("a", lease_s=5).parts[0])
    await cluster.put(node, make_stripe("b").parts[0])
    assert await settled(partial(cluster.stores[node].expire, NOW_UNIX_S + 6.0, 1.0)) == 1
    assert (await reported(cluster, node))["stripes"] == 1


async def test_two_that_ask_at_once_wait_for_one_another(autojump_clock: MockClock) -> None:
    cluster = Cluster()
    node = cluster.ids[0]
    await cluster.put(node, make_stripe("a").parts[0])
    made = reporting(cluster, node)
    answers: list[object] = []

    async def ask() -> None:
        answers.append(await made.report({}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers[0] == answers[1]
