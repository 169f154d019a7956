"""Fetching and rebuilding: in which order sources are asked, what is believed of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.errors import NotEnoughShards, PeerUnreachable, ShardCorrupt
from lockbox_node.services.sources import Sources, Wanted, is_genuine
from protocol.ids import NodeId
from protocol.messages import FindHolders, GetShards, HolderTable
from protocol.records import open_descriptor
from tests.fakes.healing_cluster import Cluster, View

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart


def sources_of(cluster: Cluster, number: int = 23) -> Sources:
    view = View(cluster.ids[number], cluster)
    return Sources(view, view, cluster.workers, cluster.params)


def wanted_of(part: StripePart) -> Wanted:
    return Wanted(part.address, part.descriptor_hash, open_descriptor(part.descriptor))


async def test_k_parts_are_fetched_in_the_order_of_the_sources(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    wanted, first = wanted_of(part), cluster.nearest_first(part)[0]
    order = [(entry.index, NodeId(entry.node)) for entry in part.entries]
    sources = sources_of(cluster, cluster.ids.index(first))
    have = await sources.fetch(
        wanted, {}, [(index, next(i for i in cluster.ids if i == node)) for index, node in order]
    )
    assert sorted(have) == [0, 1, 2, 3, 4]
    assert all(is_genuine(wanted.descriptor, index, shards) for index, shards in have.items())
    assert sum(isinstance(message, GetShards) for _, _, message in cluster.requests) == 5
    rebuilt = await sources.rebuild(wanted.descriptor, have, [7, 9])
    assert sorted(rebuilt) == [7, 9]
    assert all(is_genuine(wanted.descriptor, index, shards) for index, shards in rebuilt.items())


async def test_too_few_honest_sources_are_said(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    nodes = cluster.nearest_first(part)
    cluster.lying |= set(nodes[:6])
    index_of = {entry.node: entry.index for entry in part.entries}
    with pytest.raises(NotEnoughShards, match="4 of 5"):
        await sources_of(cluster, cluster.ids.index(nodes[0])).fetch(
            wanted_of(part), {}, [(index_of[node], node) for node in nodes]
        )


async def test_who_refused_or_said_nothing_is_asked_last_the_next_time(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    first, second, third, *_ = nodes = cluster.nearest_first(part)
    index_of = {entry.node: entry.index for entry in part.entries}
    sources = sources_of(cluster, cluster.ids.index(first))
    order = [(index_of[node], node) for node in nodes[1:]]
    cluster.down |= {second, third}
    assert len(await sources.fetch(wanted_of(part), {}, order)) == 5
    cluster.requests.clear()
    assert len(await sources.fetch(wanted_of(part), {}, order)) == 5
    assert sum(isinstance(message, GetShards) for _, _, message in cluster.requests) == 5, "nobody was asked in vain"


async def test_parts_of_another_stripe_do_not_rebuild(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part, other = await cluster.lock("a"), await cluster.lock("b")
    wrong = {}
    for entry in other.entries[:5]:
        wrong[entry.index] = list((await cluster.part_at(NodeId(entry.node), other)).shards)
    with pytest.raises(ShardCorrupt):
        await sources_of(cluster).rebuild(wanted_of(part).descriptor, wrong, [7])


async def test_a_silent_node_is_given_up_and_a_telling_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    silent, other, asker = cluster.nearest_first(part)[:3]
    cluster.silent.add(silent)
    sources = sources_of(cluster, cluster.ids.index(asker))
    began = trio.current_time()
    with pytest.raises(PeerUnreachable):
        await sources.ask(silent, FindHolders(part.address))
    assert trio.current_time() - began < 2 * cluster.params.request_timeout_s
    cluster.known_dead.add(silent)
    with pytest.raises(PeerUnreachable, match="no longer"):
        await sources.ask(silent, FindHolders(part.address))
    table = HolderTable(part.address, 1, part.descriptor_hash, list(part.entries))
    before = len(cluster.requests)
    await sources.tell([silent, other, sources.members.own], table)
    assert len(cluster.requests) == before + 1


async def test_who_serves_wrong_bytes_is_asked_last_the_next_time(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    part = await cluster.lock("a")
    sources = sources_of(cluster)
    liar, *others = [NodeId(entry.node) for entry in part.entries]
    cluster.lying.add(liar)
    cluster.slow_s.update(dict.fromkeys(others, 0.5))
    named = [(entry.index, NodeId(entry.node)) for entry in part.entries]
    for _ in range(2):
        await sources.fetch(wanted_of(part), {}, named)
    assert cluster.fetched_from.count(liar) == 1
