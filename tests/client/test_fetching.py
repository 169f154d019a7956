"""One stripe from holders that are false, slow, silent or gone: what is kept, what is counted, when it gives up."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import structs

from lockbox_node.client.fetching import Fetch
from lockbox_node.client.finding import Finding, SlotTable
from lockbox_node.client.granting import Leave
from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier, tier_numbered
from lockbox_node.errors import ExitCode, LockboxError, NotEnoughShards, RequestRefused
from protocol.errors import ErrorCode
from protocol.grants import Grant
from protocol.messages import AskGrant, FindHolders, GetShards, Message, Shards, Signed
from protocol.records import parse, sign
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from tests.fakes.cluster import FakeNode


async def table_of(vault: Vault, tier: Tier = STANDARD, size: int = 1000) -> tuple[AssetEntry, SlotTable]:
    asset = (await lock(vault, BytesSource(bytearray(size)), tier)).asset
    await trio.sleep(2)  # until the pointers are spread
    finding = Finding(vault, asset.address)
    await finding.first(tier.current_answers)
    return asset, finding.tables()[0]


async def fetch_of(vault: Vault, asset: AssetEntry, table: SlotTable) -> Fetch:
    with root_key(vault.wallet.master, asset.index) as key:
        leave = Leave(vault, key, tier_numbered(asset.tier))
        await leave.quorum()
        return Fetch(vault, key, table, leave)


def holders(cluster: Cluster, asset: AssetEntry) -> list[FakeNode]:
    return sorted(cluster.holding(asset.address), key=lambda node: node.id)


async def test_k_holders_are_asked_when_all_answer(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    fetch = await fetch_of(vault, asset, table)
    await fetch.run(STANDARD.k)
    assert (fetch.fetched, fetch.needed, fetch.corrupt, fetch.missing) == (5, 5, 0, 0)
    assert sum(node.asked["GetShards"] for node in cluster.nodes.values()) == 5
    assert fetch.descriptor is not None
    assert len(fetch.slots) == len(fetch.descriptor.slot_hashes)


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
@pytest.mark.parametrize("how", ["killed", "stopped", "stopped in all"])
async def test_one_holder_too_few_ends_in_seconds_and_says_how_many_there_are(
    cluster: Cluster, vault: Vault, tier: Tier, how: str
) -> None:
    asset, table = await table_of(vault, tier)
    gone = holders(cluster, asset)[: tier.n - tier.k + 1]
    if how == "killed":
        cluster.kill(*[node.id for node in gone])
    for node in gone:
        node.silent |= {GetShards} if how == "stopped" else {GetShards, FindHolders}
    began = trio.current_time()
    with pytest.raises(NotEnoughShards, match=f"^{tier.k - 1} of {tier.k} needed shards .*{tier.n} were placed"):
        await (await fetch_of(vault, asset, table)).run(tier.k)
    assert trio.current_time() - began < 5


def flipped(shards: Shards, number: int = 0) -> list[bytes]:
    return [
        bytes([shard[0] ^ 1]) + shard[1:] if group == number else shard for group, shard in enumerate(shards.shards)
    ]


FALSE: dict[str, Callable[[Shards], Shards]] = {
    "one flipped bit": lambda reply: Shards(reply.descriptor, reply.slots, reply.index, flipped(reply)),
    "a shard too few": lambda reply: Shards(reply.descriptor, reply.slots, reply.index, reply.shards[:-1]),
    "a shard too many": lambda reply: Shards(
        reply.descriptor, reply.slots, reply.index, [*reply.shards, reply.shards[0]]
    ),
    "another index": lambda reply: Shards(reply.descriptor, reply.slots, (reply.index + 1) % 10, reply.shards),
    "an index beyond n": lambda reply: Shards(reply.descriptor, reply.slots, 63, reply.shards),
    "shorter shards": lambda reply: Shards(
        reply.descriptor, reply.slots, reply.index, [shard[:-1] for shard in reply.shards]
    ),
}


@pytest.mark.parametrize("lie", FALSE)
async def test_a_false_reply_is_counted_and_another_holder_takes_its_place(
    cluster: Cluster, vault: Vault, lie: str
) -> None:
    asset, table = await table_of(vault)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Shards)
        return FALSE[lie](reply)

    for node in holders(cluster, asset)[:5]:
        node.bend[GetShards] = false
    fetch = await fetch_of(vault, asset, table)
    await fetch.run(STANDARD.k)
    assert fetch.decode(0, 10)
    with_all_false = await fetch_of(vault, asset, table)
    for node in holders(cluster, asset):
        node.bend[GetShards] = false
    with pytest.raises(NotEnoughShards, match="10 of them corrupt"):
        await with_all_false.run(STANDARD.k)


async def test_false_slots_with_good_shards_wait_for_a_holder_that_shows_the_real_ones(
    cluster: Cluster, vault: Vault
) -> None:
    asset, table = await table_of(vault)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Shards)
        return Shards(reply.descriptor, [bytes(len(slot)) for slot in reply.slots], reply.index, reply.shards)

    for node in holders(cluster, asset)[:9]:
        node.bend[GetShards] = false
    fetch = await fetch_of(vault, asset, table)
    await fetch.run(STANDARD.k)
    assert any(slot.strip(b"\0") for slot in fetch.slots)


async def test_a_busy_holder_is_asked_again_when_it_says_so(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    busy = RequestRefused("busy", "", ErrorCode.BUSY)
    busy.retry_after_s = 0.5
    for node in holders(cluster, asset):
        node.refuse[GetShards] = busy

    async def relent() -> None:
        await trio.sleep(1)
        for node in cluster.nodes.values():
            node.refuse.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relent)
        fetch = await fetch_of(vault, asset, table)
        await fetch.run(STANDARD.k)
    assert fetch.fetched >= 5


async def test_a_holder_that_is_always_busy_is_not_asked_for_ever(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    for node in holders(cluster, asset):
        node.refuse[GetShards] = RequestRefused("busy", "", ErrorCode.BUSY)
    with pytest.raises(LockboxError) as caught, trio.fail_after(60):
        await (await fetch_of(vault, asset, table)).run(STANDARD.k)
    assert caught.value.code is ErrorCode.BUSY
    assert max(node.asked["GetShards"] for node in cluster.nodes.values()) <= 20


def later(code: ErrorCode, wait_s: float) -> RequestRefused:
    error = RequestRefused("later", "", code)
    error.retry_after_s = wait_s
    return error


@pytest.mark.parametrize("code", [ErrorCode.BUSY, ErrorCode.RATE_LIMITED])
async def test_holders_that_serve_later_are_no_lost_shards(cluster: Cluster, vault: Vault, code: ErrorCode) -> None:
    """As after a loss of power, for a minute: what is told is when to come again, and at once."""
    asset, table = await table_of(vault)
    for place, node in enumerate(holders(cluster, asset)):
        node.refuse[GetShards] = later(code, 40.0 + place)
    began = trio.current_time()
    with pytest.raises(LockboxError) as caught:
        await (await fetch_of(vault, asset, table)).run(STANDARD.k)
    error = caught.value
    assert (error.code, error.retryable, error.exit_code) == (code, True, ExitCode.REFUSED)
    assert error.retry_after_s == 40.0 + STANDARD.k - 1, "when k of them serve"
    assert trio.current_time() - began < 1


async def test_what_is_missing_when_too_few_serve_later_is_shards(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    for place, node in enumerate(holders(cluster, asset)):
        if place < STANDARD.k - 1:
            node.refuse[GetShards] = later(ErrorCode.BUSY, 40.0)
        else:
            cluster.forget(node, asset.address)
    with pytest.raises(NotEnoughShards):
        await (await fetch_of(vault, asset, table)).run(STANDARD.k)


async def test_who_serves_now_makes_up_for_those_who_serve_later(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    for node in holders(cluster, asset)[: STANDARD.n - STANDARD.k]:
        node.refuse[GetShards] = later(ErrorCode.BUSY, 40.0)
    fetch = await fetch_of(vault, asset, table)
    await fetch.run(STANDARD.k)
    assert fetch.fetched == STANDARD.k


async def test_a_cancelled_fetch_wants_no_more_answers(cluster: Cluster, vault: Vault) -> None:
    asset, table = await table_of(vault)
    for node in holders(cluster, asset):
        node.silent.add(GetShards)
    fetch = await fetch_of(vault, asset, table)
    with trio.move_on_after(0.05) as scope:
        await fetch.run(STANDARD.k)
    assert scope.cancelled_caught
    for node in holders(cluster, asset):
        connection = vault.pool.ready(node.id)
        assert connection is None or not connection.busy


# Grants that holders refuse


async def read(vault: Vault, asset: AssetEntry) -> None:
    sink = MemorySink()
    await unlock(vault, asset, sink)
    assert sink.content == bytes(1000)


@pytest.mark.parametrize("shift_s", [-400, 90], ids=["behind", "ahead"])
@pytest.mark.parametrize("tier", [STANDARD, ELITE], ids=["standard", "elite"])
async def test_one_verifier_whose_grants_no_holder_takes_locks_nobody_out(
    cluster: Cluster, vault: Vault, shift_s: int, tier: Tier
) -> None:
    asset, _ = await table_of(vault, tier)
    await read(vault, asset)
    first = next(node for node in cluster.nodes.values() if node.asked["AskGrant"])
    first.bend[AskGrant] = partial(_of_another_time, first, shift_s)
    await read(vault, asset)


def _of_another_time(node: FakeNode, shift_s: int, reply: Message) -> Message:
    assert isinstance(reply, Signed)
    said = parse(reply, Grant)
    return sign(structs.replace(said, expires_unix_s=said.expires_unix_s + shift_s), node.identity.key)


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_where_all_hold_the_asset_regions_that_fall_silent_lock_no_owner_out(
    nursery: trio.Nursery, tmp_path: Path, tier: Tier
) -> None:
    """As many nodes as shards: whoever grants is a holder, whose own grant does not count with it."""
    cluster = Cluster(tier.n, regions=tier.regions_min + (tier.n > tier.regions_min * tier.shards_per_region_max))
    await nursery.start(cluster.run)
    async with cluster.client(a_wallet(cluster, tmp_path / "small")) as vault:
        asset, _ = await table_of(vault, tier)
        held = Counter(node.region for node in cluster.holding(asset.address))
        lost = sorted(held, key=lambda region: -held[region])[: tier.regions_lost_max]
        for node in cluster.nodes.values():
            if node.region in lost:
                node.alive = False
                node.silent |= {AskGrant, GetShards, FindHolders}
        await read(vault, asset)
