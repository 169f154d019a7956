"""What every ShardStore promises: one suite, run on the fake in memory and on SQLite with files."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from lockbox_node.errors import LockboxError, RequestRefused, ShardCorrupt, ShardMissing, StoreFull
from lockbox_node.ports import PutOutcome, SlotView, settled
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import SIBLINGS_MAX, HolderEntry, HolderTable
from tests.contracts.kept import BIG, PARAMS, Kept, Shape
from tests.fakes.stripes import OWNER, make_stripe, node_of


@pytest.fixture(params=[{}, BIG], ids=["small", "big"])
def shape(request: pytest.FixtureRequest) -> Shape:
    return dict(request.param)


async def test_a_part_comes_back_as_it_was_put(kept: Kept, shape: Shape) -> None:
    part = make_stripe(1, slots=2, **shape).parts[3]
    assert await kept.put(part) == PutOutcome(())
    assert await kept.get(part) == part


async def test_a_part_without_shards_is_a_slot_alone(kept: Kept) -> None:
    part = make_stripe(1, groups=0).parts[0]
    await kept.put(part)
    assert await kept.get(part) == part


async def test_what_is_not_there_is_missing(kept: Kept) -> None:
    with pytest.raises(ShardMissing):
        await kept.get(make_stripe(1).parts[0])
    assert await kept.look(make_stripe(1)) == SlotView((), (), None)


async def test_an_equal_put_is_answered_as_stored_and_its_table_is_merged(kept: Kept, shape: Shape) -> None:
    first = make_stripe(1, **shape).parts[0]
    second = make_stripe(1, holders=[20, *range(1, 10)], **shape).parts[0]
    await kept.put(first)
    assert await kept.put(second) == PutOutcome(())
    nodes = {entry.node for entry in (await kept.get(first)).entries}
    assert nodes == {node_of(number) for number in (*range(10), 20)}
    assert kept.store.figures().stripes == 1


async def test_another_index_of_the_same_identity_is_a_conflict(kept: Kept) -> None:
    stripe = make_stripe(1)
    await kept.put(stripe.parts[0])
    with pytest.raises(RequestRefused) as refused:
        await kept.put(stripe.parts[1])
    assert (refused.value.code, refused.value.proof) == (ErrorCode.CONFLICT, stripe.signed)


async def test_siblings_are_kept_and_named(kept: Kept) -> None:
    one, two = (make_stripe(1, salt=salt) for salt in (1, 2))
    await kept.put(one.parts[0])
    assert await kept.put(two.parts[0]) == PutOutcome((one.signed,))
    assert {part.descriptor_hash for part in (await kept.look(one)).parts} == {
        one.parts[0].descriptor_hash,
        two.parts[0].descriptor_hash,
    }


async def test_at_most_as_many_identities_as_a_reply_carries_stand_at_an_address(kept: Kept) -> None:
    for salt in range(SIBLINGS_MAX):
        await kept.put(make_stripe(1, salt=salt).parts[0])
    with pytest.raises(RequestRefused) as refused:
        await kept.put(make_stripe(1, salt="one more").parts[0])
    assert refused.value.code is ErrorCode.CONFLICT
    assert len((await kept.look(make_stripe(1))).parts) == SIBLINGS_MAX


async def test_a_new_version_removes_what_it_replaces_and_nothing_else(kept: Kept, shape: Shape) -> None:
    old, other = make_stripe(1, salt=1, **shape), make_stripe(1, salt=2)
    new = make_stripe(1, version=2)
    await kept.put(old.parts[0])
    await kept.put(other.parts[0])
    await kept.put(new.parts[0], [old.parts[0].descriptor_hash])
    assert [part.version for part in (await kept.look(new)).parts] == [2, 1]
    with pytest.raises(ShardMissing):
        await kept.get(old.parts[0])
    assert await kept.get(other.parts[0]) == other.parts[0]


async def test_an_older_version_never_wins(kept: Kept, shape: Shape) -> None:
    new, old = make_stripe(1, version=2), make_stripe(1, **shape)
    await kept.put(new.parts[0])
    with pytest.raises(RequestRefused) as refused:
        await kept.put(old.parts[0], [new.parts[0].descriptor_hash])
    assert (refused.value.code, refused.value.proof) == (ErrorCode.STALE, new.signed)


async def test_what_was_deleted_stays_deleted(kept: Kept, shape: Shape) -> None:
    stripe = make_stripe(1, version=3, **shape)
    await kept.put(stripe.parts[0])
    await kept.delete(stripe, 3)
    with pytest.raises(ShardMissing):
        await kept.get(stripe.parts[0])
    with pytest.raises(RequestRefused) as refused:
        await kept.put(stripe.parts[0])
    assert (refused.value.code, refused.value.proof) == (ErrorCode.STALE, stripe.signer.tombstone(3))
    await kept.merge(stripe.table)
    assert await kept.look(stripe) == SlotView((), (), stripe.signer.tombstone(3))
    figures = kept.store.figures()
    assert (figures.stripes, figures.shards, figures.logical_bytes, figures.tombstones) == (0, 0, 0, 1)


async def test_a_tombstone_spares_higher_versions_and_never_falls(kept: Kept) -> None:
    old, new = make_stripe(1), make_stripe(1, version=5)
    await kept.put(old.parts[0])
    await kept.put(new.parts[0])
    await kept.delete(old, 4)
    await kept.delete(old, 2)
    view = await kept.look(old)
    assert [part.version for part in view.parts] == [5]
    assert view.tombstone == old.signer.tombstone(4)


async def test_a_deleted_address_takes_a_higher_version(kept: Kept) -> None:
    stripe = make_stripe(1, version=2)
    await kept.delete(stripe, 1)
    await kept.put(stripe.parts[0])
    assert await kept.get(stripe.parts[0]) == stripe.parts[0]


async def test_a_flipped_bit_is_never_served_and_is_told_once(kept: Kept, shape: Shape) -> None:
    part = make_stripe(1, **shape).parts[2]
    await kept.put(part)
    kept.flip(part)
    for _ in range(3):
        with pytest.raises(ShardCorrupt):
            await kept.get(part)
    await kept.merge(make_stripe("the writer is done with the quarantine").table)
    assert kept.corrupt_seen == [(part.address, part.descriptor_hash)]
    assert kept.store.figures().corrupt == 1
    assert [summary.corrupt for summary in await kept.summaries()] == [True]


async def test_a_corrupt_part_is_replaced_in_place(kept: Kept, shape: Shape) -> None:
    part = make_stripe(1, **shape).parts[2]
    await kept.put(part)
    kept.flip(part)
    with pytest.raises(ShardCorrupt):
        await kept.get(part)
    await kept.merge(make_stripe("the writer is done with the quarantine").table)
    await kept.put(part)
    assert await kept.get(part) == part
    figures = kept.store.figures()
    assert (figures.corrupt, figures.stripes, figures.shards) == (0, 1, len(part.shards))


async def test_tables_merge_into_held_parts_by_sequence(kept: Kept) -> None:
    stripe = make_stripe(1)
    part = stripe.parts[0]
    await kept.put(part)
    news = [HolderEntry(0, node_of(0), 9), HolderEntry(3, node_of(30), 9), HolderEntry(1, node_of(1), 0)]
    await kept.merge(HolderTable(part.address, part.version, part.descriptor_hash, news))
    entries = {(entry.index, entry.node): entry.sequence for entry in (await kept.get(part)).entries}
    assert (entries[0, node_of(0)], entries[3, node_of(30)], entries[1, node_of(1)]) == (9, 9, 1)
    assert [s.address for s in await settled(partial(kept.store.held_with, NodeId(node_of(30))))] == [part.address]
    assert kept.store.figures().pointers == 0


async def test_a_table_of_another_holders_part_is_a_pointer_for_a_day(kept: Kept) -> None:
    stripe = make_stripe(1)
    await kept.merge(stripe.table)
    assert await kept.look(stripe) == SlotView((), (stripe.table,), None)
    assert kept.store.figures().pointers == 1
    kept.clock.now += PARAMS.pointer_ttl_s - 1
    assert (await kept.look(stripe)).tables
    kept.clock.now += 1
    assert not (await kept.look(stripe)).tables


async def test_a_pointer_told_again_lives_longer(kept: Kept) -> None:
    stripe = make_stripe(1)
    await kept.merge(stripe.table)
    kept.clock.now += PARAMS.pointer_ttl_s / 2
    await kept.merge(stripe.table)
    kept.clock.now += PARAMS.pointer_ttl_s / 2
    assert (await kept.look(stripe)).tables == (stripe.table,)


async def test_pointers_at_one_address_are_bounded(kept: Kept) -> None:
    tables = [make_stripe(1, salt=salt).table for salt in range(SIBLINGS_MAX + 3)]
    await kept.merge(*tables)
    assert len((await kept.look(make_stripe(1))).tables) == SIBLINGS_MAX
    assert kept.store.figures().pointers == SIBLINGS_MAX


async def test_a_part_takes_over_the_table_of_its_pointer(kept: Kept) -> None:
    stripe = make_stripe(1)
    late = HolderEntry(4, node_of(40), 7)
    await kept.merge(HolderTable(stripe.table.address, 1, stripe.table.descriptor_hash, [late]))
    await kept.put(stripe.parts[0])
    assert late in (await kept.get(stripe.parts[0])).entries
    assert kept.store.figures().pointers == 0


async def test_a_full_store_refuses_before_it_writes_and_still_deletes(kept: Kept, shape: Shape) -> None:
    count = 0
    with contextlib.suppress(StoreFull):
        for count in range(10_000):
            await kept.put(make_stripe(count, **shape).parts[0])
    assert 0 < count < 9_999
    figures = kept.store.figures()
    assert figures.stripes == count
    assert figures.logical_bytes <= PARAMS.capacity_bytes
    await kept.put(make_stripe(0, **shape).parts[0])
    await kept.delete(make_stripe(0), 1)
    await kept.put(make_stripe(count, **shape).parts[0])


async def test_summaries_page_through_everything_in_order(kept: Kept) -> None:
    parts = sorted(
        (make_stripe(number % 4, salt=number).parts[0] for number in range(10)),
        key=lambda part: (part.address, part.descriptor_hash),
    )
    for part in parts:
        await kept.put(part)
    seen: list[bytes] = []
    after = b""
    while page := await kept.summaries(after, 3):
        assert len(page) <= 3
        seen += [summary.descriptor_hash for summary in page]
        after = page[-1].address + page[-1].descriptor_hash
    assert seen == [part.descriptor_hash for part in parts]


async def test_stripes_held_with_a_node_are_found(kept: Kept) -> None:
    for number in range(6):
        await kept.put(make_stripe(number, holders=range(number, number + 10)).parts[0])
    found = await settled(partial(kept.store.held_with, NodeId(node_of(3))))
    assert {summary.address for summary in found} == {make_stripe(number).signer.address for number in range(4)}
    assert await settled(partial(kept.store.held_with, NodeId(node_of(99)))) == []


async def test_requests_queued_together_are_each_answered_once(kept: Kept) -> None:
    answers: list[tuple[int, object]] = []
    parts = [make_stripe(number).parts[0] for number in range(40)]
    for number, part in enumerate(parts):
        kept.store.put(part, (), OWNER, lambda result, number=number: answers.append((number, result)))  # type: ignore[misc]
    kept.store.put(make_stripe(7).parts[1], (), OWNER, lambda result: answers.append((99, result)))
    await kept.merge(make_stripe("last").table)
    assert [number for number, _ in answers] == [*range(40), 99]
    assert all(result == PutOutcome(()) for _, result in answers[:40])
    assert isinstance(answers[40][1], LockboxError)
    assert kept.store.figures().stripes == 40
