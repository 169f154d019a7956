"""A node that is cut off between its word that it holds nothing and the drop takes that back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from lockbox_node.core.repair import RepairParams, current_indices
from lockbox_node.ports import Merged, settled
from lockbox_node.services.rebuilding import merging
from lockbox_node.services.yielding import Why, Yielder
from protocol.messages import NO_INDEX, HolderEntry, HolderTable
from tests.fakes.healing_cluster import Cluster, running

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart, StripeSummary
    from protocol.ids import NodeId

PATIENT = RepairParams(hold_off_s=4000, sweep_s=20, request_timeout_s=1)
RARELY = RepairParams(hold_off_s=4000, sweep_s=4000, request_timeout_s=1)


async def believed(cluster: Cluster, node: NodeId, part: StripePart) -> set[int]:
    """What the holders believe that the node holds."""
    holders = cluster.nearest_first(part)
    return {current_indices((await cluster.part_at(holder, part)).entries)[node] for holder in holders}


async def summary_at(cluster: Cluster, node: NodeId) -> StripeSummary:
    page: list[StripeSummary] = await settled(partial(cluster.stores[node].summaries, b"", 1))
    return page[0]


async def test_who_was_killed_in_between_says_in_a_sweep_that_it_holds_its_part(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(PATIENT)) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        index = current_indices(part.entries)[node]
        summary = await summary_at(cluster, node)
        await cluster.menders[node].say(summary, summary.entries, NO_INDEX)
        assert await believed(cluster, node, part) == {NO_INDEX}
        await trio.sleep(60)
        assert await believed(cluster, node, part) == {index}


async def test_a_sweep_takes_nothing_back_of_what_is_being_let_go(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(PATIENT)) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        summary = await summary_at(cluster, node)
        cluster.menders[node].giving.add((bytes(part.address), bytes(part.descriptor_hash)))
        await cluster.menders[node].say(summary, summary.entries, NO_INDEX)
        await trio.sleep(60)
        assert await believed(cluster, node, part) == {NO_INDEX}


async def test_who_is_stopped_in_between_takes_it_back_before_it_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(RARELY)) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        index = current_indices(part.entries)[node]
        heir = next(one for one in cluster.ids if one not in {entry.node for entry in part.entries})
        table = HolderTable(part.address, part.version, part.descriptor_hash, [HolderEntry(index, heir, 2)])
        _: Merged = await settled(merging(cluster.stores[node], [table]))
        cluster.silent.add(heir)
        with trio.move_on_after(0.5) as life:
            yielder = Yielder(cluster.stores[node], cluster.menders[node])
            await yielder.let_go(await summary_at(cluster, node), Why.DRAINED)
        assert life.cancelled_caught
        assert await believed(cluster, node, part) == {index}
