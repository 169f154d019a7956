"""Who is believed about an address: merged answers, liars among them, misses that count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.finding import FIRST_ANSWERS, Finding, Presence, SlotTable, tombstone_version
from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.derivation import root_key
from lockbox_node.core.regions import spread_regions
from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.errors import AssetNotFound, LockboxError, PeerUnreachable
from protocol.messages import NO_INDEX, FindHolders, GetShards, HolderEntry, Holders, HolderTable, Message, Signed
from protocol.records import NodeRecord, Tombstone, parse, sign
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

SECRET = b"a secret that must not be lost"


async def locked(vault: Vault) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(SECRET)), STANDARD)).asset
    await trio.sleep(2)  # until the pointers are spread
    return asset


def entry(index: int, node: int, sequence: int) -> HolderEntry:
    return HolderEntry(index, bytes([node]) * 32, sequence)


def test_the_higher_sequence_wins_in_any_order() -> None:
    one, other = SlotTable(1, bytes(32)), SlotTable(1, bytes(32))
    lines = [entry(0, 1, 1), entry(0, 1, 3), entry(1, 2, 2)]
    one.merge(lines)
    other.merge(reversed(lines))
    assert one.holders == other.holders == {(0, bytes([1]) * 32): 3, (1, bytes([2]) * 32): 2}


def test_who_says_that_it_lost_its_part_is_no_holder_of_another_index() -> None:
    table = SlotTable(1, bytes(32))
    table.merge([entry(3, 1, 1), entry(NO_INDEX, 1, 2), entry(NO_INDEX, 2, 1)])
    assert set(table.holders) == {(3, entry(3, 1, 1).node)}


async def test_a_stripe_is_found_with_all_its_holders(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    finding = Finding(vault, asset.address)
    await finding.first(STANDARD.current_answers)
    assert finding.presence is Presence.STANDS
    (table,) = finding.tables()
    assert {node for _, node in table.holders} >= {node.id for node in cluster.holding(asset.address)}
    assert finding.answers >= 3


async def test_an_address_that_nobody_knows_is_absent_only_when_most_of_the_nearest_say_so(
    cluster: Cluster, vault: Vault
) -> None:
    finding = Finding(vault, bytes(32))
    assert finding.presence is Presence.UNKNOWN
    with pytest.raises(AssetNotFound):
        await finding.first(3)
    for node in cluster.nearest(bytes(32), 12):
        node.silent.add(FindHolders)
    finding = Finding(vault, bytes(32))
    with pytest.raises(PeerUnreachable, match="8 of the 20 nodes"):
        await finding.first(3)
    assert finding.presence is Presence.UNKNOWN


async def test_invented_regions_count_as_one_however_many_names_they_have(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    cluster = Cluster(24, regions=1, cities=["nowhere-1", "nowhere-2", "nowhere-3"])
    await nursery.start(cluster.run)
    async with cluster.client(a_wallet(cluster, tmp_path / "w")) as vault:
        for node in cluster.nodes.values():
            assert node.identity.record is not None
            if parse(node.identity.record, NodeRecord).region == spread_regions(1)[0]:
                node.silent.add(FindHolders)
        finding = Finding(vault, bytes(32))
        with pytest.raises(PeerUnreachable):
            await finding.first(3)
        assert finding.presence is Presence.UNKNOWN


async def test_when_only_two_nodes_answer_what_they_say_is_tried_after_a_moment(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.silent.add(FindHolders)
    for node in cluster.holding(asset.address)[:2]:
        node.silent.clear()
    began = trio.current_time()
    finding = Finding(vault, asset.address)
    await finding.first(STANDARD.current_answers)
    assert finding.tables()
    assert trio.current_time() - began <= 5.5
    assert not await finding.settle(STANDARD.current_answers)


def inventing(address: bytes, versions: range, holders: list[bytes]) -> Callable[[Message], Message]:
    """What a liar says: versions that do not exist, at holders that will not answer."""

    def bend(_reply: Message) -> Message:
        entries = [HolderEntry(index, node, 1) for index, node in enumerate(holders)]
        tables = [HolderTable(address, version, bytes([version]) * 32, entries) for version in versions]
        return Holders(tables, None, [])

    return bend


async def test_versions_that_liars_invent_neither_hide_the_real_one_nor_cost_a_wait(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    near = cluster.nearest(asset.address, 24)
    silent = [node.id for node in near[-8:]]
    for node in near[-8:]:
        node.silent.add(GetShards)
    for number, liar in enumerate(near[:3]):  # each tells other tales
        liar.bend[FindHolders] = inventing(asset.address, range(20 + 8 * number, 28 + 8 * number), silent)
    sink, began = MemorySink(), trio.current_time()
    result = await unlock(vault, asset, sink)
    assert sink.content == SECRET
    assert result.maybe_stale  # nobody can say that the tales are none
    assert trio.current_time() - began < 3


async def test_a_table_of_another_address_is_not_taken(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.bend[FindHolders] = inventing(bytes(32), range(1, 2), [])
    finding = Finding(vault, asset.address)
    finding.survey.ask(20)
    await finding.survey.until(lambda: finding.answers >= 20, trio.current_time() + 5, 0.3)
    assert finding.tables() == []


async def test_a_false_tombstone_buries_nothing(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    with root_key(vault.wallet.master, 99) as stranger:
        foreign = sign(Tombstone(stranger.public_key, 9, 1, 2), stranger)
    with root_key(vault.wallet.master, asset.index) as key:
        real = sign(Tombstone(key.public_key, 9, 1, 2), key)
    for false in (foreign, Signed(real.body, bytes(64)), Signed(b"", bytes(64))):
        assert tombstone_version(false, asset.address) == -1
    assert tombstone_version(real, asset.address) == 9
    finding = Finding(vault, asset.address)
    await finding.first(BASIC.current_answers)
    seen = []
    for tombstone in (foreign, real):
        finding.bury(tombstone)
        seen.append((finding.presence, len(finding.tables())))
    assert seen == [(Presence.STANDS, 1), (Presence.BURIED, 0)]


async def test_answers_of_one_operator_alone_are_believed_only_after_a_moment(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    near = cluster.nearest(asset.address, 20)
    common, rare = (found[0] for found in Counter(node.identity.operator for node in near).most_common()[::6])
    for node in cluster.nodes.values():
        if node.identity.operator == rare:
            node.silent.add(FindHolders)
        elif node.identity.operator != common:
            node.refuse[FindHolders] = LockboxError("not now", "ask others")
    began, finding = trio.current_time(), Finding(vault, asset.address)
    await finding.first(STANDARD.current_answers)
    assert finding.answers >= FIRST_ANSWERS
    assert trio.current_time() - began >= vault.params.first_s
