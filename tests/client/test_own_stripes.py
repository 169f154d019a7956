"""What is found of a stripe of ours, and how its holders are told something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.own_stripes import OwnStripe, Telling, in_turn, manifest_of
from lockbox_node.client.scanning import scan
from protocol.messages import FindHolders, Ping
from tests.client.test_ending import locked
from tests.fakes.siblings import copy_of

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from tests.fakes.cluster import Cluster


async def test_a_stripe_shows_its_slot_its_manifest_and_every_holder(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    stripe = await OwnStripe.root(vault, asset)
    slot = stripe.slot(asset)
    assert slot is not None
    assert slot.table.descriptor_hash == asset.descriptor_hash
    assert manifest_of(vault, stripe, slot).size == asset.size
    assert stripe.named == {node.id for node in cluster.holding(asset.address)}
    assert (stripe.presence, stripe.version, stripe.address) == (Presence.STANDS, 1, asset.address)


async def test_of_siblings_the_one_that_was_asked_for_is_shown_and_never_another(vault: Vault) -> None:
    asset = await locked(vault)
    stripe = await OwnStripe.root(vault, asset)
    assert stripe.slot(asset) is stripe.slot() is not None
    assert stripe.slot(msgspec.structs.replace(asset, descriptor_hash=bytes(32))) is None


async def test_of_siblings_on_the_same_holders_each_is_told_from_the_other(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    async with cluster.client(wallet, 11) as vault:
        await locked(vault)
    copy = copy_of(wallet, tmp_path / "copy")
    for machine, seed in ((wallet, 12), (copy, 13)):  # the copy moves on, and leaves its own where it was
        async with cluster.client(machine, seed) as vault:
            await locked(vault)
    async with cluster.client(wallet) as vault:
        (both,) = await scan(vault, range(1, 2))
        assert len(both.shown) == 2
        for one in both.shown:
            slot = (await OwnStripe.root(vault, one.asset)).slot(one.asset)
            assert slot is not None
            assert slot.table.descriptor_hash == one.asset.descriptor_hash


async def test_where_nobody_is_heard_any_of_the_nearest_may_hold_it(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.silent.add(FindHolders)
    stripe = await OwnStripe.root(vault, asset)
    assert stripe.presence is Presence.UNKNOWN
    assert len(stripe.named) == 20
    assert (stripe.slot(), stripe.version) == (None, 0)


async def test_who_was_silent_once_is_told_and_not_waited_for_again(cluster: Cluster, vault: Vault) -> None:
    nodes = sorted(cluster.nodes)[:6]
    mute = cluster.nodes[nodes[0]]
    mute.silent.add(FindHolders)
    request, telling = FindHolders(bytes(32)), Telling(vault)
    began = trio.current_time()
    first = await telling.tell(request, nodes)
    assert first.answered == set(nodes[1:])
    assert trio.current_time() - began >= vault.params.tell_s
    began = trio.current_time()
    second = await telling.tell(request, nodes)
    assert second.answered == set(nodes[1:])
    assert trio.current_time() - began < 1
    await trio.sleep(1)
    assert mute.asked["FindHolders"] == 2


async def test_strangers_to_the_network_are_not_told(vault: Vault) -> None:
    assert (await Telling(vault).tell(Ping(1), [bytes(32)])).answered == set()


async def test_in_turn_works_on_everything_and_no_more_than_the_window_at_once() -> None:
    under_way, most, done = 0, 0, []

    async def work(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        done.append(number)

    await in_turn(range(10), work, 3)
    assert sorted(done) == list(range(10))
    assert most == 3
