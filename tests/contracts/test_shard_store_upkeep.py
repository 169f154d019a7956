"""What every ShardStore promises about owners, leases, trash, scrub steps, digests and notes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from lockbox_node.errors import LockboxError, QuotaExceeded, RequestRefused, ShardCorrupt, ShardMissing
from lockbox_node.ports import NOTE_BYTES_MAX, Owner, settled
from protocol.held import bucket_of, held_digest, sum_bytes
from protocol.ids import NodeId
from protocol.messages import ENTRIES_MAX, NO_INDEX, BucketDigest, HolderEntry, HolderTable
from tests.contracts.kept import BIG, FAR, RENEWAL, Kept
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, Stripe, make_stripe, node_of

OVER = NOW_UNIX_S + 30 * DAY_S


def digest_of(*stripes: Stripe) -> list[BucketDigest]:
    sums: dict[int, list[int]] = {}
    for stripe in stripes:
        part = stripe.parts[0]
        one = sums.setdefault(bucket_of(part.address), [0, 0])
        one[0] += 1
        one[1] += held_digest(part.address, part.version, part.descriptor_hash)
    return [BucketDigest(bucket, count, sum_bytes(total)) for bucket, (count, total) in sorted(sums.items())]


async def test_a_told_part_that_is_in_trash_is_not_held(kept: Kept) -> None:
    stripe = make_stripe(1)
    part = stripe.parts[0]
    await kept.put(part)
    assert (await kept.merge(stripe.table)).held == {part.descriptor_hash}
    kept.clock.now = OVER
    await kept.expire(5)
    assert (await kept.merge(stripe.table)).held == frozenset()
    assert kept.store.figures().pointers == 0


# Owners


@pytest.mark.parametrize("shape", [{}, BIG], ids=["small", "big"])
async def test_an_owner_keeps_no_more_than_its_quota_and_others_are_not_charged(
    kept: Kept, shape: dict[str, int]
) -> None:
    one, two, three = (make_stripe(number, **shape).parts[0] for number in range(3))  # type: ignore[arg-type]
    await kept.put(one)
    size = kept.store.figures().logical_bytes
    mine, yours = Owner(b"m" * 32, size), Owner(b"y" * 32, size)
    await kept.put(two, owner=mine)
    with pytest.raises(QuotaExceeded):
        await kept.put(three, owner=mine)
    assert kept.store.figures().stripes == 2
    await kept.put(three, owner=yours)


async def test_what_a_new_version_replaces_is_not_charged_twice(kept: Kept) -> None:
    old, new = make_stripe(1), make_stripe(1, version=2)
    await kept.put(old.parts[0])
    size = kept.store.figures().logical_bytes
    await kept.delete(old, 1)
    mine = Owner(b"m" * 32, size)
    old, new = make_stripe(2), make_stripe(2, version=2)
    await kept.put(old.parts[0], owner=mine)
    await kept.put(new.parts[0], [old.parts[0].descriptor_hash], mine)
    assert kept.store.figures().stripes == 1


async def test_a_deleted_part_is_charged_to_nobody(kept: Kept) -> None:
    stripe, other = make_stripe(1), make_stripe(2)
    await kept.put(stripe.parts[0])
    mine = Owner(b"m" * 32, kept.store.figures().logical_bytes)
    await kept.put(other.parts[0], owner=mine)
    await kept.delete(other, 1)
    await kept.put(make_stripe(3).parts[0], owner=mine)


async def test_a_part_that_is_mended_stays_charged_to_who_brought_it(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(make_stripe(2).parts[0])
    mine = Owner(b"m" * 32, kept.store.figures().logical_bytes)
    await kept.put(part, owner=mine)
    kept.flip(part)
    with pytest.raises(ShardCorrupt):
        await kept.get(part)
    await kept.merge(make_stripe("the writer is done with the quarantine").table)
    await kept.put(part, owner=Owner(b"mender" * 5, 0))
    assert await kept.get(part) == part
    with pytest.raises(QuotaExceeded):
        await kept.put(make_stripe(3).parts[0], owner=mine)


# Leases


async def test_a_part_whose_lease_is_over_is_trash_and_still_served(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(part)
    kept.clock.now = OVER - 1
    assert await kept.expire() == 0
    kept.clock.now = OVER
    before = kept.store.figures()
    assert await kept.expire(5) == 1
    assert await kept.expire(6) == 0
    assert await kept.get(part) == part
    (summary,) = await kept.summaries()
    assert (summary.trashed, summary.lease_until_unix_s) == (True, OVER)
    after = kept.store.figures()
    assert (after.trash_stripes, after.trash_bytes, after.logical_bytes) == (1, before.logical_bytes, 0)
    assert after.stripes == 1


async def test_trash_goes_for_good_by_uptime_alone(kept: Kept) -> None:
    part = make_stripe(1, **BIG).parts[0]
    await kept.put(part)
    kept.clock.now = OVER
    await kept.expire(1000.9)
    kept.clock.now = OVER + 365 * DAY_S
    assert await kept.empty_trash(999) == 0
    assert await kept.get(part) == part
    assert await kept.empty_trash(1000) == 1
    with pytest.raises(ShardMissing):
        await kept.get(part)
    figures = kept.store.figures()
    assert (figures.stripes, figures.trash_stripes, figures.trash_bytes, figures.logical_bytes) == (0, 0, 0, 0)


async def test_a_renewal_lengthens_the_lease_and_is_kept(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(part)
    await kept.renew(part, OVER + 100)
    await kept.renew(part, OVER + 50)
    assert await kept.get(part) == replace(part, lease_until_unix_s=OVER + 100, renewal=RENEWAL)
    kept.clock.now = OVER + 99
    assert await kept.expire() == 0


async def test_a_renewal_takes_a_part_out_of_trash(kept: Kept) -> None:
    stripe = make_stripe(1)
    part = stripe.parts[0]
    await kept.put(part)
    kept.clock.now = OVER
    await kept.expire(5)
    await kept.renew(part, OVER + 100)
    figures = kept.store.figures()
    assert (figures.trash_stripes, figures.trash_bytes) == (0, 0)
    assert await kept.digests() == digest_of(stripe)
    assert await kept.empty_trash(1000) == 0


async def test_what_is_not_held_is_not_renewed(kept: Kept) -> None:
    with pytest.raises(ShardMissing):
        await kept.renew(make_stripe(1).parts[0], FAR)


async def test_a_put_with_a_renewal_lengthens_what_stands(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(part)
    await kept.put(replace(part, lease_until_unix_s=OVER + 7, renewal=RENEWAL))
    assert (await kept.get(part)).lease_until_unix_s == OVER + 7


async def test_a_mended_part_keeps_its_longer_lease(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(part)
    await kept.renew(part, OVER + 100)
    kept.flip(part)
    with pytest.raises(ShardCorrupt):
        await kept.get(part)
    await kept.merge(make_stripe("the writer is done with the quarantine").table)
    await kept.put(part)
    assert await kept.get(part) == replace(part, lease_until_unix_s=OVER + 100, renewal=RENEWAL)


# Tombstones, replaced parts


async def test_a_tombstone_is_forgotten_when_nothing_can_come_back(kept: Kept) -> None:
    stripe = make_stripe(1)
    await kept.delete(stripe, 1, NOW_UNIX_S + 100)
    kept.clock.now = NOW_UNIX_S + 99
    assert await kept.expire() == 0
    with pytest.raises(RequestRefused):
        await kept.put(stripe.parts[0])
    kept.clock.now = NOW_UNIX_S + 100
    assert await kept.expire() == 1
    assert kept.store.figures().tombstones == 0


async def test_one_part_is_dropped_without_a_tombstone(kept: Kept) -> None:
    one, two = (make_stripe(1, salt=salt) for salt in (1, 2))
    for stripe in (one, two):
        await kept.put(stripe.parts[0])
    for _ in range(2):
        await settled(partial(kept.store.drop, one.parts[0].address, one.parts[0].descriptor_hash))
    with pytest.raises(ShardMissing):
        await kept.get(one.parts[0])
    view = await kept.look(one)
    assert (len(view.parts), view.tombstone) == (1, None)
    assert await kept.digests() == digest_of(two)


async def test_a_merge_answers_with_what_stands_against_it(kept: Kept) -> None:
    gone, held, unknown = make_stripe("gone"), make_stripe("held"), make_stripe("unknown")
    old = make_stripe("old")
    new = make_stripe("old", version=2, replaces=[old.parts[0].descriptor_hash])
    await kept.delete(gone, 1)
    await kept.put(held.parts[0])
    await kept.put(new.parts[0])
    merged = await kept.merge(gone.table, held.table, unknown.table, old.table)
    assert merged.tombstones == (gone.signer.tombstone(1),)
    assert merged.newer == (new.signed,)
    assert merged.held == {held.parts[0].descriptor_hash}
    assert merged.over == {gone.parts[0].descriptor_hash, old.parts[0].descriptor_hash}
    assert kept.store.figures().pointers == 1


async def test_tables_for_held_parts_only_become_no_pointers(kept: Kept) -> None:
    held, other = make_stripe(1), make_stripe(2)
    await kept.put(held.parts[0])
    news = HolderTable(
        held.table.address, 1, held.table.descriptor_hash, list(make_stripe(1, holders=range(20, 30)).table.entries)
    )
    merged = await settled(partial(kept.store.merge, (), (news, other.table)))
    assert merged.held == {held.parts[0].descriptor_hash}
    assert kept.store.figures().pointers == 0
    assert len(await settled(partial(kept.store.held_with, NodeId(node_of(25))))) == 1


async def test_of_a_full_table_our_own_lines_stay(kept: Kept) -> None:
    part = make_stripe(1).parts[0]
    await kept.put(part)
    crowd = [HolderEntry(3, node_of(1000 + number), 9) for number in range(ENTRIES_MAX)]
    await kept.merge(HolderTable(part.address, 1, part.descriptor_hash, crowd))
    mine = HolderEntry(4, node_of(77), 10)
    told = HolderTable(part.address, 1, part.descriptor_hash, [mine])
    await kept.merge(told)
    assert mine not in (await kept.get(part)).entries
    await settled(partial(kept.store.merge, (), (told,), first=True))
    entries = (await kept.get(part)).entries
    assert mine in entries
    assert len(entries) == ENTRIES_MAX


# Scrub steps


async def test_steps_of_a_scrub_meet_every_part_once(kept: Kept) -> None:
    for number in range(7):
        await kept.put(make_stripe(number, **(BIG if number == 3 else {})).parts[0])
    seen, size, after, done = 0, 0, b"", False
    while not done:
        step = await kept.check(after, 3)
        assert step.parts <= 3
        assert step.corrupt == 0
        seen, size, after, done = seen + step.parts, size + step.checked_bytes, step.after, step.done
    figures = kept.store.figures()
    assert (seen, size) == (7, figures.logical_bytes)


async def test_a_scrub_finds_damage_quarantines_it_and_tells(kept: Kept) -> None:
    parts = [make_stripe(number, **(BIG if number == 3 else {})).parts[0] for number in range(5)]
    for part in parts:
        await kept.put(part)
    for part in parts[2:4]:
        kept.flip(part)
    step = await kept.check()
    assert (step.parts, step.corrupt, step.done) == (5, 2, True)
    await kept.merge(make_stripe("the writer is done with the quarantine").table)
    assert sorted(kept.corrupt_seen) == sorted((part.address, part.descriptor_hash) for part in parts[2:4])
    assert kept.store.figures().corrupt == 2


async def test_a_scrub_of_nothing_is_done_at_once(kept: Kept) -> None:
    assert (await kept.check()).done


# Digests, notes


async def test_digests_follow_every_change(kept: Kept) -> None:
    stripes = [make_stripe(number) for number in range(6)]
    for stripe in stripes:
        await kept.put(stripe.parts[0])
    assert await kept.digests() == digest_of(*stripes)
    await kept.delete(stripes[0], 1)
    with pytest.raises(RequestRefused):
        await kept.put(stripes[0].parts[0])
    assert await kept.digests() == digest_of(*stripes[1:])
    kept.clock.now = OVER
    await kept.expire(5)
    assert await kept.digests() == []


async def test_digests_with_a_node_are_over_what_its_name_stands_in(kept: Kept) -> None:
    stripes = [make_stripe(number, holders=range(number, number + 10)) for number in range(6)]
    for stripe in stripes:
        await kept.put(stripe.parts[0])
    assert await settled(partial(kept.store.digests_with, NodeId(node_of(3)))) == digest_of(*stripes[:4])
    assert await settled(partial(kept.store.digests_with, NodeId(node_of(99)))) == []


async def test_digests_with_a_node_leave_out_what_it_says_it_lost(kept: Kept) -> None:
    stripes = [make_stripe(number) for number in range(2)]
    for stripe in stripes:
        await kept.put(stripe.parts[0])
    lost, node = stripes[0].table, NodeId(node_of(3))
    for entries, left in (
        ([HolderEntry(NO_INDEX, node, 5)], stripes[1:]),
        ([HolderEntry(3, node, 6)], stripes),
    ):
        await kept.merge(HolderTable(lost.address, lost.version, lost.descriptor_hash, entries))
        assert await settled(partial(kept.store.digests_with, node)) == digest_of(*left)


async def test_notes_are_kept_and_replaced(kept: Kept) -> None:
    assert dict(kept.store.notes) == {}
    await settled(partial(kept.store.note, "scrub", b"one"))
    await settled(partial(kept.store.note, "uptime", b"7"))
    await settled(partial(kept.store.note, "scrub", b"two"))
    assert dict(kept.store.notes) == {"scrub": b"two", "uptime": b"7"}


async def test_a_note_that_is_too_long_is_refused_and_the_one_before_stays(kept: Kept) -> None:
    await settled(partial(kept.store.note, "scrub", bytes(NOTE_BYTES_MAX)))
    with pytest.raises(LockboxError):
        await settled(partial(kept.store.note, "scrub", bytes(NOTE_BYTES_MAX + 1)))
    assert dict(kept.store.notes) == {"scrub": bytes(NOTE_BYTES_MAX)}


async def test_what_damage_took_without_a_name_is_counted_and_can_be_put_again(kept: Kept) -> None:
    lost: list[int] = []
    kept.store.on_lost = lost.append
    parts = [make_stripe(number).parts[0] for number in range(3)]
    for part in parts:
        await kept.put(part)
    kept.lose(parts[1])
    for _ in range(2):  # a rebuild begins before a write
        await settled(partial(kept.store.note, "cursor", b""))
    assert lost == [1]
    with pytest.raises(ShardMissing):
        await kept.get(parts[1])
    await kept.put(parts[1])
    assert [await kept.get(part) for part in parts] == parts
