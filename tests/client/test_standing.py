"""What stands at an address, slots included: verified, whoever shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.client.standing import Standing
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import STANDARD
from protocol.messages import GetSlot, Message, Signed, Slots, SlotState
from protocol.records import Renewal, Tombstone, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey
    from tests.fakes.cluster import Cluster


async def locked(vault: Vault) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(b"secret")), STANDARD)).asset
    await trio.sleep(2)
    return asset


async def standing(vault: Vault, index: int) -> Standing:
    with root_key(vault.wallet.master, index) as key:
        one = Standing(vault, key)
        await one.ask()
        return one


async def test_the_slot_is_shown_by_several_holders_and_verified(vault: Vault) -> None:
    asset = await locked(vault)
    seen = await standing(vault, asset.index)
    assert seen.presence is Presence.STANDS
    (slot,) = seen.slots
    assert slot.table.descriptor_hash == asset.descriptor_hash
    assert len(slot.shown_by) >= STANDARD.current_answers
    assert len(slot.table.holders) == 10


async def test_nothing_stands_where_nothing_was_locked(vault: Vault) -> None:
    seen = await standing(vault, 77)
    assert (seen.presence, seen.slots, seen.shown()) == (Presence.ABSENT, [], 0)


async def test_slots_that_their_descriptor_does_not_sign_are_not_believed(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Slots)
        states = [
            SlotState(state.descriptor, [bytes(len(slot)) for slot in state.slots], state.index, state.entries)
            for state in reply.states
        ]
        forged = [
            SlotState(Signed(state.descriptor.body, bytes(64)), state.slots, state.index, []) for state in reply.states
        ]
        return Slots([*states, *forged], reply.tombstone)

    for node in cluster.holding(asset.address):
        node.bend[GetSlot] = false
    seen = await standing(vault, asset.index)
    assert seen.slots == []
    assert seen.presence is Presence.STANDS  # holders are named, and show nothing that holds


async def test_the_longest_renewal_that_holders_show_counts_and_false_ones_do_not(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    until = asset.lease_until_unix_s

    def a_renewal(key: AssetKey, version: int, digest: bytes, lease_until_unix_s: int) -> Signed:
        return sign(Renewal(key.public_key, version, digest, lease_until_unix_s, 1), key)

    with root_key(vault.wallet.master, asset.index) as key, root_key(vault.wallet.master, 77) as other:
        good = a_renewal(key, 1, asset.descriptor_hash, until + 50)
        shown = [
            good,
            a_renewal(key, 1, asset.descriptor_hash, until + 20),
            a_renewal(key, 1, bytes(32), until + 90),
            a_renewal(key, 2, asset.descriptor_hash, until + 90),
            a_renewal(other, 1, asset.descriptor_hash, until + 90),
            Signed(a_renewal(key, 1, asset.descriptor_hash, until + 90).body, good.signature),
        ]

    def showing(signed: Signed) -> Callable[[Message], Message]:
        def bent(reply: Message) -> Message:
            assert isinstance(reply, Slots)
            return Slots([msgspec.structs.replace(state, renewal=signed) for state in reply.states], None)

        return bent

    holders = cluster.holding(asset.address)
    for node in holders[3:]:
        node.silent.add(GetSlot)  # so few that every one that answers is heard
    for false in shown[2:]:
        for node, signed in zip(holders, [*shown[:2], false], strict=False):
            node.bend[GetSlot] = showing(signed)
        (slot,) = (await standing(vault, asset.index)).slots
        assert slot.lease_until_unix_s == until + 50


async def test_silent_holders_are_counted_and_do_not_hang(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.holding(asset.address)[:8]:
        node.silent.add(GetSlot)
    began = trio.current_time()
    seen = await standing(vault, asset.index)
    assert seen.silent == 8
    assert seen.shown() == 2
    assert trio.current_time() - began < 12


async def test_a_tombstone_that_comes_with_the_slots_buries_them(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    with root_key(vault.wallet.master, asset.index) as key:
        tombstone = sign(Tombstone(key.public_key, 1, int(vault.now_unix_s()), 2**33), key)

    def buried(reply: Message) -> Message:
        assert isinstance(reply, Slots)
        return Slots(reply.states, tombstone)

    cluster.holding(asset.address)[0].bend[GetSlot] = buried
    for node in cluster.holding(asset.address)[1:]:
        node.bend[GetSlot] = buried
    seen = await standing(vault, asset.index)
    assert (seen.presence, seen.slots) == (Presence.BURIED, [])
