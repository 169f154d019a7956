"""Whole nodes over a memory network: who lost, missed or kept something wrong finds out, and comes right."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.core.repair import is_named
from lockbox_node.core.tiers import BASIC
from lockbox_node.errors import RequestRefused
from lockbox_node.ports import settled
from lockbox_node.services.reconciling import RESTORED, RestoredFigures
from protocol.errors import ErrorCode
from protocol.ids import distance
from protocol.messages import (
    NUMBERS,
    Delete,
    FindHolders,
    GetShards,
    GetSlot,
    HolderEntry,
    Prove,
    PutStripe,
    Shards,
    Stored,
)
from simulations.identities import NOW_UNIX_S
from tests.fakes.granting import grant, wish
from tests.fakes.hamlet import QUICK, Hamlet, with_reconcile
from tests.fakes.stripes import DAY_S, AssetSigner, coded_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.ports import StripePart


def stripe_of(
    hamlet: Hamlet, seed: object, *, version: int = 1, replaces: Sequence[bytes] = (), lease_s: int = DAY_S
) -> list[StripePart]:
    """A small basic stripe on nodes 1 to 5."""
    named = hamlet.holders(1, 2, 3, 4, 5)
    return coded_parts(
        seed, named, BASIC, 30, version=version, replaces=replaces, created_unix_s=int(NOW_UNIX_S), lease_s=lease_s
    )


def holds(hamlet: Hamlet, number: int) -> int:
    return hamlet.stores[number].figures().stripes


def get_of(hamlet: Hamlet, part: StripePart, seed: object) -> GetShards:
    authority, now_unix_s = hamlet.town.authority, hamlet.town.clock.now_unix_s()
    request = wish(AssetSigner(seed), authority.client(1).id, time_unix_s=now_unix_s)
    granted = [grant(authority.node(number), request, now_unix_s) for number in (1, 3)]
    return GetShards(part.address, part.descriptor_hash, request, granted)


async def test_an_emptied_holder_gets_everything_back_without_any_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hamlet = Hamlet()
    stripes = [stripe_of(hamlet, seed) for seed in range(30)]
    async with hamlet.running() as nursery:
        await trio.sleep(20)  # everybody has compared what there was, which was nothing
        for parts in stripes:
            await hamlet.keep(parts)
        await hamlet.end(3)
        hamlet.stores[3] = hamlet.empty_store()
        await hamlet.start(nursery, 3)
        await trio.sleep(30)
        assert holds(hamlet, 3) == 30
        for parts in stripes:
            got = await settled(partial(hamlet.stores[3].get, parts[2].address, parts[2].descriptor_hash))
            assert (got.index, got.shards) == (2, parts[2].shards)
        assert [holds(hamlet, number) for number in (6, 7, 8)] == [0, 0, 0], "nothing was rebuilt elsewhere"


async def test_a_holder_that_missed_a_put_is_found_by_the_next_comparison(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hamlet = Hamlet()
    await hamlet.keep(stripe_of(hamlet, "known"))
    async with hamlet.running():
        await trio.sleep(30)
        siblings = [hamlet.nodes[number].rejoining.reconciler.siblings for number in range(1, 9)]
        assert {(one.waiting, one.differing) for one in siblings} == {(0, 0)}
        await hamlet.keep(stripe_of(hamlet, "missed"), 4)
        assert holds(hamlet, 4) == 1
        await trio.sleep(230)
        assert holds(hamlet, 4) == 2
        assert any(hamlet.nodes[number].rejoining.reconciler.siblings.differing for number in range(1, 9))


async def test_a_deleted_asset_stays_deleted_when_a_holder_returns_after_a_month(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hamlet = Hamlet()
    parts = stripe_of(hamlet, "a", lease_s=30 * DAY_S)
    await hamlet.keep(parts)
    async with hamlet.running(1, 2, 3, 4, 6, 7, 8):  # holder 5 is away
        for number in (1, 2, 3, 4, 6, 7):
            await hamlet.ask(number, Delete(AssetSigner("a").tombstone(1)))
    hamlet.town.clock.ahead_s += 29.9 * DAY_S
    async with hamlet.running():
        await trio.sleep(30)
        assert [holds(hamlet, number) for number in range(1, 9)] == [0] * 8
        assert (await hamlet.look(5, parts[0].address)).tombstone is not None
        assert hamlet.nodes[5].rejoining.lessons.counts["buried"] >= 1


def farthest_from(hamlet: Hamlet, address: bytes) -> bytes:
    return max(hamlet.ids[1:], key=lambda node: distance(node, address))


@pytest.mark.parametrize("named", [(1, 2, 3, 4, 8), (8, 8, 8, 8, 8)], ids=["the old table", "a table of one"])
async def test_a_deleted_asset_stays_deleted_when_anybody_replays_the_old_descriptor(
    named: tuple[int, ...], autojump_clock: trio.testing.MockClock
) -> None:
    hamlet = Hamlet()
    # An address from which node 8 is the farthest: it tells the neighbours only where its table names nobody else.
    seed = next(seed for seed in range(1000) if farthest_from(hamlet, AssetSigner(seed).address) == hamlet.ids[8])
    parts = stripe_of(hamlet, seed, lease_s=30 * DAY_S)
    await hamlet.keep(parts)
    async with hamlet.running():
        for number in (1, 2, 3, 4, 5, 6, 7):  # node 8 is none of those that hear of it
            await hamlet.ask(number, Delete(AssetSigner(seed).tombstone(1)))
        part = parts[4]
        replayed = [
            HolderEntry(entry.index, hamlet.ids[number], 1) for entry, number in zip(part.entries, named, strict=True)
        ]
        replay = PutStripe(part.descriptor, list(part.slots), 4, list(part.shards), replayed)
        with pytest.raises(RequestRefused) as refused:
            await hamlet.ask(1, replay)
        assert refused.value.code is ErrorCode.STALE
        assert isinstance(await hamlet.ask(8, replay), Stored), "it cannot know"
        await trio.sleep(5)
        assert holds(hamlet, 8) == 0, "but its neighbours do"
        with pytest.raises(RequestRefused) as refused:
            await hamlet.ask(8, replay)
        assert refused.value.code is ErrorCode.STALE


async def test_a_stale_version_goes_when_the_newer_one_is_durable(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet()
    old = stripe_of(hamlet, "a")
    await hamlet.keep([old[4]])  # holder 5 slept through the update
    new = stripe_of(hamlet, "a", version=2, replaces=[old[0].descriptor_hash])
    await hamlet.keep(new, 5)
    async with hamlet.running():
        await trio.sleep(60)
        (part,) = (await hamlet.look(5, old[0].address)).parts
        assert part.version == 2, "and it has its part of the newer one"


async def test_a_broken_node_says_so_and_is_taken_over_and_still_read(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet()
    parts = stripe_of(hamlet, "a")
    await hamlet.keep(parts)
    async with hamlet.running():
        await trio.sleep(10)
        hamlet.stores[2].fail("the disk is gone")
        await trio.sleep(100)
        assert sum(holds(hamlet, number) for number in (6, 7, 8)) == 1
        heir = next(number for number in (6, 7, 8) if holds(hamlet, number))
        got = await settled(partial(hamlet.stores[heir].get, parts[1].address, parts[1].descriptor_hash))
        assert got.index == 1
        assert isinstance(await hamlet.ask(2, get_of(hamlet, parts[1], "a")), Shards)
        with pytest.raises(RequestRefused):
            await hamlet.ask(2, put_of(stripe_of(hamlet, "b")[0]))
        assert not any(one.node == hamlet.ids[2] for one in hamlet.nodes[1].discovery.candidates())
        assert hamlet.nodes[2].announcer.record.state == 2, "it stays so until a restart"


def put_of(part: StripePart) -> PutStripe:
    return PutStripe(part.descriptor, list(part.slots), part.index, list(part.shards), list(part.entries))


async def restored(hamlet: Hamlet, number: int, parts: list[StripePart]) -> None:
    """Node `number` gets the disk that it had when it held these alone."""
    hamlet.stores[number] = hamlet.empty_store()
    for part in parts:
        await hamlet.keep([part])
    await settled(partial(hamlet.stores[number].note, RESTORED, b"\x80"))


async def test_a_restored_node_serves_nothing_stale_and_says_what_it_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hamlet = Hamlet()
    kept, deleted, later = (stripe_of(hamlet, seed) for seed in ("kept", "deleted", "later"))
    for parts in (kept, deleted, later):
        await hamlet.keep(parts)
    async with hamlet.running() as nursery:
        for number in (1, 2, 3, 4, 6):
            await hamlet.ask(number, Delete(AssetSigner("deleted").tombstone(1)))
        await hamlet.end(5)
        await restored(hamlet, 5, [kept[4], deleted[4]])
        node = await hamlet.start(nursery, 5)
        assert node.rejoining.unconfirmed()
        stale, own = get_of(hamlet, deleted[4], "deleted"), hamlet.town.authority.client(1).id
        look, prove = (
            AssetSigner("deleted").access(NUMBERS[kind], own, int(hamlet.town.clock.now_unix_s()))
            for kind in (GetSlot, Prove)
        )
        for asked in (
            stale,
            GetSlot(stale.address, look),
            FindHolders(stale.address),
            Prove(stale.address, stale.descriptor_hash, bytes(16), prove),
        ):
            with pytest.raises(RequestRefused) as refused:
                await hamlet.ask(5, asked)
            assert refused.value.code is ErrorCode.BUSY
        await trio.sleep(30)
        assert not node.rejoining.unconfirmed()
        assert not hamlet.stores[5].notes[RESTORED]
        with pytest.raises(RequestRefused) as refused:
            await hamlet.ask(5, stale)
        assert refused.value.code is ErrorCode.SHARD_UNAVAILABLE
        assert isinstance(await hamlet.ask(5, get_of(hamlet, kept[4], "kept")), Shards)
        assert isinstance(await hamlet.ask(5, get_of(hamlet, later[4], "later")), Shards)
        found = node.rejoining.reconciler.restored
        assert found == RestoredFigures(checked=2, dropped=found.dropped, missing=found.missing, mended=1)  # type: ignore[union-attr]
        assert found.dropped >= 1
        assert found.missing >= 1


async def test_a_restored_node_waits_only_so_long_for_a_silent_sibling(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet(config=with_reconcile(restored_wait_s=40.0))
    parts = stripe_of(hamlet, "a")
    await hamlet.keep(parts)
    await settled(partial(hamlet.stores[5].note, RESTORED, b"\x80"))
    hamlet.stores[1].digests_with = lambda _node, _answer: None  # type: ignore[method-assign,assignment]
    async with hamlet.running():
        await trio.sleep(20)
        assert hamlet.nodes[5].rejoining.unconfirmed()
        await trio.sleep(40)
        assert not hamlet.nodes[5].rejoining.unconfirmed()


async def test_an_ordinary_node_says_nothing_of_a_restore(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet(2)
    async with hamlet.running():
        assert hamlet.nodes[1].rejoining.reconciler.restored is None


async def test_a_replaced_holder_that_comes_back_empty_does_not_fetch(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet()
    parts = stripe_of(hamlet, "a")
    await hamlet.keep(parts)
    async with hamlet.running() as nursery:
        await hamlet.end(3)
        await trio.sleep(120)
        assert sum(holds(hamlet, number) for number in (6, 7, 8)) == 1
        hamlet.stores[3] = hamlet.empty_store()
        await hamlet.start(nursery, 3)
        await trio.sleep(60)
        assert holds(hamlet, 3) == 0
        (table,) = (await hamlet.look(1, parts[0].address)).tables
        assert not is_named(table.entries, hamlet.ids[3])


async def test_a_lasting_difference_between_books_and_rows_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet(5)
    for seed in range(5):
        await hamlet.keep(stripe_of(hamlet, seed)[:1])
    honest = hamlet.stores[1].digests
    hamlet.stores[1].digests = lambda answer: honest(lambda books: answer(books[1:]))  # type: ignore[method-assign,index]
    async with hamlet.running(1):
        await trio.sleep(30)
        assert hamlet.nodes[1].rejoining.reconciler.digest_mismatches == 1


async def test_a_store_that_lost_parts_without_a_name_gets_them_back_while_it_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hamlet = Hamlet(config=with_reconcile(every_s=10_000.0, again_s=1.0))
    stripes = [stripe_of(hamlet, seed) for seed in range(5)]
    async with hamlet.running():
        for parts in stripes:
            await hamlet.keep(parts)
        await trio.sleep(30)
        for parts in stripes:
            hamlet.stores[3].lose(parts[0].address)
        hamlet.stores[3].on_lost(5)
        await trio.sleep(30)
        assert holds(hamlet, 3) == 5


async def test_a_comparison_of_many_tells_in_bounded_batches(autojump_clock: trio.testing.MockClock) -> None:
    hamlet = Hamlet(5, config=replace(QUICK, repair=replace(QUICK.repair, enabled=False)))
    for seed in range(300):
        await hamlet.keep(stripe_of(hamlet, seed), 2)
    async with hamlet.running():
        await trio.sleep(60)
        assert hamlet.nodes[2].healing.pending == 300
        counts = hamlet.nodes[1].rejoining.reconciler.counts
        assert counts["told"] == counts["missing"] == 300
        assert counts["compared"] == 4
