"""Renewing: what a lease becomes, who confirms it, and what is said when somebody does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from lockbox_node.client.leases import RenewResult, renew, renew_all, renew_mark
from lockbox_node.client.lock import lock
from lockbox_node.client.marks import raise_mark, read_mark
from lockbox_node.client.recover import recover
from lockbox_node.client.source import BytesSource
from lockbox_node.core.derivation import wallet_key
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, Tier
from lockbox_node.errors import AssetNotFound, ExitCode, LockboxError, NotEnoughShards, RequestRefused, UsageError
from protocol.errors import ErrorCode
from protocol.messages import NO_INDEX, FindHolders, GetSlot, HolderEntry, Message, Renew, Slots, SlotState
from tests.client.test_ending import a_burial, contact, leases_at
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.siblings import holders_of, locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet

DAY_S = 86_400
SHORT_S = 30 * DAY_S


async def locked(vault: Vault, tier: Tier = STANDARD, size: int = 1000, lease_s: int = SHORT_S) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(size)), tier, lease_s=lease_s)).asset
    await trio.sleep(2)  # until the pointers are spread
    return asset


async def test_every_holder_keeps_it_for_the_tiers_default_and_the_wallet_knows(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    result = await renew(vault, asset)
    now_unix_s = vault.now_unix_s()
    assert (result.renewed, result.wanted, result.exit_code) == (10, 10, ExitCode.DONE)
    assert result.lengthened
    assert abs(result.lease_until_unix_s - now_unix_s - STANDARD.lease_default_s) < 10
    assert leases_at(cluster, asset.address) == [result.lease_until_unix_s] * 10
    assert vault.wallet.assets() == [msgspec.structs.replace(asset, lease_until_unix_s=result.lease_until_unix_s)]


async def test_every_stripe_of_a_large_asset_is_renewed(cluster: Cluster, vault: Vault) -> None:
    result = await renew(vault, await locked(vault, size=6_000_000))
    assert (result.stripes, result.renewed, result.exit_code) == (2, 20, ExitCode.DONE)
    leases = [
        part.lease_until_unix_s
        for node in cluster.nodes.values()
        for part in node.store.kept()
        if part.tier == STANDARD.number
    ]
    assert leases.count(result.lease_until_unix_s) == 20


async def test_a_shorter_lease_than_stands_changes_nothing_and_is_said(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, lease_s=100 * DAY_S)
    before = leases_at(cluster, asset.address)
    result = await renew(vault, asset, 5 * DAY_S)
    assert (result.lengthened, result.exit_code) == (False, ExitCode.DONE)
    assert leases_at(cluster, asset.address) == before
    assert result.lease_until_unix_s == asset.lease_until_unix_s


async def test_what_some_holders_missed_they_learn_from_a_renewal_that_lengthens_nothing(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    deaf = cluster.holding(asset.address)[:3]
    for node in deaf:
        node.silent.add(Renew)
    first = await renew(vault, asset)
    assert (first.renewed, first.exit_code) == (7, ExitCode.DEGRADED)
    for node in deaf:
        node.silent.clear()
    second = await renew(vault, asset, 5 * DAY_S)
    assert (second.renewed, second.lengthened, second.exit_code) == (10, False, ExitCode.DONE)
    assert set(leases_at(cluster, asset.address)) == {first.lease_until_unix_s}


@pytest.mark.parametrize("lease_s", [0, STANDARD.lease_max_s + 1])
async def test_a_lease_that_the_tier_does_not_offer_is_wrong_usage(vault: Vault, lease_s: int) -> None:
    asset = await locked(vault)
    with pytest.raises(UsageError):
        await renew(vault, asset, lease_s)


@pytest.mark.parametrize(("gone", "code"), [(1, 8), (5, 8), (6, 5)])
async def test_holders_that_are_gone_degrade_it_and_below_k_it_is_not_enough(
    cluster: Cluster, vault: Vault, gone: int, code: int
) -> None:
    asset = await locked(vault)
    cluster.kill(*[node.id for node in cluster.holding(asset.address)[:gone]])
    result = await renew(vault, asset)
    assert (result.renewed, result.exit_code) == (10 - gone, code)
    assert vault.wallet.assets()[0].lease_until_unix_s == (
        asset.lease_until_unix_s if code == 5 else result.lease_until_unix_s
    )


async def test_a_replaced_holder_beside_the_new_one_counts_its_index_once(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    holders = cluster.holding(asset.address)
    stranger = next(node for node in cluster.nodes.values() if node not in holders)

    def told(reply: Message) -> Message:
        assert isinstance(reply, Slots)
        lines = [HolderEntry(0, stranger.id, 99), HolderEntry(NO_INDEX, holders[0].id, 99)]
        return Slots(
            [SlotState(one.descriptor, one.slots, one.index, [*one.entries, *lines]) for one in reply.states],
            reply.tombstone,
        )

    for node in holders:
        node.bend[GetSlot] = told
    result = await renew(vault, asset)
    assert (result.renewed, result.exit_code) == (10, ExitCode.DONE)
    assert stranger.asked["Renew"] == 1


async def test_what_every_holder_refuses_with_is_told(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.refuse[Renew] = RequestRefused("no", "ask nicely", ErrorCode.ROLE_FORBIDDEN)
    with pytest.raises(LockboxError) as caught:
        await renew(vault, asset)
    assert caught.value.exit_code is ExitCode.REFUSED


async def test_an_asset_whose_holders_are_all_gone_is_not_enough(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    cluster.kill(*[node.id for node in cluster.holding(asset.address)])
    with pytest.raises(NotEnoughShards):
        await renew(vault, asset)


async def test_what_is_being_deleted_is_not_renewed(vault: Vault) -> None:
    asset = await locked(vault)
    vault.wallet.bury(a_burial(asset))
    with pytest.raises(AssetNotFound):
        await renew(vault, asset)
    assert (await renew_all(vault)).assets == ()


async def test_all_renews_every_asset_and_the_mark_and_ends_with_the_worst(cluster: Cluster, vault: Vault) -> None:
    assets = [await locked(vault, tier) for tier in (BASIC, STANDARD, ELITE)]
    seen: list[tuple[int, int]] = []
    with wallet_key(vault.wallet.master) as key:
        address = key.address
    before = max(leases_at(cluster, address))
    done = await renew_all(vault, progress=lambda *figures: seen.append(figures))
    assert [asset for asset, _ in done.assets] == assets
    assert all(isinstance(outcome, RenewResult) for _, outcome in done.assets)
    assert done.exit_code is ExitCode.DONE
    assert seen[-1] == (3, 3)
    assert min(leases_at(cluster, address)) > before

    too_long = await renew_all(vault, 100 * DAY_S)
    assert [isinstance(outcome, UsageError) for _, outcome in too_long.assets] == [True, False, False]
    assert too_long.exit_code is ExitCode.USAGE


async def test_a_mark_with_missing_holders_degrades_all(cluster: Cluster, vault: Vault) -> None:
    await locked(vault)
    with wallet_key(vault.wallet.master) as key:
        keepers = cluster.holding(key.address)
    assets_holders = {node.id for node in cluster.holding(vault.wallet.assets()[0].address)}
    away = next(node for node in keepers if node.id not in assets_holders)
    cluster.kill(away.id)
    done = await renew_all(vault)
    assert done.exit_code is ExitCode.DEGRADED


async def test_an_older_mark_that_a_returned_holder_shows_is_not_renewed(cluster: Cluster, vault: Vault) -> None:
    await raise_mark(vault, await read_mark(vault), 16)
    with wallet_key(vault.wallet.master) as key:
        holding = cluster.holding(key.address)
        away = next(node for node in cluster.nearest(key.address, 24) if node in holding)
    cluster.kill(away.id)
    await raise_mark(vault, await read_mark(vault), 32)
    cluster.revive(away.id)
    await trio.sleep(20)
    await vault.pool.request(contact(vault, away), FindHolders(bytes(32)))  # it answers as fast as the others
    for node in [node for node in cluster.nodes.values() if node is not away][:15]:
        node.silent.add(GetSlot)  # so that everybody else is heard
    renewed = await renew_mark(vault)
    assert renewed is not None
    assert (renewed.indices, renewed.n) == (20, 20)


async def test_a_wallet_that_never_locked_anything_has_no_mark_to_renew(vault: Vault) -> None:
    assert await renew_mark(vault) is None
    assert (await renew_all(vault)).exit_code is ExitCode.DONE


async def test_recovery_learns_the_renewed_lease(cluster: Cluster, vault: Vault, tmp_path: Path) -> None:
    result = await renew(vault, await locked(vault))
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        (found,) = (await recover(fresh)).assets
    assert found == result.asset


async def test_an_asset_in_trash_is_recovered_and_renewed(cluster: Cluster, vault: Vault, tmp_path: Path) -> None:
    asset = await locked(vault, lease_s=DAY_S)
    cluster.clock.ahead_s += 2 * DAY_S
    for node in cluster.nodes.values():
        node.store.expire_now(vault.now_unix_s())
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        assert (await recover(fresh)).assets == [asset]
        result = await renew(fresh, asset)
    assert (result.renewed, result.lengthened) == (10, True)
    assert min(leases_at(cluster, asset.address)) > vault.now_unix_s()


async def test_of_siblings_the_one_that_is_asked_for_is_renewed_and_all_by_renew_all(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    wallet.remember(other.asset)
    async with cluster.client(wallet) as vault:
        result = await renew(vault, other.asset, 300 * DAY_S)
        assert (result.renewed, result.wanted, result.lengthened) == (10, 10, False)
        cluster.clock.ahead_s += 10 * DAY_S
        result = await renew(vault, other.asset)
        assert (result.renewed, result.lengthened) == (10, True)
        standing = [mine.asset.lease_until_unix_s, result.lease_until_unix_s]
        assert [wallet.find(one.asset.sibling_id).lease_until_unix_s for one in (mine, other)] == standing
        assert set(leases_at(cluster, mine.asset.address)) == set(standing)
        every = await renew_all(vault)
    assert len(every.assets) == 3
    assert all(isinstance(outcome, RenewResult) for _, outcome in every.assets)
    assert min(leases_at(cluster, mine.asset.address)) > mine.asset.lease_until_unix_s


async def test_a_sibling_is_not_renewed_in_place_of_an_asset_that_is_gone(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    gone, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    before = leases_at(cluster, other.asset.address)
    cluster.kill(*[node.id for node in holders_of(cluster, gone.asset)])
    async with cluster.client(wallet) as vault:
        with pytest.raises(NotEnoughShards):
            await renew(vault, gone.asset)
    assert leases_at(cluster, other.asset.address) == before
