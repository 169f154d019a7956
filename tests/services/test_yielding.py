"""Shards out of place: brought to better places first, let go afterwards, and only against proof."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from lockbox_node.core.placement import is_legal, place
from lockbox_node.core.repair import Cause
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import ShardMissing
from lockbox_node.ports import settled
from protocol.ids import NodeId, distance
from protocol.messages import (
    ENTRIES_MAX,
    NO_INDEX,
    GetShards,
    HolderEntry,
    HolderTable,
    Message,
    PutStripe,
    TellHolders,
)
from tests.fakes.healing_cluster import Cluster, look, peer_of, running
from tests.fakes.stripes import AssetSigner, coded_parts, node_of

if TYPE_CHECKING:
    from lockbox_node.ports import Answer, StripePart
    from lockbox_node.rpc.hello import Peer


def move_beside_another(cluster: Cluster, part: StripePart, node: NodeId) -> None:
    """The node joins again in a region too near to one that the stripe uses."""
    used = {cluster.records[NodeId(entry.node)].region for entry in part.entries}
    near = {"us-east-1": "us-east-2", "eu-west-1": "eu-west-2", "us-west-1": "us-west-2"}
    home = cluster.records[node].region
    region = next(there for here, there in near.items() if here in used and here != home)
    cluster.records[node] = replace(cluster.records[node], region=region)


async def holds(cluster: Cluster, node: NodeId, part: StripePart) -> bool:
    return bool((await look(cluster.stores[node], part.address)).parts)


async def standing(cluster: Cluster, part: StripePart) -> dict[int, list[NodeId]]:
    """Index -> who has genuine shards of it."""
    found: dict[int, list[NodeId]] = {}
    for node in cluster.ids:
        with suppress(ShardMissing):
            found.setdefault((await cluster.part_at(node, part)).index, []).append(node)
    return found


async def heir_of(cluster: Cluster, node: NodeId, part: StripePart) -> NodeId:
    """Who else has what the node holds."""
    index = (await cluster.part_at(node, part)).index
    (heir,) = [one for one in (await standing(cluster, part))[index] if one != node]
    return heir


async def moved(cluster: Cluster) -> None:
    """Until the first shard is at its new place; virtual time."""
    with trio.fail_after(120):
        while not cluster.puts():  # noqa: ASYNC110
            await trio.sleep(0.5)
    await trio.sleep(1)


@pytest.mark.parametrize("rank", [0, 4, 9])
async def test_what_a_node_holds_moves_when_its_region_is_another(
    rank: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[rank]
        move_beside_another(cluster, part, node)
        await trio.sleep(120)
        found = await standing(cluster, part)
        assert len(found) == STANDARD.n
        assert not await holds(cluster, node, part)
        assert is_legal(STANDARD, {index: cluster.candidate(nodes[0]) for index, nodes in found.items()})
        assert all(len(nodes) == 1 for nodes in found.values())
        assert len(cluster.puts()) == 1
        assert sum(one.figures.done[Cause.OUT_OF_PLACEMENT] for one in cluster.healings.values()) == 1
        assert cluster.sum("repairs_done") == 1
        assert cluster.sum("let_go") == 1
        assert cluster.sum("pending") == cluster.sum("repairs_failed") == 0


async def test_an_operator_that_grew_gives_up_what_is_over_the_cap(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        grown = cluster.nearest_first(part)[:6]
        for node in grown:
            cluster.records[node] = replace(cluster.records[node], operator="grown")
        await trio.sleep(120)
        found = await standing(cluster, part)
        assert is_legal(STANDARD, {index: cluster.candidate(nodes[0]) for index, nodes in found.items()})
        kept = [node for node in grown if await holds(cluster, node, part)]
        assert len(kept) == STANDARD.shards_per_operator_max
        assert cluster.sum("let_go") == 2


async def test_the_old_copy_stays_until_the_new_one_stands_and_is_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        move_beside_another(cluster, part, node)
        await moved(cluster)
        assert await holds(cluster, node, part)
        index = (await cluster.part_at(node, part)).index
        heir = await heir_of(cluster, node, part)
        cluster.lying.add(heir)
        await trio.sleep(120)
        assert await holds(cluster, node, part), "the heir shows shards that are not the owner's"
        assert cluster.sum("let_go") == 0
        entries = (await cluster.part_at(cluster.nearest_first(part)[0], part)).entries
        newest = max((entry for entry in entries if entry.node == node), key=lambda entry: entry.sequence)
        assert newest.index == index, "it took back that it holds nothing"
        cluster.lying.clear()
        await trio.sleep(60)
        assert not await holds(cluster, node, part)


async def test_an_heir_that_does_not_answer_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        move_beside_another(cluster, part, node)
        await moved(cluster)
        cluster.silent.add(await heir_of(cluster, node, part))  # it still lives by all records
        await trio.sleep(120)
        assert await holds(cluster, node, part)


async def test_of_two_that_trust_in_each_other_at_once_neither_lets_go(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        move_beside_another(cluster, part, node)
        await moved(cluster)
        heir = await heir_of(cluster, node, part)
        hears: Any = cluster.handlers[heir][TellHolders]
        lines = [HolderEntry(NO_INDEX, heir, 2**20)]
        says = HolderTable(part.address, part.version, part.descriptor_hash, lines)

        def hears_and_says(message: Message, peer: Peer, answer: Answer[Message]) -> None:
            cluster.stores[node].merge((), [says], lambda _merged: hears(message, peer, answer))

        cluster.handlers[heir][TellHolders] = hears_and_says
        await trio.sleep(120)
        assert cluster.sum("repairs_failed") == 1, "it took back that it holds nothing"
        assert len(cluster.puts()) == 2, "a third one got the index before the first let go"
        assert not await holds(cluster, node, part)


async def test_without_a_better_place_everything_stays_and_nothing_is_fetched(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        holders = cluster.nearest_first(part)
        cluster.full.update(set(cluster.ids) - set(holders))
        move_beside_another(cluster, part, holders[4])
        await trio.sleep(120)
        assert cluster.puts() == []
        assert not [message for _, _, message in cluster.requests if isinstance(message, GetShards | PutStripe)]
        assert len(await standing(cluster, part)) == STANDARD.n
        assert cluster.sum("repairs_failed") > 0
        assert cluster.sum("pending") == STANDARD.n, "every holder reports it"


async def test_a_move_fetches_the_shard_itself_and_not_k_others(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        move_beside_another(cluster, part, cluster.nearest_first(part)[4])
        await moved(cluster)
        assert len([message for _, _, message in cluster.requests if isinstance(message, GetShards)]) == 1


async def test_a_displaced_holder_that_does_not_serve_is_no_obstacle(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        move_beside_another(cluster, part, node)
        cluster.silent.add(node)
        await trio.sleep(120)
        found = await standing(cluster, part)
        assert is_legal(STANDARD, {index: cluster.candidate(nodes[0]) for index, nodes in found.items()})
        assert len([message for _, _, message in cluster.requests if isinstance(message, GetShards)]) > STANDARD.k


async def test_a_table_that_strangers_filled_has_room_for_our_word(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        move_beside_another(cluster, part, node)
        await moved(cluster)
        others = [HolderEntry(number % STANDARD.n, node_of(1000 + number), 1) for number in range(ENTRIES_MAX)]
        full = HolderTable(part.address, part.version, part.descriptor_hash, others)
        await settled(partial(cluster.stores[node].merge, (), [full]))
        assert len((await cluster.part_at(node, part)).entries) == ENTRIES_MAX
        await trio.sleep(60)
        assert not await holds(cluster, node, part)
        assert cluster.sum("let_go") == 1


async def test_a_member_that_stores_nothing_makes_no_holder_drop_the_only_copy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It lies about itself and an innocent node, and shows the holder the holder's own shards."""
    async with running(Cluster()) as cluster:
        address, records = AssetSigner("a").address, cluster.records
        innocent, thief, *others = sorted(cluster.ids, key=lambda node: distance(node, address))
        holders = place(STANDARD, address, [cluster.candidate(node) for node in others])
        parts = coded_parts("a", [holders[index].node for index in range(STANDARD.n)], STANDARD, 300, 2)
        for part in parts:
            await cluster.put(NodeId(holders[part.index].node), part)
        near = {"us-east-1": "us-east-2", "eu-west-1": "eu-west-2", "us-west-1": "us-west-2"}
        shards_in = Counter(holder.region for holder in holders.values())
        index = next(i for i, holder in holders.items() if holder.region in near and shards_in[holder.region] == 1)
        other = next(i for i in holders if i != index)
        victim = NodeId(holders[index].node)
        records[innocent] = replace(records[innocent], region=near[holders[index].region])
        records[thief] = replace(records[thief], region=holders[other].region)
        serve: Any = cluster.handlers[victim][GetShards]
        cluster.handlers[thief][GetShards] = lambda request, _peer, answer: serve(request, peer_of(thief), answer)
        lines = [HolderEntry(index, thief, 9), HolderEntry(other, innocent, 9)]
        lines.sort(key=lambda line: (line.index, line.node))
        forged = TellHolders([HolderTable(address, parts[0].version, parts[0].descriptor_hash, lines)], None)
        hear: Any = cluster.handlers[victim][TellHolders]
        await settled(partial(hear, forged, peer_of(thief)))
        cluster.healings[victim].sweep_soon()
        for _ in range(60):
            await trio.sleep(1)
            assert (await cluster.part_at(victim, parts[0])).index == index
