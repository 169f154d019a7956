"""What a holder lost comes back by itself, or is truthfully given up; the siblings hear of it either way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from lockbox_node.core.placement import is_legal
from lockbox_node.core.repair import RepairParams, is_named, tellable
from lockbox_node.core.tiers import STANDARD
from lockbox_node.ports import StripePart, settled
from protocol.messages import NO_INDEX, HolderEntry, HolderTable, TellHolders, Told
from tests.fakes.healing_cluster import Cluster, View, delete, look, running
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, OWNER, AssetSigner, bytes_of, coded_parts

if TYPE_CHECKING:
    from protocol.ids import NodeId

SLOW = RepairParams(hold_off_s=1000, sweep_s=1000, request_timeout_s=1)


def table_of(part: StripePart) -> HolderTable:
    return HolderTable(part.address, part.version, part.descriptor_hash, tellable(part.entries))


async def tell(cluster: Cluster, teller: NodeId, told: NodeId, table: HolderTable) -> Told:
    view = View(teller, cluster)
    contact = view.contact(told)
    assert contact is not None
    reply = await view.request(contact, TellHolders([table], None))
    assert isinstance(reply, Told)
    return reply


async def lose(cluster: Cluster, node: NodeId, part: StripePart) -> None:
    """The part is gone, and a sibling tells of it."""
    cluster.stores[node].lose(part.address)
    sibling = next(one for one in cluster.nearest_first(part) if one != node and one not in cluster.down)
    told = await tell(cluster, sibling, node, table_of(await cluster.part_at(sibling, part)))
    assert told.missing == [part.descriptor_hash]


async def entries_at(cluster: Cluster, node: NodeId, part: StripePart) -> list[HolderEntry]:
    view = await look(cluster.stores[node], part.address)
    return [entry for table in view.tables for entry in table.entries]


def holds(cluster: Cluster, node: NodeId) -> bool:
    return cluster.stores[node].figures().stripes > 0


async def test_a_part_that_is_gone_comes_back_from_the_siblings(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        before = await cluster.part_at(node, part)
        await lose(cluster, node, part)
        await trio.sleep(10)
        after = await cluster.part_at(node, part)
        assert (after.index, after.shards, after.slots) == (before.index, before.shards, before.slots)
        assert cluster.menders[node].counts["mended"] == 1
        assert cluster.healings[node].pending == 0
        assert cluster.puts() == [], "nobody handed it over"


@pytest.mark.parametrize("said", [0, 7])
async def test_a_wrong_version_in_a_table_does_not_keep_a_part_from_coming_back(
    autojump_clock: trio.testing.MockClock, said: int
) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.stores[nodes[4]].lose(part.address)
        await tell(cluster, nodes[1], nodes[4], replace(table_of(part), version=said))
        await trio.sleep(10)
        assert (await cluster.part_at(nodes[4], part)).version == part.version


async def test_a_renewal_comes_back_with_the_part(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        until = NOW_UNIX_S + 90 * DAY_S
        renewal = AssetSigner("a").renewal(1, part.descriptor_hash, until)
        renew = partial(cluster.stores[nodes[1]].renew, renewal, part.address, part.descriptor_hash, until)
        await settled(renew)
        cluster.clock.now += 10 * DAY_S  # the descriptor's own lease is over
        await lose(cluster, nodes[4], part)
        await trio.sleep(10)
        after = await cluster.part_at(nodes[4], part)
        assert (after.lease_until_unix_s, after.renewal) == (until, renewal)


async def test_who_missed_a_renewal_learns_it_while_the_part_is_in_trash(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        late, *others = cluster.nearest_first(part)
        until = NOW_UNIX_S + 90 * DAY_S
        renewal = AssetSigner("a").renewal(1, part.descriptor_hash, until)
        for node in others:
            store = cluster.stores[node]
            await settled(partial(store.renew, renewal, part.address, part.descriptor_hash, until))
        cluster.clock.now += 10 * DAY_S
        await settled(partial(cluster.stores[late].expire, cluster.clock.now, 5.0))
        told = await tell(cluster, others[0], late, table_of(await cluster.part_at(others[0], part)))
        assert told.missing == [part.descriptor_hash]
        await trio.sleep(10)
        assert cluster.stores[late].figures().trash_stripes == 0
        assert (await cluster.part_at(late, part)).renewal == renewal
        assert cluster.menders[late].counts["renewed"] == 1


async def test_a_renewal_beyond_what_the_tier_allows_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        until = 2**62
        renewal = AssetSigner("a").renewal(1, part.descriptor_hash, until)
        store = cluster.stores[nodes[1]]
        await settled(partial(store.renew, renewal, part.address, part.descriptor_hash, until))
        await lose(cluster, nodes[4], part)
        await trio.sleep(10)
        after = await cluster.part_at(nodes[4], part)
        assert (after.lease_until_unix_s, after.renewal) == (part.lease_until_unix_s, None)


async def test_what_is_no_longer_wanted_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        deleted, over = await cluster.lock("a"), await cluster.lock("b")
        nodes = cluster.nearest_first(deleted)
        await lose(cluster, nodes[4], deleted)
        await delete(cluster.stores[nodes[2]], AssetSigner("a").tombstone(1), deleted)
        await trio.sleep(10)
        assert cluster.menders[nodes[4]].counts["buried"] == 1
        assert (await look(cluster.stores[nodes[4]], deleted.address)).tombstone is not None
        node = cluster.nearest_first(over)[3]
        cluster.clock.now += 2 * DAY_S
        await lose(cluster, node, over)
        await trio.sleep(10)
        assert cluster.menders[node].counts["expired"] == 1
        assert (await look(cluster.stores[node], over.address)).parts == ()


async def test_a_slot_that_nobody_knows_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        invented = bytes_of("invented")
        entries = [HolderEntry(index, node, 1) for index, node in enumerate(cluster.ids[:10])]
        await tell(cluster, cluster.ids[5], cluster.ids[0], HolderTable(invented, 1, invented, entries))
        assert cluster.healings[cluster.ids[0]].pending == 1
        await trio.sleep(10)
        assert cluster.healings[cluster.ids[0]].pending == 0
        assert cluster.menders[cluster.ids[0]].counts["unknown"] == 1


async def test_lost_parts_are_remembered_up_to_a_bound_and_once_each(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=RepairParams(lost_max=3, lost_hold_s=1000))) as cluster:
        entries = [HolderEntry(index, node, 1) for index, node in enumerate(cluster.ids[:10])]
        for number in [0, 0, 1, 2, 3, 4]:
            invented = bytes_of(number)
            await tell(cluster, cluster.ids[5], cluster.ids[0], HolderTable(invented, 1, invented, entries))
        assert cluster.healings[cluster.ids[0]].pending == 3


async def test_what_a_member_invents_does_not_keep_held_stripes_from_repair(
    autojump_clock: trio.testing.MockClock,
) -> None:
    params = RepairParams(
        hold_off_s=4, sweep_s=20, request_timeout_s=10, in_flight_max=1, short_max=40, lost_max=40, lost_hold_s=0
    )
    async with running(Cluster(params=params)) as cluster:
        part = await cluster.lock("a")
        steward, *others = cluster.nearest_first(part)
        liar = next(node for node in cluster.ids if node not in {steward, *others})
        cluster.silent.add(liar)
        for node in others:
            cluster.healings[node].pause()
        for number in range(40):
            entries = [HolderEntry(0, steward, 1), HolderEntry(1, liar, 1)]
            await tell(cluster, liar, steward, HolderTable(bytes_of(number), 1, bytes_of(number), entries))
        cluster.kill(others[3])
        await trio.sleep(40)
        assert [asker for _, asker in cluster.puts()] == [steward]


async def test_a_part_whose_descriptor_is_damaged_is_mended(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        before = await cluster.part_at(node, part)
        cluster.stores[node].spoil_head(part.address, part.descriptor_hash)
        await settled_or_not(cluster, node, part)
        await trio.sleep(30)
        assert (await cluster.part_at(node, part)).shards == before.shards
        assert len((await look(cluster.stores[node], part.address)).parts) == 1


async def settled_or_not(cluster: Cluster, node: NodeId, part: StripePart) -> None:
    """A read that finds the damage."""
    box: list[object] = []
    cluster.stores[node].get(part.address, part.descriptor_hash, box.append)
    assert not isinstance(box[0], StripePart)


async def test_damage_is_told_at_once_and_taken_back_when_it_is_mended(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        node, mender, healing = nodes[4], cluster.menders[nodes[4]], cluster.healings[nodes[4]]
        cluster.stores[node].on_corrupt = mender.report
        healing.pause()
        cluster.stores[node].corrupt(part.address, part.descriptor_hash)
        await settled_or_not(cluster, node, part)
        await trio.sleep(1)
        for sibling in nodes:
            assert is_named(await entries_at(cluster, sibling, part), node) == (sibling not in nodes)
        healing.resume()
        healing.sweep_soon()
        await trio.sleep(2)
        index = (await cluster.part_at(node, part)).index
        for sibling in nodes:
            entries = await entries_at(cluster, sibling, part)
            assert max((e for e in entries if e.node == node), key=lambda e: e.sequence).index == index
        assert cluster.puts() == []


@pytest.mark.parametrize("late_s", [0.0, 0.005, 0.015])
async def test_a_report_that_is_overtaken_by_the_mending_is_taken_back(
    autojump_clock: trio.testing.MockClock, late_s: float
) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        node, *siblings = reversed(cluster.nearest_first(part))
        cluster.stores[node].corrupt(part.address, part.descriptor_hash)
        await settled_or_not(cluster, node, part)  # found, and nobody told
        cluster.healings[node].sweep_soon()
        await trio.sleep(late_s)
        cluster.menders[node].report(part.address, part.descriptor_hash)
        await trio.sleep(10)
        assert (await cluster.part_at(node, part)).shards
        for who in (node, *siblings):
            assert is_named(await entries_at(cluster, who, part), node), "somebody believes that it holds nothing"


async def test_who_does_not_mend_in_time_is_replaced_and_then_yields(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        node, mender = nodes[4], cluster.menders[nodes[4]]
        cluster.stores[node].on_corrupt = mender.report
        cluster.healings[node].pause()
        cluster.stores[node].corrupt(part.address, part.descriptor_hash)
        await settled_or_not(cluster, node, part)
        await trio.sleep(60)
        table = (await cluster.part_at(nodes[0], part)).entries
        heirs = {entry.node for entry in table} - set(nodes)
        assert len(heirs) == 1, "the siblings have rebuilt it elsewhere"
        cluster.healings[node].resume()
        await trio.sleep(30)
        assert mender.counts["yielded"] == 1
        assert not holds(cluster, node)
        assert not is_named(await entries_at(cluster, nodes[0], part), node)


async def test_a_missing_part_whose_index_another_holds_is_not_fetched(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.kill(nodes[4])
        await trio.sleep(15)
        cluster.down.clear()
        cluster.known_dead.clear()
        cluster.healings[nodes[4]].resume()
        await lose(cluster, nodes[4], part)
        await trio.sleep(20)
        assert not holds(cluster, nodes[4])
        assert cluster.menders[nodes[4]].counts["yielded"] == 1
        again = await tell(cluster, nodes[0], nodes[4], table_of(await cluster.part_at(nodes[0], part)))
        lines = [entry for entry in await entries_at(cluster, nodes[0], part) if entry.node == nodes[4]]
        assert max(lines, key=lambda line: line.sequence).index == NO_INDEX
        assert again.missing == [], "the siblings know, so nobody tells it again"


async def test_what_cannot_be_fetched_is_said_to_be_lost_and_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(params=RepairParams(hold_off_s=1000, sweep_s=20, request_timeout_s=1))) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.lying |= set(nodes)
        await lose(cluster, nodes[4], part)
        await trio.sleep(10)
        assert cluster.healings[nodes[4]].repairs_failed == 1
        assert not is_named(await entries_at(cluster, nodes[0], part), nodes[4])
        cluster.lying.clear()
        await trio.sleep(30)
        assert holds(cluster, nodes[4])
        assert is_named(await entries_at(cluster, nodes[0], part), nodes[4])


async def test_a_failing_holder_is_taken_over_and_still_asked_last(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.lying |= set(nodes[5:9])  # so that k cannot be had without the failing one
        cluster.failing.add(nodes[4])
        cluster.stores[nodes[4]].fail("the disk is gone")
        cluster.come_back(nodes[4])
        await trio.sleep(30)
        cluster.lying.clear()
        holders = await cluster.holders(part, nodes[0])
        assert is_legal(STANDARD, holders)
        assert nodes[4] not in {holder.node for holder in holders.values()}


async def test_a_broken_store_repairs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.stores[nodes[0]].fail("the disk is gone")
        cluster.kill(nodes[4])
        await trio.sleep(20)
        assert {asker for _, asker in cluster.puts()} == {nodes[1]}


async def test_a_version_that_a_sibling_has_replaced_is_not_fetched(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=SLOW)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        holders = [entry.node for entry in part.entries]
        newer = coded_parts("a", holders, version=2, replaces=[part.descriptor_hash])
        updated = nodes[1]
        put = partial(cluster.stores[updated].put, newer[holders.index(updated)], [part.descriptor_hash], OWNER)
        await settled(put)
        await lose(cluster, nodes[4], part)
        await trio.sleep(10)
        assert cluster.menders[nodes[4]].counts == {"replaced": 1}
        assert not holds(cluster, nodes[4])
