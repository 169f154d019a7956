"""Copies that are one too many: they stay for their time, go against proof, and never both of two."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.core.placement import is_legal
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import Merged, settled
from lockbox_node.services.rebuilding import merging
from lockbox_node.services.trimming import KEY_BYTES, NOTE, NOTED_MAX, Trimming
from lockbox_node.services.yielding import Why, Yielder
from protocol.messages import SEQUENCE_MAX, HolderEntry, HolderTable
from tests.fakes.cluster import FixedClock
from tests.fakes.healing_cluster import Cluster, delete, look, running
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lockbox_node.ports import StripePart
    from protocol.ids import NodeId

HOLD_S = 400.0
PARAMS = RepairParams(hold_off_s=4, sweep_s=20, request_timeout_s=1, return_hold_s=HOLD_S)


def trimming_of(cluster: Cluster, node: NodeId) -> Trimming:
    mender, store = cluster.menders[node], cluster.stores[node]
    return Trimming(store, Yielder(store, mender), mender.sources.members, FixedClock(), cluster.healings[node])


@asynccontextmanager
async def trimming(
    guard: GuardParams | None = None, params: RepairParams = PARAMS
) -> AsyncIterator[tuple[Cluster, dict[NodeId, Trimming]]]:
    """Every node heals and trims."""
    async with running(Cluster(params), guard) as cluster, trio.open_nursery() as nursery:
        services = {node: trimming_of(cluster, node) for node in cluster.ids}
        for service in services.values():
            await nursery.start(service.run)
        yield cluster, services
        nursery.cancel_scope.cancel()


async def standing(cluster: Cluster, part: StripePart) -> dict[int, list[NodeId]]:
    """Index -> who has genuine shards of it."""
    found: dict[int, list[NodeId]] = {}
    for node in cluster.ids:
        with suppress(ShardMissing):
            found.setdefault((await cluster.part_at(node, part)).index, []).append(node)
    return found


async def away_and_back(cluster: Cluster, part: StripePart, rank: int = 4) -> tuple[NodeId, NodeId]:
    """A holder dies, is replaced and comes back; (it, the one who has its place)."""
    node = cluster.nearest_first(part)[rank]
    index = (await cluster.part_at(node, part)).index
    cluster.kill(node)
    await trio.sleep(30)
    cluster.come_back(node)
    cluster.healings[node].resume()
    await trio.sleep(1)
    (heir,) = [other for other in (await standing(cluster, part))[index] if other != node]
    return node, heir


@pytest.mark.parametrize("rank", [0, 4, 9])
async def test_of_two_copies_one_goes_after_its_time_and_every_index_stays(
    rank: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with trimming() as (cluster, services):
        part = await cluster.lock("a")
        await away_and_back(cluster, part, rank)
        await trio.sleep(HOLD_S - 60)
        assert sum(len(nodes) for nodes in (await standing(cluster, part)).values()) == STANDARD.n + 1
        assert sum(service.spare for service in services.values()) == 1
        await trio.sleep(200)
        found = await standing(cluster, part)
        assert {index: len(nodes) for index, nodes in found.items()} == dict.fromkeys(range(STANDARD.n), 1)
        assert is_legal(STANDARD, {index: cluster.candidate(nodes[0]) for index, nodes in found.items()})
        assert sum(service.trimmed for service in services.values()) == 1
        assert sum(service.spare for service in services.values()) == 0
        assert cluster.sum("repairs_done") == 1, "nothing was brought back after it"


async def test_a_copy_stays_while_an_index_is_missing_or_its_heir_shows_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trimming() as (cluster, services):
        part = await cluster.lock("a")
        pair = await away_and_back(cluster, part)
        cluster.lying |= set(pair)
        await trio.sleep(2 * HOLD_S)
        index = (await cluster.part_at(pair[0], part)).index
        assert sorted((await standing(cluster, part))[index]) == sorted(pair)
        cluster.lying.clear()
        cluster.full |= set(cluster.ids)
        other = next(node for node in cluster.nearest_first(part) if node not in pair)
        cluster.kill(other)  # nobody can take what it held
        await trio.sleep(2 * HOLD_S)
        assert sorted((await standing(cluster, part))[index]) == sorted(pair)
        assert sum(service.trimmed for service in services.values()) == 0


async def test_a_sibling_that_does_not_say_what_it_holds_keeps_the_copy_here(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trimming() as (cluster, services):
        part = await cluster.lock("a")
        pair = await away_and_back(cluster, part)
        cluster.silent.add(next(node for node in cluster.nearest_first(part) if node not in pair))
        await trio.sleep(2 * HOLD_S)
        assert sum(service.trimmed for service in services.values()) == 0
        cluster.silent.clear()
        await trio.sleep(HOLD_S)
        assert sum(service.trimmed for service in services.values()) == 1


@pytest.mark.parametrize("poisoned", [False, True], ids=["", "with lines of strangers"])
async def test_two_who_trust_each_others_copy_do_not_both_let_go(
    poisoned: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster(PARAMS)) as cluster:
        kept = 0
        for seed in range(20):
            part = await cluster.lock(seed)
            pair = await away_and_back(cluster, part, seed % STANDARD.n)
            for node, other in (pair, pair[::-1]):
                entries = list((await cluster.part_at(other, part)).entries)
                table = HolderTable(part.address, part.version, part.descriptor_hash, entries)
                _: Merged = await settled(merging(cluster.stores[node], [table]))
            index = (await cluster.part_at(pair[0], part)).index
            for node, other in (pair, pair[::-1]) if poisoned else ():
                lines = [HolderEntry(index, other, SEQUENCE_MAX)]
                table = HolderTable(part.address, part.version, part.descriptor_hash, lines)
                await settled(merging(cluster.stores[node], [table]))
            summaries = {}
            for node in pair:
                page = await settled(partial(cluster.stores[node].summaries, b"", 1000))
                summaries[node] = next(one for one in page if one.descriptor_hash == part.descriptor_hash)

            async def let_go(node: NodeId) -> None:
                with suppress(LockboxError):
                    await Yielder(cluster.stores[node], cluster.menders[node]).let_go(summaries[node], Why.DRAINED)  # noqa: B023

            async with trio.open_nursery() as nursery:
                for node in pair:
                    nursery.start_soon(let_go, node)
            left = (await standing(cluster, part)).get(index, [])
            assert left, "both are gone"
            kept += len(left) == len(pair)
        assert kept or poisoned, "the two never met"


async def test_a_doubted_view_and_a_paused_node_trim_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with trimming(GuardParams(quiet_s=3 * HOLD_S)) as (cluster, services):
        part = await cluster.lock("a")
        pair = await away_and_back(cluster, part)
        holders = {entry.node for entry in part.entries} | set(pair)
        cluster.kill(*[node for node in cluster.ids if node not in holders][:9])
        await trio.sleep(2 * HOLD_S)
        assert sum(service.trimmed for service in services.values()) == 0
        for healing in cluster.healings.values():
            healing.pause()
        await trio.sleep(4 * HOLD_S)
        assert sum(service.trimmed for service in services.values()) == 0


async def test_a_restart_does_not_begin_the_time_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Cluster(PARAMS)) as cluster:
        part = await cluster.lock("a")
        pair = await away_and_back(cluster, part)
        for _ in range(4):  # lives, each too short for the whole time
            async with trio.open_nursery() as life:
                services = [trimming_of(cluster, node) for node in pair]
                for service in services:
                    await life.start(service.run)
                await trio.sleep(HOLD_S / 2)
                life.cancel_scope.cancel()
        index = (await cluster.part_at(cluster.nearest_first(part)[0], part)).index
        assert index in await standing(cluster, part)
        assert sum(len(nodes) for nodes in (await standing(cluster, part)).values()) == STANDARD.n


async def test_a_shorter_time_of_the_policy_counts_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with trimming() as (cluster, services):
        part = await cluster.lock("a")
        await away_and_back(cluster, part)
        for healing in cluster.healings.values():
            healing.obey(RepairParams(hold_off_s=4, sweep_s=20, request_timeout_s=1, return_hold_s=10))
        await trio.sleep(HOLD_S / 4)
        assert sum(service.trimmed for service in services.values()) == 1


async def test_what_was_deleted_while_a_holder_was_away_is_not_counted_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trimming() as (cluster, services):
        part = await cluster.lock("a")
        pair = await away_and_back(cluster, part)
        tombstone = AssetSigner("a").tombstone(part.version)
        spare = next(node for node in pair if node != cluster.nearest_first(part)[0])
        for node in cluster.ids:
            if node != spare:
                await delete(cluster.stores[node], tombstone, part)
        await trio.sleep(3 * HOLD_S)
        gone = [node for node in cluster.ids if not (await look(cluster.stores[node], part.address)).parts]
        assert len(gone) >= len(cluster.ids) - 1, "it came back somewhere"
        assert sum(service.trimmed for service in services.values()) == 0


async def test_more_copies_than_a_note_has_room_for_are_remembered_as_far_as_it_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(PARAMS)) as cluster:
        node = cluster.ids[0]
        service = trimming_of(cluster, node)
        keys = [(number.to_bytes(KEY_BYTES, "big").ljust(32), bytes(32)) for number in range(2 * NOTED_MAX)]
        service._since = {key: NOW_UNIX_S + number for number, key in enumerate(keys)}
        await service._remember()
        assert sorted(trimming_of(cluster, node)._noted) == [key[:KEY_BYTES] for key, _ in keys[:NOTED_MAX]]


@pytest.mark.parametrize("note", [b"garbage", b"\x91\x01", b"\x91\x92\x01\x02"])
async def test_a_note_that_cannot_be_read_begins_the_time_anew(
    note: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(Cluster(PARAMS)) as cluster:
        node = cluster.ids[0]
        await settled(partial(cluster.stores[node].note, NOTE, note))
        assert trimming_of(cluster, node).spare == 0
