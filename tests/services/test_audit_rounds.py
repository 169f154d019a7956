"""Audits between holders: each kind of ward gets its verdict, what fails heals, only a denied loss costs standing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_findings import BUSY_S
from lockbox_node.core.repair import line_of
from lockbox_node.errors import LockboxError
from lockbox_node.ports import settled
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import HolderTable, TellHolders
from tests.fakes.audits import AUDIT, PERIOD_S, ROUND_S, challenges, faults_of, found, said, until, whole_without
from tests.fakes.healing_cluster import Cluster, View, running
from tests.fakes.stripes import DAY_S


async def test_every_honest_holder_is_asked_once_in_a_period_each_by_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        await trio.sleep(4 * PERIOD_S)
        asked: dict[bytes, list[float]] = {}
        for when, asker in challenges(cluster):
            asked.setdefault(asker, []).append(when)
        assert sorted(asked) == sorted(entry.node for entry in part.entries)
        for times in asked.values():
            assert len(times) == 4
            assert all(PERIOD_S - 2 < later - earlier < PERIOD_S + 2 for earlier, later in pairwise(times))
        assert said(cluster) == Counter({Verdict.HELD: 40})
        assert (found(cluster), cluster.puts()) == (0, [])
        assert sum(rounds.proof_bytes for rounds in cluster.rounds.values()) == 40 * 600


async def test_another_day_draws_other_judges(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        wards = []
        for day in range(2):
            cluster.clock.now += day * PERIOD_S
            holders = [NodeId(entry.node) for entry in part.entries]
            wards.append([cluster.rounds[node]._wards(await cluster.part_at(node, part)) for node in holders])
        assert wards[0] != wards[1]


async def test_a_part_that_rotted_is_found_though_nobody_reads_it_and_mended_by_its_holder(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.stores[ward].corrupt(part.address, part.descriptor_hash)
        await trio.sleep(ROUND_S)
        assert said(cluster)[Verdict.CORRUPT] >= 1
        assert (await cluster.part_at(ward, part)).index == 4
        await trio.sleep(20)
        assert (found(cluster), faults_of(cluster, ward)) == (0, 0.0)
        assert cluster.puts() == []


async def test_a_part_that_is_gone_is_found_and_fetched_back_by_its_holder_who_is_forgiven(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.stores[ward].lose(part.address)
        await trio.sleep(ROUND_S)
        assert said(cluster)[Verdict.MISSING] >= 1
        assert (await cluster.part_at(ward, part)).index == 4
        await trio.sleep(20)
        assert (found(cluster), faults_of(cluster, ward)) == (0, 0.0)


async def test_wrong_bytes_are_replaced_elsewhere_and_cost_standing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.lying.add(ward)
        await trio.sleep(ROUND_S + 30)
        assert await whole_without(cluster, part, ward)
        assert cluster.sum("repairs_done") >= 1
        assert faults_of(cluster, ward) == pytest.approx(1.0, abs=0.01)


async def test_who_lies_again_and_again_is_given_nothing_new_by_those_who_saw_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        parts = [await cluster.lock(seed) for seed in range(24)]
        ward = NodeId(Counter(entry.node for part in parts for entry in part.entries).most_common(1)[0][0])
        cluster.lying.add(ward)
        await trio.sleep(3 * ROUND_S)
        judges = {node for node, rounds in cluster.rounds.items() if ward in rounds.excluded()}
        assert judges
        for node in judges:
            assert cluster.rounds[node].standings.faults(ward, trio.current_time()) >= AUDIT.faults_max
        assert all(rounds.excluded() <= {ward} for rounds in cluster.rounds.values())


async def test_silence_of_one_who_answers_pings_counts_the_third_time_and_costs_a_little(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=replace(AUDIT, silent_max=3)) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.mute.add(ward)
        await until(lambda: found(cluster) > 0)
        judge = next(node for node, rounds in cluster.rounds.items() if rounds.counts[Verdict.SILENT])
        silent_at = [when for when, asker in challenges(cluster) if asker == judge][-3:]
        assert cluster.rounds[judge].counts[Verdict.SILENT] == 3
        assert [later - earlier > 2 for earlier, later in pairwise(silent_at)] == [True, True]
        await trio.sleep(30)
        assert await whole_without(cluster, part, ward)
        assert faults_of(cluster, ward) == pytest.approx(0.25, abs=0.01)


async def test_who_is_silent_to_everything_loses_the_part_and_no_standing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.silent.add(ward)
        await trio.sleep(ROUND_S + 90)
        assert await whole_without(cluster, part, ward)
        assert faults_of(cluster, ward) == 0.0


@pytest.mark.parametrize("code", [ErrorCode.BUSY, ErrorCode.ACCESS_DENIED, ErrorCode.INTERNAL])
async def test_an_excuse_costs_the_part_after_three_times_and_no_standing(
    code: ErrorCode, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.excuses[ward] = code
        await trio.sleep(ROUND_S + 30 + (BUSY_S if code is ErrorCode.BUSY else 0))
        assert await whole_without(cluster, part, ward)
        assert faults_of(cluster, ward) == 0.0


async def test_an_honest_node_at_the_end_of_a_slow_way_is_given_time(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.slow_s[ward] = 3.0
        await trio.sleep(ROUND_S)
        assert said(cluster)[Verdict.SILENT] >= 1
        assert said(cluster)[Verdict.HELD] >= 10
        assert (found(cluster), faults_of(cluster, ward), cluster.puts()) == (0, 0.0, [])


async def test_who_speaks_again_before_the_hold_off_is_over_is_not_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    params = replace(Cluster().params, hold_off_s=100)
    async with running(Cluster(params), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.mute.add(ward)
        await until(lambda: found(cluster) > 0)
        cluster.mute.clear()
        await trio.sleep(20)
        assert (found(cluster), cluster.puts()) == (0, [])
        await trio.sleep(200)
        assert cluster.puts() == []


async def test_who_is_dead_is_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        ward = NodeId(part.entries[4].node)
        cluster.known_dead.add(ward)
        cluster.mute.add(ward)
        await trio.sleep(ROUND_S)
        assert set(said(cluster)) == {Verdict.HELD}


async def test_who_doubts_its_view_judges_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        cluster.unwell.update(dict.fromkeys(cluster.ids, 3))
        for healing in cluster.healings.values():
            healing.sweep_soon()
        await trio.sleep(1)
        cluster.mute.add(part.entries[4].node)
        await trio.sleep(ROUND_S)
        assert challenges(cluster) == []
        rounds = cluster.rounds[NodeId(part.entries[0].node)]
        assert rounds.word == "paused"
        with pytest.raises(LockboxError, match="doubts its view"):
            rounds.start_now()


async def test_what_fails_while_the_view_becomes_doubtful_is_not_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        cluster.mute.update(entry.node for entry in part.entries)
        await until(lambda: bool(challenges(cluster)))
        cluster.unwell.update(dict.fromkeys(cluster.ids, 3))
        for healing in cluster.healings.values():
            healing.sweep_soon()
        await trio.sleep(30)
        assert sum(rounds.findings.waiting for rounds in cluster.rounds.values()) == 0


async def test_a_liars_lines_about_an_honest_node_cost_it_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        liar, honest = NodeId(part.entries[0].node), NodeId(part.entries[4].node)
        stranger = next(node for node in cluster.ids if node not in {entry.node for entry in part.entries})
        view = View(liar, cluster)
        for victim, index in ((honest, 7), (stranger, 2)):
            forged = HolderTable(
                part.address, part.version, part.descriptor_hash, [line_of(part.entries, victim, index)]
            )
            for entry in part.entries:
                contact = view.contact(NodeId(entry.node))
                assert contact is not None
                await view.request(contact, TellHolders([forged], None))
        await trio.sleep(2 * ROUND_S)
        assert said(cluster)[Verdict.MISSING] >= 1
        assert faults_of(cluster, honest) == faults_of(cluster, stranger) == 0.0
        assert not any(rounds.excluded() for rounds in cluster.rounds.values())


async def test_no_judge_asks_faster_than_its_budgets_allow(autojump_clock: trio.testing.MockClock) -> None:
    slow = replace(AUDIT, audits_per_s=2, bytes_per_s=300)  # a proof is 600 bytes: one in 2 s
    async with running(Cluster(), audit=slow) as cluster:
        for seed in range(60):
            await cluster.lock(seed)
        await trio.sleep(60)
        by_judge: dict[bytes, list[float]] = {}
        for when, asker in challenges(cluster):
            by_judge.setdefault(asker, []).append(when)
        assert max(map(len, by_judge.values())) >= 12
        for times in by_judge.values():
            assert all(later - earlier >= 1.99 for earlier, later in pairwise(times))


async def test_a_part_whose_lease_is_over_is_asked_for_no_more(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        cluster.clock.now += 2 * DAY_S
        await trio.sleep(ROUND_S)
        assert challenges(cluster) == []
        rounds = cluster.rounds[NodeId(part.entries[0].node)]
        assert rounds.start_now() == 1
        await trio.sleep(5)
        assert (rounds.last.parts, rounds.last.cut) == (0, False)


async def test_a_finding_about_a_part_that_nobody_should_hold_any_more_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        cluster.mute.add(part.entries[4].node)
        await until(lambda: found(cluster) > 0)
        cluster.clock.now += 2 * DAY_S
        await trio.sleep(30)
        assert found(cluster) == 0


async def test_an_operator_has_a_whole_round_done_now(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=replace(AUDIT, first_s=10_000)) as cluster:
        part = await cluster.lock("a")
        judge = NodeId(part.entries[0].node)
        for seed in range(5):
            await cluster.lock(seed)
        rounds = cluster.rounds[judge]
        held = cluster.stores[judge].figures().stripes
        assert rounds.start_now() == rounds.start_now() == 1
        await trio.sleep(10)
        assert not rounds.last.running
        assert (rounds.last.parts, rounds.last.counts) == (held, Counter({Verdict.HELD: held}))
        assert rounds.start_now() == 2


async def test_a_store_that_is_busy_costs_a_round_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part = await cluster.lock("a")
        rounds = cluster.rounds[NodeId(part.entries[0].node)]
        for store in cluster.stores.values():
            store.busy = True
        assert rounds.start_now() == 1
        await trio.sleep(ROUND_S)
        assert (rounds.last.running, rounds.last.cut) == (False, True)
        assert rounds.start_now() == 2
        for store in cluster.stores.values():
            store.busy = False
        await trio.sleep(ROUND_S)
        assert said(cluster)[Verdict.HELD] >= 10


async def test_new_parameters_hold_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=replace(AUDIT, period_s=DAY_S)) as cluster:
        await cluster.lock("a")
        await trio.sleep(5)
        for rounds in cluster.rounds.values():
            rounds.obey(AUDIT)
        await trio.sleep(ROUND_S)
        held = said(cluster)[Verdict.HELD]
        assert held >= 10
        for rounds in cluster.rounds.values():
            rounds.obey(replace(AUDIT, enabled=False))
        await trio.sleep(2 * ROUND_S)
        assert said(cluster)[Verdict.HELD] == held
        assert {rounds.word for rounds in cluster.rounds.values()} == {"off"}


async def test_a_judge_that_restarts_finds_it_again_in_the_next_round(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster(replace(Cluster().params, hold_off_s=10_000))
    part = await cluster.lock("a")
    cluster.mute.add(part.entries[4].node)
    for _ in range(2):  # findings live in memory
        async with running(cluster, audit=AUDIT):
            assert found(cluster) == 0
            await trio.sleep(ROUND_S + 20)
            assert found(cluster) == 1


async def test_wrong_bytes_of_one_stripe_say_nothing_of_another(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), audit=AUDIT) as cluster:
        part, other = await cluster.lock("a"), await cluster.lock("b")
        ward = NodeId(part.entries[4].node)
        cluster.stores[ward].lose(part.address)
        await trio.sleep(ROUND_S)
        view = await settled(partial(cluster.stores[ward].look, other.address))
        assert not view.parts or (await cluster.part_at(ward, other)).shards
        for rounds in cluster.rounds.values():
            assert rounds.findings.at(other.address, other.descriptor_hash) == frozenset()
