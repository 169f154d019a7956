"""The books while many locks run: no index twice, no asset forgotten, few writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.client.ledger import BLOCK, LOW
from lockbox_node.client.wallet import AssetEntry, Wallet
from lockbox_node.errors import LockboxError, StoreFull
from protocol.ids import Address
from protocol.messages import PutStripe
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault


def entry(index: int) -> AssetEntry:
    return AssetEntry(index, Address(bytes([index]) * 32), 1, 0, 1, "", 1, 2, bytes(32))


async def test_indices_taken_at_once_never_repeat_and_are_announced_before_they_are_used(vault: Vault) -> None:
    taken: list[int] = []

    async def take() -> None:
        index = await vault.ledger.take_index()
        assert index < vault.wallet.mark
        taken.append(index)

    async with trio.open_nursery() as nursery:
        for _ in range(3 * BLOCK):
            nursery.start_soon(take)
    assert len(set(taken)) == 3 * BLOCK
    assert vault.wallet.next_index > max(taken)


async def test_one_lock_reserves_one_index_and_announces_a_block(vault: Vault) -> None:
    assert await vault.ledger.take_index() == 0
    assert (vault.wallet.next_index, vault.wallet.mark) == (1, BLOCK)


async def test_who_takes_many_has_the_next_block_announced_before_it_is_needed(vault: Vault) -> None:
    taken = [await vault.ledger.take_index() for _ in range(BLOCK - LOW)]
    await trio.testing.wait_all_tasks_blocked()
    assert vault.wallet.mark > BLOCK
    taken += [await vault.ledger.take_index() for _ in range(BLOCK)]
    assert taken == list(range(2 * BLOCK - LOW))


async def test_a_block_that_could_not_be_fetched_ahead_is_fetched_when_it_is_needed(
    cluster: Cluster, vault: Vault
) -> None:
    taken = [await vault.ledger.take_index() for _ in range(2)]
    for node in cluster.nodes.values():
        node.refuse[PutStripe] = StoreFull("no room", "elsewhere")
    taken += [await vault.ledger.take_index() for _ in range(BLOCK - 2)]
    with pytest.raises(LockboxError):
        await vault.ledger.take_index()
    for node in cluster.nodes.values():
        node.refuse.clear()
    taken.append(await vault.ledger.take_index())
    assert sorted(set(taken)) == taken
    assert taken[-1] < vault.wallet.mark


async def test_an_index_that_could_not_be_announced_is_not_handed_out(cluster: Cluster, vault: Vault) -> None:
    for node in cluster.nodes.values():
        node.refuse[PutStripe] = StoreFull("no room", "elsewhere")
    with pytest.raises(LockboxError):
        await vault.ledger.take_index()
    assert vault.wallet.mark == 0
    for node in cluster.nodes.values():
        node.refuse.clear()
    assert await vault.ledger.take_index() < vault.wallet.mark


async def test_a_block_that_another_machine_announced_is_left_to_it(cluster: Cluster, tmp_path: Path) -> None:
    async with (
        cluster.client(a_wallet(cluster, tmp_path / "one", 1), 1) as one,
        cluster.client(a_wallet(cluster, tmp_path / "two", 2), 2) as two,
    ):
        assert await one.ledger.take_index() == 0
        assert await two.ledger.take_index() == BLOCK


async def test_a_cancelled_reservation_costs_an_index_and_blocks_nobody(vault: Vault) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await vault.ledger.take_index()
    assert scope.cancelled_caught
    first = await vault.ledger.take_index()
    assert await vault.ledger.take_index() > first


async def test_assets_remembered_at_once_share_their_writes_and_none_is_lost(vault: Vault) -> None:
    writes: list[int] = []
    remember = vault.wallet.remember

    def counting(*assets: AssetEntry) -> None:
        writes.append(len(assets))
        remember(*assets)

    vault.wallet.remember = counting  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for index in range(30):
            nursery.start_soon(vault.ledger.remember, entry(index))
    assert [asset.index for asset in vault.wallet.assets()] == list(range(30))
    assert sum(writes) == 30
    assert len(writes) <= 3


async def test_a_write_that_fails_is_tried_again_by_the_next_who_waits(vault: Vault) -> None:
    remember, failures = vault.wallet.remember, [LockboxError("no room", "make some")]

    def failing(*assets: AssetEntry) -> None:
        if failures:
            raise failures.pop()
        remember(*assets)

    vault.wallet.remember = failing  # type: ignore[method-assign]
    outcomes: list[str] = []

    async def one(index: int) -> None:
        try:
            await vault.ledger.remember(entry(index))
            outcomes.append("kept")
        except LockboxError:
            outcomes.append("told")

    async with trio.open_nursery() as nursery:
        for index in range(5):
            nursery.start_soon(one, index)
    assert sorted(outcomes) == ["kept"] * 4 + ["told"]
    with Wallet(vault.wallet.path, bytearray(vault.wallet.master), vault.wallet.network_id, vault.entropy) as reopened:
        assert len(reopened.assets()) >= 4
