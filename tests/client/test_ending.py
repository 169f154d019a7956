"""Deleting: who is told, what is left, what is said of those who did not answer, and that nothing comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from lockbox_node.client.burials import Burial
from lockbox_node.client.ending import delete
from lockbox_node.client.leases import renew
from lockbox_node.client.lock import lock
from lockbox_node.client.recover import recover
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.verify import verify
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, Tier
from lockbox_node.errors import AssetNotFound, ExitCode, LockboxError, NotEnoughShards, RequestRefused
from protocol.errors import ErrorCode
from protocol.messages import Delete, FindHolders, HolderEntry, Holders, Message, PutStripe
from protocol.records import open_tombstone
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.siblings import copy_of, holders_of, locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet
    from lockbox_node.rpc.pool import Contact
    from tests.fakes.cluster import FakeNode

DAY_S = 86_400


def leases_at(cluster: Cluster, address: bytes) -> list[int]:
    """When the lease of each part that stands there ends."""
    return [part.lease_until_unix_s for node in cluster.nodes.values() for part in node.store.view(address).parts]


def a_burial(asset: AssetEntry) -> Burial:
    return Burial(asset.address, bytes(32), 1, 1, asset.lease_until_unix_s, [])


def parts_left(cluster: Cluster, tier: Tier = STANDARD) -> int:
    """Parts of assets of this tier anywhere; the wallet's mark stands on another."""
    return sum(part.tier == tier.number for node in cluster.nodes.values() for part in node.store.kept())


async def locked(vault: Vault, tier: Tier = STANDARD, size: int = 1000, lease_s: int | None = None) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(size)), tier, lease_s=lease_s)).asset
    await trio.sleep(2)  # until the pointers are spread
    return asset


