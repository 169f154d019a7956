"""What a lock that fails leaves behind: nothing of its own, and everything of somebody else's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.putting import StripePut
from lockbox_node.client.source import BytesSource
from lockbox_node.client.stripes import prepare
from lockbox_node.client.undo import undo
from lockbox_node.core.placement import place
from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.errors import LockboxError, RequestRefused, StoreFull
from lockbox_node.ports import SlotView, settled
from protocol.errors import ErrorCode
from protocol.messages import Delete, PutStripe
from protocol.records import open_tombstone
from simulations.world import SeededEntropy
from tests.client.test_stripes import recipe

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from tests.fakes.cluster import Cluster


async def put(vault: Vault, seed: int = 1) -> StripePut:
    """A root stripe that stands whole."""
    stripe = prepare(recipe(STANDARD, 6), 0, BytesSource(bytearray(b"secret")), SeededEntropy(seed))
    one = StripePut(vault, stripe, place(STANDARD, stripe.address, vault.candidates(stripe.address)))
    await one.run()
    return one


async def test_every_holder_that_has_it_is_told_to_delete_it(cluster: Cluster, vault: Vault) -> None:
    one = await put(vault)
    holders = cluster.holding(one.stripe.address)
    assert len(holders) == 10
    await undo(vault, [], one, trio.current_time() + 2)
    assert cluster.holding(one.stripe.address) == []
    view: SlotView = await settled(partial(holders[0].store.look, one.stripe.address))
    assert view.tombstone is not None
    assert open_tombstone(view.tombstone).lease_until_unix_s == one.stripe.lease_until_unix_s


async def test_a_stranger_at_the_roots_address_keeps_what_is_his(cluster: Cluster, vault: Vault) -> None:
    theirs, ours = await put(vault, 1), await put(vault, 2)
    assert ours.siblings
    await undo(vault, [], ours, trio.current_time() + 2)
    assert len(cluster.holding(theirs.stripe.address)) == 10


async def test_silent_holders_cost_no_more_than_the_deadline(cluster: Cluster, vault: Vault) -> None:
    one = await put(vault)
    silent = cluster.holding(one.stripe.address)[:3]
    for node in silent:
        node.silent.add(Delete)
    began = trio.current_time()
    await undo(vault, [], one, began + 2)
    assert trio.current_time() - began <= 2
    assert {node.id for node in cluster.holding(one.stripe.address)} == {node.id for node in silent}


async def test_a_holder_that_asks_us_to_come_back_is_asked_again(cluster: Cluster, vault: Vault) -> None:
    one = await put(vault)
    limited = RequestRefused("slowly", "", ErrorCode.RATE_LIMITED)
    limited.retry_after_s = 0.3
    for node in cluster.nodes.values():
        node.refuse[Delete] = limited

    async def relent() -> None:
        await trio.sleep(0.2)
        for node in cluster.nodes.values():
            node.refuse.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relent)
        await undo(vault, [], one, trio.current_time() + 2)
    assert cluster.holding(one.stripe.address) == []


async def test_a_lock_of_many_stripes_that_fails_at_the_last_leaves_none(cluster: Cluster, vault: Vault) -> None:
    await lock(vault, BytesSource(bytearray(b"x")), BASIC)
    before = {node.id: node.store.figures().stripes for node in cluster.nodes.values()}
    seen: list[int] = []

    def progress(done: int, _total: int) -> None:
        seen.append(done)
        for node in cluster.nodes.values():
            node.refuse[PutStripe] = StoreFull("no room", "elsewhere")

    with pytest.raises(LockboxError, match="nothing was locked"):
        await lock(vault, BytesSource(bytearray(9_000_000)), STANDARD, progress=progress)
    assert seen
    assert {node.id: node.store.figures().stripes for node in cluster.nodes.values()} == before
