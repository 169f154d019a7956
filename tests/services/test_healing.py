"""Healing over memory stores: who repairs, when, and what stops it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing

from lockbox_node.core.member_events import MemberAlive
from lockbox_node.core.placement import is_legal
from lockbox_node.core.repair import URGENT_S, Cause, GuardParams, RepairParams
from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.ports import settled
from protocol.messages import PutStripe
from tests.fakes.healing_cluster import QUICK, Cluster, running
from tests.fakes.stripes import DAY_S, NOW_UNIX_S


async def test_a_dead_holder_is_replaced_by_the_steward_after_the_hold_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        steward, *others = cluster.nearest_first(part)
        await trio.sleep(1)
        start = trio.current_time()
        cluster.kill(others[3])
        await trio.sleep(10)
        for node in (steward, others[0], others[-1]):
            holders = await cluster.holders(part, node)
            assert is_legal(STANDARD, holders)
        ((when, asker),) = cluster.puts()
        assert asker == steward
        assert 4 <= when - start < 6
        assert cluster.sum("repairs_done") == 1
        assert cluster.sum("repairs_failed") == 0
        assert cluster.healings[steward].figures.bytes_rebuilt == {Cause.LOSS: 600}


async def test_the_next_holder_acts_when_the_steward_does_not(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        first, second, third, *_ = cluster.nearest_first(part)
        cluster.healings[first].pause()
        start = trio.current_time()
        cluster.kill(third)
        await trio.sleep(15)
        ((when, asker),) = cluster.puts()
        assert asker == second
        assert 6 <= when - start < 8


async def test_nobody_repairs_what_comes_back_within_the_hold_off(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[2]
        cluster.notice(node)
        await trio.sleep(2)
        cluster.known_dead.clear()
        for channel in cluster.changes.values():
            channel.send_nowait(MemberAlive(node))
        await trio.sleep(60)
        assert cluster.puts() == []
        assert cluster.sum("pending") == 0


async def test_the_hold_off_begins_anew_when_a_holder_was_back_in_between(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[2]
        cluster.notice(node)
        await trio.sleep(2)
        cluster.come_back(node)
        await trio.sleep(1.5)
        again = trio.current_time()
        cluster.kill(node)
        await trio.sleep(10)
        ((when, _),) = cluster.puts()
        assert 4 <= when - again < 6


async def test_holders_that_take_turns_at_being_away_are_not_rebuilt(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        first, second = cluster.nearest_first(part)[2:4]
        for _ in range(4):  # the stripe is short all the time, no shard for longer than 3 s
            for node, other in ((first, second), (second, first)):
                cluster.notice(node)
                await trio.sleep(0.5)
                cluster.come_back(other)
                await trio.sleep(2)
        assert cluster.puts() == []
        cluster.kill(second)
        await trio.sleep(10)
        assert len(cluster.puts()) == 1


async def test_a_node_that_doubts_itself_repairs_nothing_until_it_is_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.unwell.update(dict.fromkeys(cluster.ids, 3))
        cluster.kill(nodes[2])
        await trio.sleep(60)
        assert cluster.puts() == []
        cluster.unwell.clear()
        await trio.sleep(5)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_the_sweep_finds_a_death_that_was_missed(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.kill(nodes[2], noticed=False)
        cluster.known_dead.add(nodes[2])
        await trio.sleep(60)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_a_store_that_is_busy_is_looked_at_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=RepairParams(hold_off_s=4, sweep_s=1000))) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        await trio.sleep(40)
        for store in cluster.stores.values():
            store.busy = True
        cluster.kill(nodes[2])
        cluster.healings[nodes[0]].sweep_soon()
        await trio.sleep(20)
        for store in cluster.stores.values():
            store.busy = False
        await trio.sleep(60)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_a_corrupt_part_is_mended_in_place_without_waiting(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=RepairParams(hold_off_s=1000, sweep_s=1000))) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[5]
        cluster.stores[node].on_corrupt = lambda _address, _hash: cluster.healings[node].sweep_soon()
        before = await cluster.part_at(node, part)
        cluster.stores[node].corrupt(part.address, part.descriptor_hash)
        with pytest.raises(Exception, match="part"):
            await cluster.part_at(node, part)
        await trio.sleep(2)
        assert (await cluster.part_at(node, part)).shards == before.shards
        assert cluster.puts() == []


async def test_a_paused_node_repairs_after_resume(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(params=RepairParams(enabled=False, hold_off_s=4, sweep_s=20))) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.kill(nodes[1])
        await trio.sleep(100)
        assert cluster.puts() == []
        cluster.healings[nodes[0]].resume()
        await trio.sleep(2)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_what_is_in_trash_is_not_repaired(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        for store in cluster.stores.values():
            await settled(partial(store.expire, NOW_UNIX_S + 2 * DAY_S, 1.0))
        cluster.kill(nodes[4])
        await trio.sleep(60)
        assert cluster.puts() == []
        assert cluster.sum("pending") == cluster.sum("repairs_failed") == 0


async def test_a_member_that_says_it_is_going_is_replaced_without_a_sweep(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(params=RepairParams(hold_off_s=4, sweep_s=1000))) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        await trio.sleep(50)
        cluster.failing.add(nodes[4])
        cluster.come_back(nodes[4])
        await trio.sleep(10)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))
        assert len(cluster.puts()) == 1


async def test_a_view_that_lost_many_repairs_nothing_until_it_was_quiet(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(), GuardParams(quiet_s=50)) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        await trio.sleep(1)
        others = [node for node in cluster.ids if node not in nodes]
        cluster.kill(*nodes[1:4], *others[:5])
        await trio.sleep(45)
        assert cluster.puts() == []
        assert cluster.healings[nodes[0]].doubted
        await trio.sleep(30)
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_a_node_that_starts_cut_off_from_its_siblings_repairs_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    nodes = cluster.nearest_first(part)
    for number in range(1, 12):  # tables here name most of the network
        await cluster.lock(number)
    # Never seen since the start: five holders, and others, half of the network in all.
    cut_off = [*nodes[5:], *(node for node in cluster.ids if node not in nodes)][:12]
    cluster.known_dead |= set(cut_off)
    cluster.down |= set(cut_off)
    async with running(cluster, GuardParams(quiet_s=50)):
        await trio.sleep(200)
        assert cluster.healings[nodes[0]].doubted
        assert cluster.healings[nodes[0]].pending > 0
        assert [asker for _, asker in cluster.puts() if asker == nodes[0]] == []
        cluster.healings[nodes[0]].resume()
        await trio.sleep(100)
        assert [asker for _, asker in cluster.puts() if asker == nodes[0]] != []


async def test_a_repair_without_takers_fails_and_is_tried_again_a_sweep_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        cluster.refusing |= set(cluster.ids)
        cluster.kill(nodes[4])
        await trio.sleep(17)
        assert cluster.healings[nodes[0]].repairs_failed == 1
        cluster.refusing.clear()
        for node in nodes[1:]:
            cluster.healings[node].pause()
        await trio.sleep(20)
        assert cluster.healings[nodes[0]].repairs_done == 1
        assert is_legal(STANDARD, await cluster.holders(part, nodes[0]))


async def test_many_stripes_heal_within_the_budgets(autojump_clock: trio.testing.MockClock) -> None:
    params = RepairParams(hold_off_s=4, sweep_s=20, in_flight_max=2, bytes_per_s=10_000)
    async with running(Cluster(params=params)) as cluster:
        parts = [await cluster.lock(number) for number in range(40)]
        dead = cluster.ids[0]
        cluster.kill(dead)
        await trio.sleep(120)
        for part in parts:
            node = next(node for node in cluster.nearest_first(part) if node != dead)
            assert is_legal(STANDARD, await cluster.holders(part, node))
        assert cluster.sum("pending") == 0


async def test_closing_the_channel_ends_the_service(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    async with running(cluster):
        for channel in cluster.changes.values():
            await channel.aclose()
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()


async def test_a_lane_does_not_take_what_a_sweep_under_way_found_whole(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbox_node.services.healing.PAGE", 1)
    params = RepairParams(hold_off_s=4, sweep_s=1000, in_flight_max=1, bytes_per_s=60)  # 10 s for each
    async with running(Cluster(params=params)) as cluster:
        parts = [await cluster.lock(number) for number in range(30)]
        steward = cluster.nearest_first(parts[0])[0]
        dead = cluster.nearest_first(parts[0])[3]
        for node in cluster.ids:
            if node != steward:
                cluster.healings[node].pause()
        await trio.sleep(40)
        cluster.kill(dead)
        await trio.sleep(30)
        healing = cluster.healings[steward]
        assert healing.pending > 3
        cluster.come_back(dead)
        cluster.stores[steward].slow_s = 1  # lanes end between two pages
        healing.sweep_soon()
        await trio.sleep(600)
        assert healing.pending == 0


async def test_a_region_that_is_back_within_the_hold_off_moves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        holders = cluster.nearest_first(part)
        region = Counter(cluster.candidate(node).region for node in holders).most_common(1)[0][0]
        away = [node for node in cluster.ids if cluster.candidate(node).region == region]
        assert 2 <= len(set(away) & set(holders)) <= STANDARD.shards_per_region_max
        cluster.notice(*away)
        await trio.sleep(2)
        cluster.come_back(*away)
        await trio.sleep(60)
        assert cluster.puts() == []
        assert cluster.sum("pending") == 0


async def test_a_node_that_flaps_costs_one_move(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        flapping = cluster.nearest_first(part)[4]
        for _ in range(6):
            cluster.notice(flapping)
            await trio.sleep(12)
            cluster.come_back(flapping)
            await trio.sleep(9)
        assert len(cluster.puts()) == 1


async def test_what_bears_no_further_loss_is_repaired_soon_and_all_else_waits_for_its_hold_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(params=replace(QUICK, hold_off_s=100.0))) as cluster:
        basic, standard = await cluster.lock("a", BASIC), await cluster.lock("b")
        lost = cluster.nearest_first(basic)[1:3]
        start = trio.current_time()
        cluster.kill(*lost)
        await trio.sleep(60)
        when = {message.descriptor: at - start for at, _, message in cluster.requests if isinstance(message, PutStripe)}
        assert URGENT_S <= when[basic.descriptor] < URGENT_S + 2
        assert standard.descriptor not in when
        assert cluster.sum("repairs_failed") == 0
        assert len(await cluster.holders(basic, cluster.nearest_first(basic)[0])) == BASIC.n