@pytest.mark.parametrize("tier", [BASIC, STANDARD])
async def test_a_deleted_asset_is_gone_at_every_holder_and_from_the_wallet(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    asset = await locked(vault, tier)
    result = await delete(vault, asset)
    assert (result.holders, result.missing, result.exit_code) == (tier.n, (), ExitCode.DONE)
    assert result.error is None
    assert parts_left(cluster, tier) == 0
    assert vault.wallet.assets() == []
    assert vault.wallet.burials() == {}
    for attempt in (unlock(vault, asset, MemorySink()), verify(vault, asset), renew(vault, asset)):
        with pytest.raises(AssetNotFound):
            await attempt


async def test_every_stripe_of_a_large_asset_goes(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, size=12_000_000)
    assert parts_left(cluster) == 30
    seen: list[tuple[int, int]] = []
    result = await delete(vault, asset, progress=lambda *figures: seen.append(figures))
    assert (result.stripes, result.exit_code) == (3, ExitCode.DONE)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert parts_left(cluster) == 0


async def test_the_nearest_nodes_keep_the_tombstone_for_the_longest_lease(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, BASIC)
    await delete(vault, asset)
    for node in cluster.nearest(asset.address, 20):
        signed = node.store.view(asset.address).tombstone
        assert signed is not None
        assert open_tombstone(signed).lease_until_unix_s == asset.lease_until_unix_s


async def test_recovery_counts_it_as_deleted_and_lists_the_others(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    asset, other = await locked(vault), await locked(vault)
    await delete(vault, asset)
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert (result.assets, result.deleted, result.exit_code) == ([other], 1, ExitCode.DONE)


async def test_a_replay_of_the_old_descriptor_is_refused_everywhere(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    old = cluster.holding(asset.address)[0].store.part(asset.address)
    await delete(vault, asset)
    replay = PutStripe(old.descriptor, list(old.slots), old.index, list(old.shards), list(old.entries))
    for node in cluster.nearest(asset.address, 20):
        with pytest.raises(RequestRefused) as caught:
            await vault.pool.request(contact(vault, node), replay)
        assert caught.value.code is ErrorCode.STALE
        assert caught.value.proof is not None


async def test_who_does_not_answer_is_named_and_the_same_command_finishes_it(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, size=6_000_000)
    away = cluster.holding(asset.address)[2]
    cluster.kill(away.id)
    first = await delete(vault, asset)
    assert (first.missing, first.exit_code) == ((away.id,), ExitCode.DEGRADED)
    assert first.error is not None
    assert (first.error.code, first.error.exit_code) == (ErrorCode.DESTRUCTION_INCOMPLETE, ExitCode.DEGRADED)
    assert f"{first.holders - 1} of {first.holders} holders confirmed; {away.id.hex()[:8]} did" in first.error.message
    with pytest.raises(AssetNotFound):
        await unlock(vault, asset, MemorySink())
    assert vault.wallet.assets() == [asset]  # until it is confirmed
    assert vault.wallet.burials()[asset.address].holders == [away.id]

    assert (await delete(vault, asset)).missing == (away.id,)
    cluster.revive(away.id)
    await trio.sleep(20)
    assert parts_left(cluster) > 0
    last = await delete(vault, asset)
    assert (last.missing, last.exit_code) == ((), ExitCode.DONE)
    assert parts_left(cluster) == 0
    assert (vault.wallet.assets(), vault.wallet.burials()) == ([], {})


async def test_a_holder_that_only_the_farthest_of_the_near_names_is_told_too(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    holders = cluster.holding(asset.address)
    stranger = next(node for node in cluster.nodes.values() if node not in holders)
    late = cluster.nearest(asset.address, 20)[-1]

    def told(reply: Message) -> Message:
        assert isinstance(reply, Holders)
        (table,) = reply.tables
        return Holders([msgspec.structs.replace(table, entries=[HolderEntry(0, stranger.id, 1)])], None, [])

    late.bend[FindHolders] = told
    cluster.kill(stranger.id)
    result = await delete(vault, asset)
    assert (result.holders, result.missing) == (11, (stranger.id,))


async def test_an_interrupted_deletion_is_taken_up_again_even_when_the_manifest_is_gone(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault, size=12_000_000)
    with trio.move_on_after(30):

        def interrupt(done: int, _total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
            await delete(vault, asset, progress=interrupt)
    assert parts_left(cluster) == len(cluster.holding(asset.address)) == 10  # the root goes last
    for node in cluster.holding(asset.address):
        cluster.forget(node, asset.address)  # the root, and with it the manifest
    result = await delete(vault, asset)
    assert (result.stripes, result.exit_code) == (3, ExitCode.DONE)
    assert parts_left(cluster) == 0


async def test_who_never_answers_is_no_longer_waited_for_when_the_lease_is_over(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, lease_s=DAY_S)
    cluster.kill(cluster.holding(asset.address)[0].id)
    assert (await delete(vault, asset)).missing
    cluster.clock.ahead_s += 2 * DAY_S
    assert (await delete(vault, asset)).missing == ()
    assert vault.wallet.assets() == []


async def test_what_every_holder_refuses_with_is_told_and_the_asset_stays(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.refuse[Delete] = RequestRefused("your certificate is over", "renew it", ErrorCode.NOT_A_MEMBER)
    with pytest.raises(LockboxError, match="certificate") as caught:
        await delete(vault, asset)
    assert caught.value.exit_code is ExitCode.REFUSED
    assert (vault.wallet.assets(), vault.wallet.burials()) == ([asset], {})
    assert parts_left(cluster) == 10


async def test_what_cannot_be_read_is_not_deleted(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    holders = cluster.holding(asset.address)
    cluster.kill(*[node.id for node in holders])
    with pytest.raises(NotEnoughShards, match="nothing was deleted"):
        await delete(vault, asset)
    for node in cluster.nodes.values():
        node.silent = {FindHolders}
    with pytest.raises(LockboxError) as caught:
        await delete(vault, asset)
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert vault.wallet.burials() == {}


async def test_an_asset_that_another_machine_deleted_leaves_this_wallet_too(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    asset = await locked(vault)
    async with cluster.client(a_wallet(cluster, tmp_path / "other"), 7) as other:
        other.wallet.remember(asset)
        await delete(other, asset)
    assert (await delete(vault, asset)).exit_code is ExitCode.DONE
    assert vault.wallet.assets() == []


async def test_what_nobody_knows_while_its_lease_runs_is_not_found_and_afterwards_forgotten(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault, ELITE, lease_s=DAY_S)
    for node in cluster.nodes.values():
        node.store.lose(asset.address)
    cluster.clock.ahead_s += DAY_S / 2
    with pytest.raises(AssetNotFound):
        await delete(vault, asset)
    assert vault.wallet.assets() == [asset]
    cluster.clock.ahead_s += DAY_S
    assert (await delete(vault, asset)).exit_code is ExitCode.DONE
    assert vault.wallet.assets() == []


async def test_a_renewal_makes_the_tombstone_stay_as_much_longer(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, lease_s=DAY_S)
    renewed = await renew(vault, asset)
    await delete(vault, asset)  # with what the wallet knew before
    signed = cluster.nearest(asset.address, 1)[0].store.view(asset.address).tombstone
    assert signed is not None
    assert open_tombstone(signed).lease_until_unix_s == renewed.lease_until_unix_s


async def test_a_sibling_is_never_deleted_unasked_and_is_listed_then(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    async with cluster.client(wallet) as vault:
        with pytest.raises(LockboxError, match="nothing was deleted") as caught:
            await delete(vault, mine.asset)
        assert (caught.value.code, caught.value.exit_code) == (ErrorCode.CONFLICT, ExitCode.FAILED)
        assert f"{other.asset.sibling_id} (farther)" in caught.value.message
        assert "--with-siblings" in caught.value.hint
        assert wallet.burials() == {}
        assert (len(holders_of(cluster, mine.asset)), len(holders_of(cluster, other.asset))) == (10, 10)
        sink = MemorySink()
        await unlock(vault, wallet.find(other.asset.sibling_id), sink)
        assert sink.content == other.content


async def test_a_sibling_that_was_locked_anew_outlives_the_deletion_of_both(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy", size=6_000_000)
    async with cluster.client(wallet) as vault:
        kept = (await lock(vault, BytesSource(bytearray(other.content)), BASIC, label="kept")).asset
        before = parts_left(cluster)
        result = await delete(vault, mine.asset, with_siblings=True)
        assert (result.stripes, result.missing, result.exit_code) == (3, (), ExitCode.DONE)
        assert [one.label for one in result.siblings] == ["farther"]
        assert (before, parts_left(cluster)) == (40, 0)
        assert [asset.label for asset in wallet.assets()] == ["before", "kept"]
        sink = MemorySink()
        await unlock(vault, kept, sink)
        assert sink.content == other.content
    async with cluster.client(other.wallet) as vault:  # the other machine learns it as any deletion
        with pytest.raises(AssetNotFound):
            await unlock(vault, other.asset, MemorySink())
        assert (await delete(vault, other.asset)).exit_code is ExitCode.DONE
        assert [asset.label for asset in other.wallet.assets()] == ["before"]


async def test_an_interrupted_deletion_of_siblings_goes_on_without_being_told_again(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, _ = await locked_apart(cluster, wallet, tmp_path / "copy", size=6_000_000)

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    async with cluster.client(wallet) as vault:
        with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
            await delete(vault, mine.asset, with_siblings=True, progress=interrupt)
        assert parts_left(cluster) > 0
        for node in cluster.holding(mine.asset.address):
            cluster.forget(node, mine.asset.address)  # the root, and with it the manifests
        result = await delete(vault, mine.asset)
    assert (result.stripes, result.exit_code, parts_left(cluster)) == (3, ExitCode.DONE, 0)


async def test_a_sibling_that_the_wallet_lists_is_not_deleted_while_no_node_shows_it(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    wallet.remember(other.asset)
    cluster.kill(*[node.id for node in holders_of(cluster, other.asset)])
    async with cluster.client(wallet) as vault:
        with pytest.raises(LockboxError, match="nothing was deleted"):
            await delete(vault, mine.asset)


async def test_the_remains_of_a_lock_that_moved_on_keep_nobody_from_deleting(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    async with cluster.client(wallet, 11) as vault:
        await locked(vault)
    copy = copy_of(wallet, tmp_path / "copy")
    async with cluster.client(wallet, 12) as vault:
        mine = await locked(vault, BASIC)
    async with cluster.client(copy, 13) as vault:
        moved = await locked(vault, BASIC)
    assert moved.index == mine.index + 1
    async with cluster.client(wallet) as vault:
        result = await delete(vault, mine)
        assert (result.siblings, result.exit_code) == ((), ExitCode.DONE)
    async with cluster.client(copy) as vault:
        await unlock(vault, moved, MemorySink())


def contact(vault: Vault, node: FakeNode) -> Contact:
    member = vault.members.get(node.id)
    assert member is not None
    return member.contact
