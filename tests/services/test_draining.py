"""A drain: everything is handed over and shown before it goes, over restarts, and what nobody takes stays."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from lockbox_node.core.placement import is_legal
from lockbox_node.core.repair import GuardParams, RepairParams, is_named
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import settled
from lockbox_node.services.announcing import NodeState
from lockbox_node.services.draining import NOTE, DrainFigures, Draining
from protocol.certificates import verify_drain
from protocol.ids import NodeId
from protocol.messages import GetShards, PutStripe
from simulations.identities import Papers
from tests.fakes.cluster import FixedClock
from tests.fakes.granting import network
from tests.fakes.healing_cluster import Cluster, delete, look, running
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, AssetSigner

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart
    from lockbox_node.services.mending import Mender
    from lockbox_node.services.rebuilding import Rebuilder
    from protocol.drains import DrainReceipt

SLOW = RepairParams(hold_off_s=4000, sweep_s=4000, request_timeout_s=1)  # the siblings do nothing by themselves


@dataclass
class Hands:
    """What a node moves parts with."""

    rebuilder: Rebuilder
    mender: Mender
    restored: bool = False

    def unconfirmed(self) -> bool:
        return self.restored


@dataclass
class Drained:
    """The drain of one node of a cluster, and the states that it announced."""

    cluster: Cluster
    node: NodeId
    states: list[NodeState] = field(default_factory=list)

    def __post_init__(self) -> None:
        cluster, node = self.cluster, self.node
        healing = cluster.healings[node]
        self.hands = Hands(healing._rebuilder, cluster.menders[node])
        self.draining = Draining(
            cluster.stores[node],
            self.hands,
            healing,
            self._announce,
            Papers(network().node(1)),
            FixedClock(),
            cluster.params,
        )

    def _announce(self, state: NodeState) -> None:
        self.states.append(state)
        if state is NodeState.DRAINING:
            self.cluster.failing.add(self.node)
        else:
            self.cluster.failing.discard(self.node)

    def figures(self) -> DrainFigures:
        figures = self.draining.figures
        assert figures is not None
        return figures

    def receipt(self) -> DrainReceipt:
        signed = self.figures().receipt
        assert signed is not None
        return verify_drain(network().root, signed)

    async def whole(self, nursery: trio.Nursery) -> None:
        """Begin, and return when nothing is left; virtual time."""
        await nursery.start(self.draining.run)
        await self.draining.begin()
        with trio.fail_after(600):
            while self.figures().receipt is None:  # noqa: ASYNC110
                await trio.sleep(0.5)


async def standing(cluster: Cluster, part: StripePart) -> dict[int, list[NodeId]]:
    """Index -> who has genuine shards of it."""
    found: dict[int, list[NodeId]] = {}
    for node in cluster.ids:
        with suppress(ShardMissing):
            found.setdefault((await cluster.part_at(node, part)).index, []).append(node)
    return found


async def holds(cluster: Cluster, node: NodeId, part: StripePart) -> bool:
    return bool((await look(cluster.stores[node], part.address)).parts)


async def test_all_that_a_node_holds_goes_to_legal_places_and_a_receipt_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        parts = [await cluster.lock(number) for number in range(12)]
        node = cluster.nearest_first(parts[0])[4]
        mine = [part for part in parts if await holds(cluster, node, part)]
        drained = Drained(cluster, node)
        await drained.whole(nursery)
        for part in parts:
            found = await standing(cluster, part)
            assert {index: len(nodes) for index, nodes in found.items()} == dict.fromkeys(range(STANDARD.n), 1)
            assert is_legal(STANDARD, {index: cluster.candidate(nodes[0]) for index, nodes in found.items()})
            assert node not in [holder for nodes in found.values() for holder in nodes]
        receipt = drained.receipt()
        assert (receipt.parts, receipt.shard_bytes) == (len(mine), len(mine) * 600)
        assert drained.figures().parts_left == drained.figures().bytes_left == 0
        assert drained.states == [NodeState.DRAINING]
        nursery.cancel_scope.cancel()


async def test_what_it_holds_is_sent_from_here_and_no_sibling_is_asked_for_a_shard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        await Drained(cluster, node).whole(nursery)
        assert [asker for _, asker in cluster.puts()] == [node]
        fetched = [asker for _, asker, message in cluster.requests if isinstance(message, GetShards)]
        assert fetched == [node], "the new holder shows what it has, nothing else is fetched"
        nursery.cancel_scope.cancel()


async def test_nothing_is_dropped_before_the_new_holder_shows_it(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        holders = {NodeId(entry.node) for entry in part.entries}
        cluster.lying |= set(cluster.ids) - holders
        drained = Drained(cluster, node)
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(100)
        assert await holds(cluster, node, part)
        assert drained.figures().receipt is None
        assert sum(drained.figures().stuck.values()) == 1
        cluster.lying.clear()
        await trio.sleep(20)
        assert not await holds(cluster, node, part)
        assert drained.figures().receipt is not None
        nursery.cancel_scope.cancel()


async def test_what_nobody_takes_stays_is_counted_and_goes_when_somebody_can(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        cluster.full |= set(cluster.ids)
        drained = Drained(cluster, node)
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(40)
        assert drained.figures().stuck == {"INSUFFICIENT_NODES": 1}
        assert drained.figures().passes_idle >= 2
        assert (drained.figures().parts_left, drained.figures().left_s) == (1, None)
        assert await holds(cluster, node, part)
        cluster.full.clear()
        await trio.sleep(20)
        assert drained.figures().receipt is not None
        assert drained.figures().stuck == {}
        nursery.cancel_scope.cancel()


async def test_a_drain_goes_on_after_a_restart_and_counts_on(autojump_clock: trio.testing.MockClock) -> None:
    slow = RepairParams(hold_off_s=4000, sweep_s=4000, request_timeout_s=1, in_flight_max=1, bytes_per_s=400)
    async with running(Cluster(slow)) as cluster:
        parts = [await cluster.lock(number) for number in range(12)]
        node = cluster.nearest_first(parts[0])[4]
        mine = [part for part in parts if await holds(cluster, node, part)]
        assert len(mine) > 3
        async with trio.open_nursery() as first_life:
            drained = Drained(cluster, node)
            await first_life.start(drained.draining.run)
            await drained.draining.begin()
            await trio.sleep(2 * (len(mine) - 2))  # 3 s each
            first_life.cancel_scope.cancel()
        left = [part for part in mine if await holds(cluster, node, part)]
        assert 0 < len(left) < len(mine)
        again = Drained(cluster, node)
        assert again.draining.active
        assert again.draining.state is NodeState.DRAINING
        async with trio.open_nursery() as second_life:
            await again.whole(second_life)
            second_life.cancel_scope.cancel()
        receipt = again.receipt()
        assert len(left) <= receipt.parts <= len(mine)
        third = Drained(cluster, node)
        assert third.figures().receipt == again.figures().receipt


async def test_a_second_word_joins_the_drain_and_another_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        cluster.full |= set(cluster.ids)
        drained = Drained(cluster, node)
        await nursery.start(drained.draining.run)
        assert not await drained.draining.end()
        await drained.draining.begin()
        await drained.draining.begin()
        assert drained.states == [NodeState.DRAINING]
        await trio.sleep(5)
        assert await drained.draining.end()
        cluster.full.clear()
        await trio.sleep(60)
        assert drained.states[-1] is NodeState.ACTIVE
        assert drained.draining.figures is None
        assert cluster.stores[node].notes.get(NOTE, b"") == b""
        assert await holds(cluster, node, part)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wait_s", [9, 12, 15])  # in each step of giving a part away
async def test_what_is_under_way_when_a_drain_ends_neither_drops_anything_nor_begins_it_anew(
    wait_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    params = RepairParams(hold_off_s=4000, sweep_s=4000, request_timeout_s=30)
    async with running(Cluster(params)) as cluster, trio.open_nursery() as nursery:
        parts = [await cluster.lock(number) for number in range(12)]
        node = cluster.nearest_first(parts[0])[4]
        cluster.slow_s = dict.fromkeys(cluster.ids, 3.0)
        drained = Drained(cluster, node)
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(wait_s)
        await drained.draining.end()
        kept = [part for part in parts if await holds(cluster, node, part)]
        await trio.sleep(60)
        assert kept == [part for part in parts if await holds(cluster, node, part)]
        assert not Drained(cluster, node).draining.active
        for part in kept:
            told = (await cluster.part_at(cluster.nearest_first(part)[0], part)).entries
            assert is_named(told, node), "a sibling believes that it holds nothing"
        nursery.cancel_scope.cancel()


async def test_a_doubted_view_moves_nothing_until_it_is_trusted(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW), GuardParams(quiet_s=50)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        nodes = cluster.nearest_first(part)
        await trio.sleep(1)
        cluster.kill(*[node for node in cluster.ids if node not in nodes][:9])
        await trio.sleep(1)
        drained = Drained(cluster, nodes[4])
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(20)
        assert "doubted" in drained.figures().waiting
        assert cluster.puts() == []
        await trio.sleep(100)
        assert drained.figures().waiting == ""
        assert drained.figures().receipt is not None
        nursery.cancel_scope.cancel()


async def test_a_broken_store_is_not_drained(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster:
        node = cluster.ids[0]
        drained = Drained(cluster, node)
        cluster.stores[node].fail("the disk is gone")
        with pytest.raises(LockboxError, match="the disk is gone"):
            await drained.draining.begin()
        assert not drained.draining.active
        assert drained.states == []
        assert drained.draining.state is NodeState.DRAINING, "nothing should come to it either"


async def test_a_restored_node_hands_nothing_over_before_it_knows_what_it_missed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        drained = Drained(cluster, node)
        drained.hands.restored = True
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(30)
        assert "restored" in drained.figures().waiting
        assert await holds(cluster, node, part)
        drained.hands.restored = False
        await trio.sleep(5)
        assert drained.figures().receipt is not None
        nursery.cancel_scope.cancel()


async def test_what_siblings_have_brought_elsewhere_is_only_let_go(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster()) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        cluster.failing.add(node)
        cluster.come_back(node)
        await trio.sleep(15)
        assert len(cluster.puts()) == 1
        await Drained(cluster, node).whole(nursery)
        assert len(cluster.puts()) == 2, "who has it already is asked by bringing it"
        assert not await holds(cluster, node, part)
        found = await standing(cluster, part)
        assert {index: len(nodes) for index, nodes in found.items()} == dict.fromkeys(range(STANDARD.n), 1)
        nursery.cancel_scope.cancel()


async def test_what_was_deleted_meanwhile_is_not_brought_back(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node, *others = cluster.nearest_first(part)[4:]
        tombstone = AssetSigner("a").tombstone(part.version)
        for other in [*others, *cluster.nearest_first(part)[:4]]:
            await delete(cluster.stores[other], tombstone, part)
        drained = Drained(cluster, node)
        await drained.whole(nursery)
        assert cluster.puts() == []
        assert await standing(cluster, part) == {}
        assert drained.figures().parts == 0
        nursery.cancel_scope.cancel()


async def test_two_holders_that_drain_at_once_lose_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        parts = [await cluster.lock(number) for number in range(6)]
        leaving = [Drained(cluster, node) for node in cluster.nearest_first(parts[0])[3:6]]
        async with trio.open_nursery() as drains:
            for drained in leaving:
                drains.start_soon(drained.whole, nursery)
        for part in parts:
            found = await standing(cluster, part)
            assert {index: len(nodes) for index, nodes in found.items()} == dict.fromkeys(range(STANDARD.n), 1)
            gone = {drained.node for drained in leaving}
            assert gone.isdisjoint(node for nodes in found.values() for node in nodes)
        nursery.cancel_scope.cancel()


async def test_trash_is_neither_handed_over_nor_in_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        await settled(partial(cluster.stores[node].expire, NOW_UNIX_S + 2 * DAY_S, 1.0))
        await Drained(cluster, node).whole(nursery)
        assert cluster.puts() == []
        nursery.cancel_scope.cancel()


async def test_the_budgets_of_repairs_hold(autojump_clock: trio.testing.MockClock) -> None:
    params = RepairParams(hold_off_s=4000, sweep_s=4000, in_flight_max=2, bytes_per_s=1000)
    async with running(Cluster(params)) as cluster, trio.open_nursery() as nursery:
        parts = [await cluster.lock(number) for number in range(16)]
        node = cluster.nearest_first(parts[0])[4]
        mine = [part for part in parts if await holds(cluster, node, part)]
        began = trio.current_time()
        await Drained(cluster, node).whole(nursery)
        # 600 bytes there, 600 back to be shown; the last ones of each lane need not be waited for.
        assert trio.current_time() - began > (len(mine) - 2) * 1200 / 1000
        handed = [message for _, asker, message in cluster.requests if asker == node]
        assert sum(isinstance(message, PutStripe) for message in handed) == len(mine)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("note", [b"garbage", b"\x94\x01", b"\x93\x01\x02\x03"])
async def test_an_unreadable_note_is_still_the_operators_word(
    note: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster(SLOW)) as cluster:
        node: Any = cluster.ids[0]
        await settled(partial(cluster.stores[node].note, NOTE, note))
        assert Drained(cluster, node).draining.active
