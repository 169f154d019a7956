"""One repair: what it fetches, checks, hands over and learns from the siblings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.core.placement import is_legal, neighbourhood, replacement
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, Tier
from lockbox_node.ports import Merged, settled
from protocol.ids import NodeId
from protocol.messages import (
    NO_INDEX,
    GetShards,
    HolderEntry,
    HolderTable,
    Signed,
)
from tests.fakes.healing_cluster import Cluster, delete, look, running
from tests.fakes.stripes import AssetSigner

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart


@pytest.mark.parametrize("tier", [STANDARD, ELITE], ids=lambda tier: tier.name)
async def test_several_lost_shards_come_back_in_one_repair(tier: Tier, autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a", tier, shard_bytes=100_000)
        nodes = cluster.nearest_first(part)
        cluster.kill(*nodes[1:4])
        await trio.sleep(15)
        assert is_legal(tier, await cluster.holders(part, nodes[0]))
        assert cluster.sum("repairs_done") == 1
        assert cluster.workers.runs > 1, "large shards are hashed in workers"


@pytest.mark.parametrize("seed", [40, 42, 44, 49])
async def test_the_disks_of_a_region_never_store_enough_to_rebuild_whoever_comes_back(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock(seed, BASIC)
        for _ in range(6):  # one after the other, so that no view is doubted
            by_distance = neighbourhood(part.address, [cluster.candidate(node) for node in await stored(cluster, part)])
            alive = [NodeId(holder.node) for holder in by_distance if holder.node not in cluster.down]
            cluster.kill(alive[1])
            await trio.sleep(70)
            assert len(await cluster.holders(part, alive[0])) == BASIC.n
        in_region: dict[str, set[int]] = {}
        for node, index in (await stored(cluster, part)).items():
            in_region.setdefault(cluster.records[node].region, set()).add(index)
        assert max(len(indices) for indices in in_region.values()) < BASIC.k


async def stored(cluster: Cluster, part: StripePart) -> dict[NodeId, int]:
    """Whose disk stores which index of a stripe, dead or alive."""
    views = {node: await look(cluster.stores[node], part.address) for node in cluster.ids}
    return {node: view.parts[0].index for node, view in views.items() if view.parts}


async def test_damage_seen_only_while_repairing_is_mended_first(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        steward, *others = cluster.nearest_first(part)
        cluster.stores[steward].corrupt(part.address, part.descriptor_hash)
        cluster.kill(others[3])
        await trio.sleep(60)
        assert is_legal(STANDARD, await cluster.holders(part, others[0]))


async def test_liars_and_silent_siblings_are_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.lying.add(nodes[1])
        cluster.silent.add(nodes[2])
        cluster.kill(nodes[4])
        await trio.sleep(12)
        cluster.silent.clear()
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_a_region_that_the_network_has_no_more_is_given_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        steward, *others = nodes = cluster.nearest_first(part)
        taken = await cluster.holders(part, steward)
        index = next(index for index, holder in taken.items() if holder.node == others[3])
        del taken[index]
        free = [cluster.candidate(node) for node in cluster.ids if node not in nodes]
        usual = replacement(STANDARD, part.address, free, taken, index)
        cluster.regions = BUILT_IN.without(usual.region)
        cluster.kill(others[3])
        await trio.sleep(30)
        witness = next(node for node in nodes if node != others[3] and cluster.candidate(node).region != usual.region)
        holders = await cluster.holders(part, witness)
        assert sorted(holders) == list(range(STANDARD.n))
        assert all(holder.region != usual.region for holder in holders.values())


async def test_a_holder_that_refuses_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        free = [cluster.candidate(node) for node in cluster.ids if node not in nodes]
        cluster.refusing.add(neighbourhood(part.address, free)[0].node)
        cluster.refusing.add(neighbourhood(part.address, free)[1].node)
        cluster.kill(nodes[4])
        await trio.sleep(30)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_below_k_nothing_can_be_rebuilt(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), GuardParams(lost_share=0.9)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.kill(*nodes[4:])
        await trio.sleep(10)
        assert cluster.sum("repairs_done") == 0
        assert cluster.healings[nodes[0]].repairs_failed == 1
        assert cluster.healings[nodes[0]].pending == 1


async def test_a_deleted_stripe_is_not_repaired(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.kill(nodes[4])
        await trio.sleep(1)
        tombstone = AssetSigner("a").tombstone(1)
        for node in nodes:
            await delete(cluster.stores[node], tombstone, part)
        await trio.sleep(30)
        assert cluster.puts() == []
        assert cluster.sum("pending") == 0


async def test_two_stewards_at_once_do_not_leave_the_stripe_confused(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=RepairParams(hold_off_s=0, sweep_s=20))) as cluster:
        parts = [await cluster.lock(number) for number in range(10)]
        cluster.kill(*cluster.ids[:3])  # without a hold-off all holders repair at the same moment
        await trio.sleep(100)
        assert cluster.sum("pending") == 0
        for part in parts:
            for node in cluster.nearest_first(part):
                if node not in cluster.down:
                    assert len(await cluster.holders(part, node)) == STANDARD.n


async def test_a_deletion_that_passed_us_by_is_learned_before_a_repair(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        tombstone = AssetSigner("a").tombstone(1)
        await delete(cluster.stores[nodes[1]], tombstone, part)
        cluster.kill(nodes[4])
        await trio.sleep(30)
        assert cluster.puts() == []
        view = await look(cluster.stores[nodes[0]], part.address)
        assert view.parts == ()
        assert view.tombstone == tombstone


async def test_a_tombstone_of_somebody_else_buries_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.forged[nodes[1]] = AssetSigner("b").tombstone(1)
        cluster.forged[nodes[2]] = Signed(b"nonsense", bytes(64))
        cluster.kill(nodes[4])
        await trio.sleep(30)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_what_nobody_can_take_is_not_fetched_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        cluster.full = set(cluster.ids)
        cluster.kill(cluster.nearest_first(part)[3])
        await trio.sleep(200)
        assert not [message for _, _, message in cluster.requests if isinstance(message, GetShards)]


async def test_who_was_named_for_a_part_that_it_never_stored_may_be_given_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a", BASIC)
        holders = cluster.nearest_first(part)
        steward, dead = holders[0], holders[3]
        spare = _next_place(cluster, part, dead)
        cluster.full |= set(cluster.ids) - {*holders, spare}  # a small network: nobody else has room
        named = [HolderEntry((await cluster.part_at(holders[1], part)).index, spare, 1)]
        for node in holders:
            await told(cluster, node, part, named)
        await cluster.menders[spare].say(_table(part, named), [*part.entries, *named], NO_INDEX)
        cluster.kill(dead)
        await trio.sleep(30)
        assert len(await cluster.holders(part, steward)) == BASIC.n
        assert spare in await stored(cluster, part)


def _next_place(cluster: Cluster, part: StripePart, leaving: NodeId) -> NodeId:
    """Where the part of `leaving` goes when it is gone."""
    taken = {entry.index: cluster.candidate(entry.node) for entry in part.entries if entry.node != leaving}
    index = next(entry.index for entry in part.entries if entry.node == leaving)
    others = [cluster.candidate(node) for node in cluster.ids if node not in cluster.nearest_first(part)]
    return NodeId(replacement(BASIC, part.address, others, taken, index).node)


def _table(part: StripePart, lines: list[HolderEntry]) -> HolderTable:
    return HolderTable(part.address, part.version, part.descriptor_hash, lines)


async def told(cluster: Cluster, node: NodeId, part: StripePart, lines: list[HolderEntry]) -> None:
    _: Merged = await settled(lambda answer: cluster.stores[node].merge((), [_table(part, lines)], answer))
