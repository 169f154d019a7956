"""Unlocks that meet dead, silent, lying and corrupt holders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.sink import FileSink, MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import UnlockResult, unlock
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import BASIC, STANDARD, TIERS, Tier
from lockbox_node.errors import AssetNotFound, LockboxError, NotEnoughShards, UsageError
from protocol.messages import Delete, FindHolders, GetShards, Message, Shards
from protocol.records import Tombstone, sign
from tests.fakes.siblings import locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet
    from tests.fakes.cluster import Cluster

SECRET = b"a secret that must not be lost" * 50


async def locked(vault: Vault, tier: Tier = STANDARD, content: bytes = SECRET) -> AssetEntry:
    return (await lock(vault, BytesSource(bytearray(content)), tier)).asset


async def content_of(vault: Vault, asset: AssetEntry) -> tuple[bytes, UnlockResult]:
    sink = MemorySink()
    result = await unlock(vault, asset, sink)
    return bytes(sink.content), result


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_unlocks_while_n_minus_k_holders_are_gone_and_not_with_one_more(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    asset = await locked(vault, tier)
    await trio.sleep(2)  # until the pointers are spread
    holders = [node.id for node in cluster.holding(asset.address)]
    cluster.kill(*holders[: tier.n - tier.k])
    content, _ = await content_of(vault, asset)
    assert content == SECRET
    cluster.kill(holders[tier.n - tier.k])
    with pytest.raises(NotEnoughShards, match=f"{tier.k - 1} of {tier.k} needed shards .*{tier.n} were placed"):
        await content_of(vault, asset)


async def test_of_siblings_each_machine_unlocks_its_own(cluster: Cluster, wallet: Wallet, tmp_path: Path) -> None:
    for machine in await locked_apart(cluster, wallet, tmp_path / "copy"):
        async with cluster.client(machine.wallet) as vault:
            assert (await content_of(vault, machine.asset))[0] == machine.content


async def test_silent_holders_cost_a_hedge_and_not_the_unlock(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.holding(asset.address)[:5]:
        node.silent |= {GetShards, FindHolders}
    began = trio.current_time()
    content, _ = await content_of(vault, asset)
    assert content == SECRET
    assert trio.current_time() - began < 2


async def test_a_shard_that_is_not_what_the_owner_signed_is_counted_and_replaced(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Shards)
        shards = [bytes([shard[0] ^ 1]) + shard[1:] for shard in reply.shards]
        return Shards(reply.descriptor, reply.slots, reply.index, shards)

    for node in cluster.holding(asset.address)[:5]:
        node.bend[GetShards] = false
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.shards.corrupt >= 1
    assert result.shards.fetched >= 5


async def test_holders_that_show_a_descriptor_of_another_asset_are_not_believed(cluster: Cluster, vault: Vault) -> None:
    other = await locked(vault, content=b"other")
    asset = await locked(vault)
    descriptor = cluster.descriptor(cluster.holding(other.address)[0], other.address)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Shards)
        return Shards(descriptor, reply.slots, reply.index, reply.shards)

    for node in cluster.holding(asset.address)[:5]:
        node.bend[GetShards] = false
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.shards.corrupt >= 1


async def test_too_few_answers_are_said_to_be_maybe_stale(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    await trio.sleep(2)
    near = [node.id for node in cluster.nearest(asset.address, 24)]
    for node in near[4:]:
        cluster.nodes[node].silent.add(FindHolders)
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.maybe_stale  # four of five wanted answers


async def test_a_deleted_asset_is_not_found(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    with root_key(vault.wallet.master, asset.index) as key:
        tombstone = sign(Tombstone(key.public_key, 1, int(vault.now_unix_s()), 2**33), key)
    for node in cluster.holding(asset.address):
        member = vault.members.get(node.id)
        assert member is not None
        await vault.pool.request(member.contact, Delete(tombstone))
    with pytest.raises(AssetNotFound, match="deleted"):
        await content_of(vault, asset)


async def test_an_asset_that_nobody_knows_is_not_found(vault: Vault) -> None:
    asset = await locked(vault)
    unknown = msgspec.structs.replace(asset, address=bytes(32), index=99)
    with pytest.raises(AssetNotFound, match="know nothing"):
        await content_of(vault, unknown)


async def test_nothing_is_overwritten_unless_forced(vault: Vault, tmp_path: Path) -> None:
    asset = await locked(vault)
    place = tmp_path / "out"
    place.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        FileSink(place, force=False)
    assert place.read_bytes() == b"precious"
    await unlock(vault, asset, FileSink(place, force=True))
    assert place.read_bytes() == SECRET
    assert place.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".*")) == []


async def test_a_failed_unlock_leaves_no_file(cluster: Cluster, vault: Vault, tmp_path: Path) -> None:
    asset = await locked(vault)
    await trio.sleep(2)
    cluster.kill(*[node.id for node in cluster.holding(asset.address)])
    with pytest.raises(LockboxError):
        await unlock(vault, asset, FileSink(tmp_path / "out", force=False))
    assert list(tmp_path.glob("out*")) == []
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("size", [1_310_679, 1_310_680, 6_000_000])
async def test_assets_of_many_segments_and_stripes_unlock_byte_for_byte(vault: Vault, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    told: list[tuple[int, int]] = []
    done = await lock(
        vault, BytesSource(bytearray(content[:size])), STANDARD, progress=lambda *figures: told.append(figures)
    )
    assert told[-1] == (size, size)
    sink = MemorySink()
    await unlock(vault, done.asset, sink)
    assert bytes(sink.content) == content[:size]


async def test_another_wallets_master_key_opens_nothing(vault: Vault) -> None:
    asset = await locked(vault, BASIC)
    sink = MemorySink()
    vault.wallet.master[0] ^= 1
    with pytest.raises(LockboxError):
        await unlock(vault, asset, sink)
    assert not sink.content
