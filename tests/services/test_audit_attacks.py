"""What a hostile member, or a broken way, can make of audits between siblings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio.testing

from lockbox_node.core.audit import Verdict
from lockbox_node.ports import settled
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import SEQUENCE_MAX, HolderEntry, HolderTable, TellHolders
from tests.fakes.audits import AUDIT, ROUND_S, challenges, found, said, whole_without
from tests.fakes.healing_cluster import Cluster, View, running

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart


async def told(view: View, node: NodeId, part: StripePart, lines: list[HolderEntry]) -> None:
    """One member tells another lines about a stripe."""
    contact = view.contact(node)
    assert contact is not None
    table = HolderTable(part.address, part.version, part.descriptor_hash, lines)
    await view.request(contact, TellHolders([table], None))


async def test_what_is_replaced_makes_room_for_the_rest_that_a_mute_node_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=replace(AUDIT, findings_max=4)) as cluster:
        parts = [await cluster.lock(seed) for seed in range(40)]
        ward = NodeId(Counter(entry.node for part in parts for entry in part.entries).most_common(1)[0][0])
        lost = [part for part in parts if any(entry.node == ward for entry in part.entries)]
        cluster.mute.add(ward)
        await trio.sleep(8 * ROUND_S)
        assert sum(rounds.overflow for rounds in cluster.rounds.values()) >= 1
        left = [part for part in lost if not await whole_without(cluster, part, ward)]
        assert left == []


async def test_no_line_about_a_judge_keeps_it_from_judging(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        view = View(NodeId(part.entries[0].node), cluster)
        for entry in part.entries[1:]:
            line = HolderEntry(200, entry.node, SEQUENCE_MAX)
            await told(view, NodeId(entry.node), part, [line])
            assert line not in (await cluster.part_at(NodeId(entry.node), part)).entries
        await trio.sleep(2 * ROUND_S)
        assert {asker for _, asker in challenges(cluster)} == {entry.node for entry in part.entries}
        assert (found(cluster), cluster.puts()) == (0, [])


async def test_no_line_about_a_ward_keeps_it_from_being_judged(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        liar, ward = NodeId(part.entries[0].node), NodeId(part.entries[4].node)
        for entry in part.entries:
            await told(View(liar, cluster), NodeId(entry.node), part, [HolderEntry(200, ward, SEQUENCE_MAX)])
        cluster.mute.add(ward)
        await trio.sleep(2 * ROUND_S)
        assert said(cluster)[Verdict.SILENT] >= 3
        assert await whole_without(cluster, part, ward)


async def test_made_up_holders_do_not_come_between_a_ward_and_its_judge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        holders = {entry.node for entry in part.entries}
        liar, ward = NodeId(part.entries[0].node), NodeId(part.entries[4].node)
        strangers = [node for node in cluster.ids if node not in holders]
        lines = [HolderEntry(number % 10, node, 1) for number, node in enumerate(strangers)]
        cluster.mute.add(ward)
        for entry in part.entries:
            await told(View(liar, cluster), NodeId(entry.node), part, lines)
        await trio.sleep(ROUND_S + 20)
        assert said(cluster)[Verdict.SILENT] >= 3
        assert {asker for _, asker in challenges(cluster)} >= holders - {ward}
        assert any(ward in rounds.findings.at(part.address, part.descriptor_hash) for rounds in cluster.rounds.values())


async def test_suspicion_at_the_right_moment_hides_no_loss(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.mute.add(ward)
        cluster.suspected.add(ward)  # it refutes, and an accomplice says it anew, whenever it is due
        await trio.sleep(ROUND_S + 30)
        assert sum(rounds.skipped for rounds in cluster.rounds.values()) >= AUDIT.silent_max
        assert await whole_without(cluster, part, ward)


async def test_a_moments_suspicion_costs_an_honest_node_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.suspected.add(ward)
        await trio.sleep(ROUND_S)
        cluster.suspected.clear()
        await trio.sleep(20)
        assert set(said(cluster)) == {Verdict.HELD}
        assert sum(rounds.findings.waiting for rounds in cluster.rounds.values()) == 0


async def test_who_is_cut_off_from_many_replaces_nothing(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster(replace(Cluster().params, hold_off_s=100))
    async with running(cluster, audit=AUDIT):
        for seed in range(30):
            await cluster.lock(seed)
        judge, *others = cluster.ids
        cluster.cut |= {frozenset({judge, other}) for other in others[::2]}
        await trio.sleep(4 * ROUND_S)
        assert cluster.rounds[judge].counts[Verdict.SILENT] >= 9
        assert cluster.rounds[judge].findings.doubtful
        assert judge not in {asker for _, asker in cluster.puts()}


async def test_who_has_no_room_to_ask_blames_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        judge = NodeId(part.entries[4].node)
        cluster.crowded.add(judge)
        await trio.sleep(2 * ROUND_S)
        rounds = cluster.rounds[judge]
        assert (rounds.counts.total(), rounds.findings.waiting) == (0, 0)
        assert rounds.skipped >= 2


async def test_a_restored_node_that_is_busy_for_a_while_keeps_its_place(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.excuses[ward] = ErrorCode.BUSY
        await trio.sleep(110)
        cluster.excuses.clear()
        await trio.sleep(ROUND_S)
        assert said(cluster)[Verdict.SILENT] >= 1
        assert (found(cluster), cluster.puts()) == (0, [])


async def test_a_repair_does_not_ask_who_proved_to_have_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.lying.add(ward)
        await trio.sleep(ROUND_S + 30)
        assert await whole_without(cluster, part, ward)
        assert len(cluster.fetched_from) >= 4
        assert ward not in cluster.fetched_from


async def test_a_wards_loss_does_not_hide_that_our_own_part_is_damaged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(replace(Cluster().params, hold_off_s=10_000))) as cluster:
        part = await cluster.lock("a")
        healing = cluster.healings[NodeId(part.entries[0].node)]
        whole, *_ = await settled(partial(cluster.stores[NodeId(part.entries[0].node)].summaries, b"", 1))
        healing.pause()
        healing._judge(replace(whole, corrupt=True), trio.current_time())
        healing.figures.sweep_begins()
        healing.look_at(whole)
        (short,) = healing._short.values()
        assert short.summary.corrupt
        healing.figures.sweep_ends()
        assert healing.figures.margins == {}
