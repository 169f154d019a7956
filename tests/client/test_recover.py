"""Recovery on a bare machine: everything that the words have locked, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.recover import recover
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import BASIC, STANDARD, TIERS, Tier
from lockbox_node.errors import ExitCode
from protocol.messages import Delete, FindHolders
from protocol.records import Tombstone, sign
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.siblings import copy_of, holders_of, locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet


async def lock_some(vault: Vault, count: int) -> dict[bytes, bytes]:
    contents: dict[bytes, bytes] = {}
    for number in range(count):
        content = b"content %d" % number
        locked = await lock(vault, BytesSource(bytearray(content)), TIERS[number % 4], label=f"label {number}")
        contents[locked.asset.address] = content
    return contents


async def test_every_asset_is_found_and_unlocks_as_client_and_as_guest(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    contents = await lock_some(vault, 5)
    await trio.sleep(2)
    for guest in (False, True):
        bare = a_wallet(cluster, tmp_path / f"bare {guest}", 5)
        async with cluster.client(bare, 7, guest=guest) as fresh:
            result = await recover(fresh)
            assert result.exit_code is ExitCode.DONE
            assert [asset.label for asset in result.assets] == [f"label {number}" for number in range(5)]
            assert bare.assets() == result.assets
            assert set(result.assets) == set(vault.wallet.assets())
            for asset in bare.assets():
                sink = MemorySink()
                await unlock(fresh, asset, sink)
                assert sink.content == contents[asset.address]


async def test_the_scan_goes_to_the_mark_across_a_long_gap(cluster: Cluster, vault: Vault, tmp_path: Path) -> None:
    vault.wallet.skip_indices(60)
    await lock_some(vault, 1)
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert [asset.index for asset in result.assets] == [60]
    assert result.mark == 64


async def test_a_recovered_wallet_locks_behind_everything_that_was_announced(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    await lock_some(vault, 3)
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        await recover(fresh)
        locked = await lock(fresh, BytesSource(bytearray(b"new")), BASIC)
    assert locked.asset.index == 16  # the first block is left to whoever announced it


async def test_deleted_assets_are_counted_and_not_listed(cluster: Cluster, vault: Vault, tmp_path: Path) -> None:
    await lock_some(vault, 3)
    asset = vault.wallet.assets()[1]
    with root_key(vault.wallet.master, asset.index) as key:
        tombstone = sign(Tombstone(key.public_key, 1, int(vault.now_unix_s()), 2**33), key)
    for node in cluster.nearest(asset.address, 24):
        member = vault.members.get(node.id)
        assert member is not None
        await vault.pool.request(member.contact, Delete(tombstone))
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert (len(result.assets), result.deleted, result.exit_code) == (2, 1, ExitCode.DONE)


async def test_remains_of_an_interrupted_lock_are_told_from_assets(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    await lock_some(vault, 1)
    locked = await lock(vault, BytesSource(bytearray(b"interrupted")), STANDARD)
    for node in cluster.holding(locked.asset.address)[2:]:
        cluster.forget(node, locked.asset.address)
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert (len(result.assets), result.leftovers, result.exit_code) == (1, 1, ExitCode.DONE)


async def test_what_nobody_can_say_is_listed_and_does_not_end_the_scan(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    await lock_some(vault, 3)
    await trio.sleep(2)
    asset = vault.wallet.assets()[1]
    for node in cluster.nearest(asset.address, 24):
        node.bury_in_silence(FindHolders, asset.address)
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert [asset.index for asset in result.assets] == [0, 2]
    assert result.unknown == [1]
    assert result.exit_code is ExitCode.DEGRADED


@pytest.mark.parametrize(("tier", "size"), [(STANDARD, 1000), (BASIC, 9_000_000)], ids=["one stripe", "several"])
async def test_siblings_of_one_index_are_all_found_and_each_unlocks(
    cluster: Cluster, wallet: Wallet, tmp_path: Path, tier: Tier, size: int
) -> None:
    machines = await locked_apart(cluster, wallet, tmp_path / "copy", tier, size)
    bare = a_wallet(cluster, tmp_path / "bare", 5)
    async with cluster.client(bare, 7, guest=True) as fresh:
        result = await recover(fresh)
        assert (result.unknown, result.leftovers, result.exit_code) == ([], 0, ExitCode.DONE)
        assert [asset.label for asset in result.assets] == ["before", "nearer", "farther"]
        assert bare.assets() == result.assets
        assert len({asset.asset_id for asset in result.assets}) == 3
        for machine in machines:
            sink = MemorySink()
            await unlock(fresh, bare.find(machine.asset.sibling_id), sink)
            assert sink.content == machine.content


async def test_a_wallet_that_is_brought_up_to_date_gets_the_sibling_of_its_own_asset(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    machines = await locked_apart(cluster, wallet, tmp_path / "copy")
    for machine in machines:
        async with cluster.client(machine.wallet) as vault:
            await recover(vault)
    assert machines[0].wallet.assets() == machines[1].wallet.assets()
    assert [asset.label for asset in wallet.assets()] == ["before", "nearer", "farther"]


async def test_a_sibling_of_which_too_many_holders_are_silent_makes_its_index_unknown(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    _, farther = await locked_apart(cluster, wallet, tmp_path / "copy")
    cluster.kill(*[node.id for node in holders_of(cluster, farther.asset)[:6]])
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert [asset.label for asset in result.assets] == ["before", "nearer"]
    assert (result.unknown, result.exit_code) == ([1], ExitCode.DEGRADED)


@pytest.mark.parametrize("size", [1000, 9_000_000], ids=["one stripe", "several"])
async def test_what_a_machine_left_at_an_index_in_use_is_no_asset(
    cluster: Cluster, wallet: Wallet, tmp_path: Path, size: int
) -> None:
    async with cluster.client(wallet, 11) as vault:
        await lock(vault, BytesSource(bytearray(b"before")), BASIC)
    copy = copy_of(wallet, tmp_path / "copy")
    indices: list[int] = []
    for machine, seed, label in ((wallet, 12, "first"), (copy, 13, "second")):
        async with cluster.client(machine, seed) as vault:
            locked = await lock(vault, BytesSource(bytearray(size)), BASIC, label=label)
            indices.append(locked.asset.index)
            await trio.sleep(2)
    assert indices == [1, 2]
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert [asset.label for asset in result.assets] == ["", "first", "second"]
    assert (result.leftovers, result.exit_code) == (1, ExitCode.DONE)


async def test_a_wallet_that_never_locked_anything_recovers_empty(cluster: Cluster, tmp_path: Path) -> None:
    async with cluster.client(a_wallet(cluster, tmp_path / "bare"), 7) as fresh:
        result = await recover(fresh)
    assert (result.assets, result.unknown, result.mark, result.exit_code) == ([], [], 0, ExitCode.DONE)
    assert result.scanned >= 20
