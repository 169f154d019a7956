"""What members tell a node that is being drained makes it lose nothing, and does not hold it up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from lockbox_node.core.repair import current_indices
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import PeerUnreachable
from lockbox_node.ports import settled
from lockbox_node.services.yielding import Why, Yielder
from protocol.messages import SEQUENCE_MAX, GetShards, HolderEntry, HolderTable, Message, TellHolders
from tests.fakes.healing_cluster import Cluster, peer_of, running
from tests.services.test_draining import SLOW, Drained, holds, standing

if TYPE_CHECKING:
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer


async def test_a_member_that_stores_nothing_and_claims_every_index_makes_a_drain_lose_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It shows the draining node the node's own shards."""
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        parts = [await cluster.lock(number) for number in range(12)]
        node = cluster.nearest_first(parts[0])[4]
        mine = [part for part in parts if await holds(cluster, node, part)]
        holders = {entry.node for part in mine for entry in part.entries}
        thief = next((one for one in cluster.ids if one not in holders), cluster.ids[-1])
        serve: Any = cluster.handlers[node][GetShards]
        cluster.handlers[thief][GetShards] = lambda request, _peer, answer: serve(request, peer_of(thief), answer)
        hear: Any = cluster.handlers[node][TellHolders]
        for part in mine:
            lines = [HolderEntry(current_indices(part.entries)[node], thief, 1)]
            forged = HolderTable(part.address, part.version, part.descriptor_hash, lines)
            await settled(partial(hear, TellHolders([forged], None), peer_of(thief)))
        drained = Drained(cluster, node)
        await nursery.start(drained.draining.run)
        await drained.draining.begin()
        await trio.sleep(100)
        for part in mine:
            assert len(await standing(cluster, part)) == STANDARD.n
        nursery.cancel_scope.cancel()


async def test_a_strangers_line_that_no_word_of_ours_can_overrule_does_not_hold_a_drain_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster, trio.open_nursery() as nursery:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        holders = {entry.node for entry in part.entries}
        stranger = next(one for one in cluster.ids if one not in holders)
        lines = [HolderEntry(current_indices(part.entries)[node], node, SEQUENCE_MAX)]
        told = HolderTable(part.address, part.version, part.descriptor_hash, lines)
        hear: Any = cluster.handlers[node][TellHolders]
        await settled(partial(hear, TellHolders([told], None), peer_of(stranger)))
        await Drained(cluster, node).whole(nursery)
        assert not await holds(cluster, node, part)
        assert len(await standing(cluster, part)) == STANDARD.n
        nursery.cancel_scope.cancel()


async def test_who_tells_us_in_between_that_we_hold_it_is_not_shown_what_it_is_to_show(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(SLOW)) as cluster:
        part = await cluster.lock("a")
        node = cluster.nearest_first(part)[4]
        index, holders = current_indices(part.entries)[node], {entry.node for entry in part.entries}
        thief = next(one for one in cluster.ids if one not in holders)
        serve: Any = cluster.handlers[node][GetShards]
        hear: Any = cluster.handlers[node][TellHolders]

        def telling(holder: bytes, sequence: int) -> TellHolders:
            lines = [HolderEntry(index, holder, sequence)]
            return TellHolders([HolderTable(part.address, part.version, part.descriptor_hash, lines)], None)

        def show(request: Message, _peer: Peer, answer: Answer[Message]) -> None:
            hear(telling(node, 2**40), peer_of(thief), lambda _told: serve(request, peer_of(thief), answer))

        cluster.handlers[thief][GetShards] = show
        await settled(partial(hear, telling(thief, 1), peer_of(thief)))
        summaries = await settled(partial(cluster.stores[node].summaries, b"", 1))
        with pytest.raises(PeerUnreachable):
            await Yielder(cluster.stores[node], cluster.menders[node]).let_go(summaries[0], Why.DRAINED)
        assert await holds(cluster, node, part)
