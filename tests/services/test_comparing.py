"""What a holder answers those who tell and compare: tombstones, newer versions, what is missing here."""

from __future__ import annotations

import pytest

from lockbox_node.services.comparing import differing
from protocol.errors import ErrorCode
from protocol.held import bucket_of
from protocol.messages import (
    NO_INDEX,
    NUMBERS,
    BucketDigest,
    CompareHeld,
    Delete,
    Differing,
    FindHolders,
    HolderEntry,
    Holders,
    HolderTable,
    TellHolders,
    Told,
)
from tests.fakes.holder_bench import CLIENT, HOLDER, NOTHING_TOLD, OWN, STRANGER, Bench, put_of
from tests.fakes.stripes import make_stripe, node_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_tables_are_kept_as_pointers_only_near_their_address(bench: Bench) -> None:
    held, other = make_stripe(1), make_stripe(2, holders=range(1, 11))
    bench.ask(put_of(held))
    bench.near = False
    news = HolderTable(held.signer.address, 1, held.parts[0].descriptor_hash, [HolderEntry(2, node_of(50), 5)])
    assert bench.ask(TellHolders([news, other.table], None), STRANGER) == NOTHING_TOLD
    assert bench.store.figures().pointers == 0
    found = bench.ask(FindHolders(held.signer.address))
    assert isinstance(found, Holders)
    assert HolderEntry(2, node_of(50), 5) in found.tables[0].entries
    assert bench.ask(TellHolders([other.table], None), STRANGER) == NOTHING_TOLD
    bench.near = True
    assert bench.ask(TellHolders([other.table], None), STRANGER) == NOTHING_TOLD
    assert bench.store.figures().pointers == 1


def test_only_a_node_itself_says_that_it_lost_its_index(bench: Bench) -> None:
    held = make_stripe(1)
    bench.ask(put_of(held))
    table = held.table
    lost = [HolderEntry(NO_INDEX, STRANGER.id, 5), HolderEntry(NO_INDEX, node_of(3), 5)]
    news = HolderTable(table.address, 1, table.descriptor_hash, [*lost, HolderEntry(2, node_of(50), 5)])
    access = held.signer.access(NUMBERS[TellHolders], CLIENT.id)
    for said_by, claim, kept in [(CLIENT, access, []), (STRANGER, None, lost[:1])]:
        assert bench.ask(TellHolders([news], claim), said_by) == NOTHING_TOLD
        found = bench.ask(FindHolders(table.address))
        assert isinstance(found, Holders)
        entries = found.tables[0].entries
        assert [entry for entry in entries if entry.index == NO_INDEX] == kept
        assert HolderEntry(2, node_of(50), 5) in entries
    lossy = put_of(make_stripe(2), changes={"holders": lost[:1]})
    assert bench.refused(lossy, STRANGER) is ErrorCode.PROOF_INVALID


def test_an_owner_tells_of_its_own_address_only(bench: Bench) -> None:
    mine, other = (make_stripe(number, holders=range(1, 11)) for number in (1, 2))
    access = mine.signer.access(NUMBERS[TellHolders], CLIENT.id)
    assert bench.ask(TellHolders([mine.table], access)) == NOTHING_TOLD
    assert bench.refused(TellHolders([mine.table, other.table], access)) is ErrorCode.ACCESS_DENIED
    assert bench.store.figures().pointers == 1


def test_who_tells_of_a_deleted_slot_gets_the_tombstone(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(Delete(stripe.signer.tombstone(1)))
    assert bench.ask(TellHolders([stripe.table], None), STRANGER) == Told([stripe.signer.tombstone(1)], [], [])
    assert bench.store.figures().pointers == 0


def test_who_tells_of_a_replaced_slot_gets_what_replaced_it(bench: Bench) -> None:
    old = make_stripe(1)
    new = make_stripe(1, version=2, replaces=[old.parts[0].descriptor_hash])
    bench.ask(put_of(new))
    assert bench.ask(TellHolders([old.table], None), STRANGER) == Told([], [new.signed], [])


def test_a_higher_version_that_does_not_name_it_replaces_nothing(bench: Bench) -> None:
    old, new = make_stripe(1, holders=range(1, 11)), make_stripe(1, version=2)
    bench.ask(put_of(new))
    assert bench.ask(TellHolders([old.table], None), STRANGER) == NOTHING_TOLD


def test_a_table_that_names_us_in_vain_says_what_is_missing(bench: Bench) -> None:
    held, lost = make_stripe(1), make_stripe(2)
    bench.ask(put_of(held))
    told = bench.ask(TellHolders([held.table, lost.table], None), STRANGER)
    assert told == Told([], [], [lost.parts[0].descriptor_hash])
    assert bench.missing == [lost.table]


def test_two_that_hold_the_same_differ_nowhere(bench: Bench) -> None:
    stripes = [make_stripe(number) for number in range(8)]
    other = Bench()
    for stripe in stripes:
        bench.ask(put_of(stripe))
        other.ask(put_of(stripe, 3))
    ours: list[BucketDigest] = []
    other.store.digests_with(OWN, lambda found: ours.extend(found if isinstance(found, list) else []))
    assert bench.ask(CompareHeld(ours), HOLDER) == Differing([])
    assert bench.differing == []
    other.ask(Delete(stripes[2].signer.tombstone(1)))
    ours.clear()
    other.store.digests_with(OWN, lambda found: ours.extend(found if isinstance(found, list) else []))
    assert bench.ask(CompareHeld(ours), HOLDER) == Differing([bucket_of(stripes[2].signer.address)])
    assert bench.differing == [HOLDER.id]


def test_only_what_both_tables_name_is_compared(bench: Bench) -> None:
    bench.ask(put_of(make_stripe(1, holders=range(1, 11))))
    assert bench.ask(CompareHeld([]), STRANGER) == Differing([])


def test_buckets_that_one_side_lacks_differ() -> None:
    one, two = BucketDigest(3, 1, bytes(32)), BucketDigest(9, 1, bytes(32))
    assert differing([one, two], [two]) == [3]
    assert differing([], [one, two]) == [3, 9]
    assert differing([one], [BucketDigest(3, 2, bytes(32))]) == [3]
