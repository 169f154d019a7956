"""The high-water mark in the network: it only rises, survives machines that raise at once, and is never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.marks import SeenMark, raise_mark, read_mark
from lockbox_node.core.derivation import wallet_key
from lockbox_node.errors import LockboxError, NotEnoughShards, PeerUnreachable, StoreFull
from protocol.errors import ErrorCode
from protocol.messages import FindHolders, GetSlot, PutStripe
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault


async def test_a_wallet_without_a_mark_reads_zero(vault: Vault) -> None:
    assert await read_mark(vault) == SeenMark(0, 0, ())


async def test_what_was_raised_is_read_and_replaced(cluster: Cluster, vault: Vault) -> None:
    for mark, version in ((16, 1), (32, 2), (48, 3)):
        await raise_mark(vault, await read_mark(vault), mark)
        seen = await read_mark(vault)
        assert (seen.mark, seen.version, len(seen.replaces)) == (mark, version, 1)
    with wallet_key(vault.wallet.master) as key:
        assert len(cluster.holding(key.address)) == 20  # by the widest tier that this network carries


async def test_two_machines_that_raise_at_once_merge_by_maximum(cluster: Cluster, tmp_path: Path) -> None:
    async with (
        cluster.client(a_wallet(cluster, tmp_path / "one", 1), 1) as one,
        cluster.client(a_wallet(cluster, tmp_path / "two", 2), 2) as two,
    ):
        seen = await read_mark(one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_mark, one, seen, 16)
            nursery.start_soon(raise_mark, two, seen, 32)
        merged = await read_mark(one)
        assert merged.mark == 32
        await raise_mark(one, merged, 64)
        assert (await read_mark(two)).mark == 64


async def test_a_raise_on_an_old_view_never_lowers_the_mark(vault: Vault) -> None:
    old = await read_mark(vault)
    await raise_mark(vault, old, 64)
    await raise_mark(vault, old, 16)
    assert (await read_mark(vault)).mark == 64


async def test_too_few_durable_copies_are_no_mark(cluster: Cluster, vault: Vault) -> None:
    for node in list(cluster.nodes.values())[:14]:
        node.refuse[PutStripe] = StoreFull("no room", "elsewhere")
    with pytest.raises(LockboxError, match="this wallet's mark was not raised") as caught:
        await raise_mark(vault, SeenMark(0, 0, ()), 16)
    assert caught.value.code is ErrorCode.STORE_FULL


async def test_when_too_few_answer_the_mark_is_not_guessed(cluster: Cluster, vault: Vault) -> None:
    await raise_mark(vault, await read_mark(vault), 16)
    for node in cluster.nodes.values():
        node.silent.add(FindHolders)
    with pytest.raises(PeerUnreachable):
        await read_mark(vault)
    for node in cluster.nodes.values():
        node.silent = {GetSlot}
    with pytest.raises(NotEnoughShards):
        await read_mark(vault)
