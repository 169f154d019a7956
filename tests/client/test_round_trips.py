"""What a warm client waits for when nodes stand all over the world: one round trip for a lock, two for an unlock.

Virtual time passes on the way between hosts only, so that every round trip that is not needed shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.finding import FIRST_ANSWERS
from lockbox_node.client.ledger import BLOCK
from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.grants import NEAR, target_of, verifier_order
from lockbox_node.core.tiers import STANDARD, TIERS, Tier
from protocol.ids import Address, NodeId
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.far_apart import TICKS_S, FarApart, region_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

WARM_LOCKS = 4  # until every connection is open and every node was asked
PLACES = ["us-east-1", "ap-southeast-2"]


@pytest.fixture(params=PLACES)
async def world(request: pytest.FixtureRequest, nursery: trio.Nursery) -> FarApart:
    cluster = Cluster(24)
    far = FarApart(cluster, request.param)
    await nursery.start(cluster.hub.run)
    await nursery.start(cluster.run)
    return far


@pytest.fixture
async def distant(world: FarApart, tmp_path: Path) -> AsyncIterator[Vault]:
    """A client that has done a few things already."""
    async with world.cluster.client(a_wallet(world.cluster, tmp_path / "wallet")) as vault:
        for _ in range(WARM_LOCKS):
            await timed_lock(vault)
        yield vault


async def timed_lock(vault: Vault, tier: Tier = STANDARD) -> tuple[AssetEntry, float]:
    began = trio.current_time()
    result = await lock(vault, BytesSource(bytearray(1000)), tier)
    assert result.placed == result.wanted
    return result.asset, trio.current_time() - began


async def timed_unlock(vault: Vault, asset: AssetEntry) -> float:
    began = trio.current_time()
    result = await unlock(vault, asset, MemorySink())
    assert not result.maybe_stale
    return trio.current_time() - began


def asked_for_leave(vault: Vault, asset: AssetEntry, tier: Tier) -> set[NodeId]:
    """The verifiers of an unlock: chosen by their ids, wherever they stand, or a client could choose its judges."""
    now = trio.current_time()
    holders = {one.node for one in vault.members.candidates(Address(asset.address), now, tier.n)}
    near = [member.candidate for member in vault.members.nearest(target_of(asset.address), NEAR, now)]
    return {NodeId(one.node) for one in verifier_order(near, holders)[: tier.verifiers]}


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_a_warm_lock_waits_for_its_farthest_holder_once(world: FarApart, distant: Vault, tier: Tier) -> None:
    await timed_lock(distant, tier)
    asset, took_s = await timed_lock(distant, tier)
    farthest_s = max(world.round_trip_s(node) for node in world.cluster.holding(asset.address))
    assert farthest_s <= took_s <= farthest_s + TICKS_S


async def test_of_many_locks_in_a_row_none_waits_for_the_wallets_mark(world: FarApart, distant: Vault) -> None:
    for _ in range(3 * BLOCK):
        asset, took_s = await timed_lock(distant)
        farthest_s = max(world.round_trip_s(node) for node in world.cluster.holding(asset.address))
        assert took_s <= farthest_s + TICKS_S


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_a_warm_unlock_waits_for_near_nodes_and_for_near_holders(
    world: FarApart, distant: Vault, tier: Tier
) -> None:
    await timed_lock(distant, tier)
    asset, _ = await timed_lock(distant, tier)
    await trio.sleep(5)  # until the pointers are spread
    verifiers = asked_for_leave(distant, asset, tier)
    took_s = await timed_unlock(distant, asset)
    granted_s = sorted(world.round_trip_s(world.cluster.nodes[node]) for node in verifiers)[tier.quorum - 1]
    served = [node for node in world.cluster.holding(asset.address) if node.id not in verifiers]
    granters = [node for node in world.cluster.holding(asset.address) if node.id in verifiers]  # are asked last
    holders = [*sorted(map(world.round_trip_s, served)), *sorted(map(world.round_trip_s, granters))]
    near = world.cluster.nearest(asset.address, 2 * max(FIRST_ANSWERS, tier.current_answers))
    of_regions = sorted({region_of(node): world.round_trip_s(node) for node in near}.values())
    ideal_s = max(of_regions[FIRST_ANSWERS - 1], granted_s) + max(holders[: tier.k])
    assert took_s <= ideal_s + TICKS_S
