"""What an index turns out to be, and what of it is an asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lockbox_node.client.lock import lock
from lockbox_node.client.scanning import Found, Shown, scan, siblings_of, standing
from lockbox_node.client.source import BytesSource
from lockbox_node.client.standing import Standing
from lockbox_node.core.derivation import root_key
from lockbox_node.core.manifest import asset_manifest, plan_segments
from lockbox_node.core.tiers import BASIC, STANDARD
from tests.client.test_listing import an_asset
from tests.fakes.siblings import copy_of, holders_of, locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet
    from tests.fakes.cluster import Cluster


def shown(asset: AssetEntry, salt: bytes) -> Shown:
    return Shown(asset, asset_manifest(plan_segments(10, STANDARD), STANDARD, salt * 32, "", 1, 0, [0]))


def test_what_moved_on_stands_at_the_highest_of_its_indices_only() -> None:
    first, moved, beyond, again = an_asset(1), an_asset(1, b"m"), an_asset(2, b"n"), an_asset(4, b"o")
    seen = [shown(first, b"a"), shown(moved, b"b"), shown(beyond, b"b"), shown(again, b"b")]
    assert standing(seen) == [first, again]
    assert standing(seen[:2]) == [first, moved]


async def scanned_whole(vault: Vault, index: int) -> Standing:
    with root_key(vault.wallet.master, index) as key:
        seen = Standing(vault, key)
    await seen.ask_everybody(vault.params.first_s)
    return seen


async def test_siblings_are_shown_with_their_index_and_nothing_behind_it(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    async with cluster.client(wallet) as vault:
        before, both, nothing = await scan(vault, range(3))
        assert (before.found, both.found, nothing.found) == (Found.ASSET, Found.ASSET, Found.MISS)
        assert {one.asset for one in both.shown} == {mine.asset, other.asset}
        beside = await siblings_of(vault, mine.asset, await scanned_whole(vault, 1))
        assert [one.asset for one in beside] == [other.asset]


async def test_what_too_few_hold_is_no_sibling_once_everybody_has_answered(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    mine, other = await locked_apart(cluster, wallet, tmp_path / "copy")
    holders = holders_of(cluster, other.asset)
    for node in holders[4:]:
        cluster.forget(node, other.asset.address)
    async with cluster.client(wallet) as vault:
        assert await siblings_of(vault, mine.asset, await scanned_whole(vault, 1)) == []
    cluster.kill(holders[4].id)  # it may have what is missing
    async with cluster.client(wallet) as vault:
        assert [one.asset for one in await siblings_of(vault, mine.asset, await scanned_whole(vault, 1))] == [
            other.asset
        ]


async def test_the_remains_of_what_moved_on_are_no_sibling(cluster: Cluster, wallet: Wallet, tmp_path: Path) -> None:
    async with cluster.client(wallet, 11) as vault:
        await lock(vault, BytesSource(bytearray(b"before")), BASIC)
    copy = copy_of(wallet, tmp_path / "copy")
    async with cluster.client(wallet, 12) as vault:
        mine = (await lock(vault, BytesSource(bytearray(b"mine")), BASIC)).asset
    async with cluster.client(copy, 13) as vault:
        moved = (await lock(vault, BytesSource(bytearray(b"moved")), BASIC)).asset
    async with cluster.client(wallet) as vault:
        at_mine, at_moved = await scan(vault, range(1, 3))
        assert len(at_mine.shown) == 2
        assert [one.asset for one in at_moved.shown] == [moved]
        assert await siblings_of(vault, mine, await scanned_whole(vault, 1)) == []
        unknown = msgspec.structs.replace(mine, version=9)
        assert await siblings_of(vault, unknown, await scanned_whole(vault, 1)) == []
