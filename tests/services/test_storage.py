"""What the storage service takes, serves and refuses; the store is the one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.core.policy import Governed
from lockbox_node.core.storage_params import StorageParams
from protocol import merkle
from protocol.errors import ErrorCode
from protocol.messages import (
    NO_INDEX,
    NUMBERS,
    Delete,
    Done,
    FindHolders,
    GetShards,
    GetSlot,
    HolderEntry,
    Holders,
    HolderTable,
    Proof,
    Prove,
    Shards,
    Signed,
    Slots,
    Stored,
    TellHolders,
)
from protocol.records import leaf_bytes
from tests.fakes.holder_bench import CLIENT, GUEST, HOLDER, OWN, RECORDS, STRANGER, Bench, get_of, put_of
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, bytes_of, make_stripe, node_of

if TYPE_CHECKING:
    from lockbox_node.rpc.hello import Peer


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_stored_part_is_served_to_the_owner_and_told_to_the_spreader(bench: Bench) -> None:
    stripe = make_stripe(1, slots=2)
    part = stripe.parts[4]
    assert bench.ask(put_of(stripe, 4)) == Stored([])
    assert bench.told == [stripe.table]
    assert bench.ask(get_of(stripe)) == Shards(part.descriptor, list(part.slots), 4, list(part.shards))
    assert (bench.storage.counts["puts"], bench.storage.counts["gets"]) == (1, 1)


def test_clients_bring_nothing_new_in_a_tier_that_is_not_on_offer_and_nodes_keep_what_stands(bench: Bench) -> None:
    before, after = make_stripe(1), make_stripe(2)
    bench.ask(put_of(before))
    bench.storage.governed = Governed().under("tiers", "basic")
    assert bench.refused(put_of(after)) is ErrorCode.TIER_VIOLATION
    assert bench.ask(put_of(after), HOLDER) == Stored([]), "handing over and repair go on"
    assert isinstance(bench.ask(get_of(before)), Shards)
    bench.storage.governed = Governed().under("tiers", "basic,standard")
    assert bench.ask(put_of(make_stripe(3))) == Stored([])


def test_the_policy_says_how_much_a_client_may_keep_and_leaves_nodes_alone(bench: Bench) -> None:
    bench.storage.governed = Governed().under("client-quota", "100")
    assert bench.refused(put_of(make_stripe(1))) is ErrorCode.QUOTA_EXCEEDED
    assert bench.ask(put_of(make_stripe(1)), HOLDER) == Stored([])
    bench.storage.governed = Governed()
    assert bench.ask(put_of(make_stripe(2))) == Stored([])


def test_who_is_being_drained_takes_nothing_new_and_serves_what_it_has(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    bench.storage.closed = lambda: True
    assert bench.refused(put_of(make_stripe(2))) is ErrorCode.STORE_FULL
    assert bench.refused(put_of(make_stripe(2)), HOLDER) is ErrorCode.STORE_FULL
    assert isinstance(bench.ask(get_of(stripe)), Shards)
    bench.storage.closed = lambda: False
    assert bench.ask(put_of(make_stripe(2))) == Stored([])


def test_who_says_that_it_holds_nothing_shows_its_shards_to_no_sibling(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    get = get_of(stripe, None)
    prove = Prove(stripe.signer.address, stripe.parts[0].descriptor_hash, bytes(16), None)
    assert isinstance(bench.ask(get, HOLDER), Shards)
    assert isinstance(bench.ask(prove, HOLDER), Proof)
    for index, served in ((NO_INDEX, False), (0, True)):
        line = HolderEntry(index, OWN, 7 + served)
        table = HolderTable(stripe.signer.address, 1, stripe.parts[0].descriptor_hash, [line])
        bench.store.merge((), [table], lambda _merged: None)
        for request in (get, prove):
            if served:
                bench.ask(request, HOLDER)
            else:
                assert bench.refused(request, HOLDER) is ErrorCode.BUSY, "an audit must not take it for lost"
        assert isinstance(bench.ask(get_of(stripe)), Shards), "its owner still reads it"


def test_siblings_come_back_with_the_answer(bench: Bench) -> None:
    one, two = (make_stripe(1, salt=salt) for salt in (1, 2))
    bench.ask(put_of(one))
    assert bench.ask(put_of(two)) == Stored([one.signed])


def test_an_update_replaces_what_its_descriptor_names(bench: Bench) -> None:
    old = make_stripe(1)
    new = make_stripe(1, version=2, replaces=[old.parts[0].descriptor_hash])
    bench.ask(put_of(old))
    bench.ask(put_of(new))
    assert bench.refused(get_of(old)) is ErrorCode.SHARD_UNAVAILABLE
    assert bench.refused(put_of(old)) is ErrorCode.STALE


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 10},
        {"index": 1},
        {"shards": []},
        {"shards": [bytes(300), bytes(300)]},
        {"shards": [bytes(299), bytes(300)]},
        {"slots": [bytes(1024)]},
        {"slots": []},
        {"holders": [HolderEntry(10, node_of(1), 1)]},
    ],
)
def test_what_the_owner_did_not_sign_is_not_stored(bench: Bench, changes: dict[str, object]) -> None:
    assert bench.refused(put_of(make_stripe(1), changes=changes)) is ErrorCode.PROOF_INVALID
    assert bench.store.figures().stripes == 0
    assert not bench.told


def test_a_foreign_signature_is_not_stored_even_when_the_body_is_known(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    forged = Signed(stripe.signed.body, make_stripe(2).signed.signature)
    assert bench.refused(put_of(stripe, changes={"descriptor": forged})) is ErrorCode.PROOF_INVALID


@pytest.mark.parametrize("tier", [(1, 5, 11), (0, 5, 10), (3, 2, 20)])
def test_a_code_that_is_not_the_tiers_is_refused(bench: Bench, tier: tuple[int, int, int]) -> None:
    assert bench.refused(put_of(make_stripe(1, tier=tier))) is ErrorCode.TIER_VIOLATION


@pytest.mark.parametrize("lease_s", [-1, 0, 366 * DAY_S])
def test_a_lease_that_is_over_or_too_long_is_refused(bench: Bench, lease_s: int) -> None:
    assert bench.refused(put_of(make_stripe(1, lease_s=lease_s))) is ErrorCode.TIER_VIOLATION


def test_remembered_signatures_are_bounded() -> None:
    bench = Bench()
    bench.storage._params = StorageParams(verified_descriptors_max=2)
    for number in range(5):
        bench.ask(put_of(make_stripe(number)))
    assert len(bench.storage._verified) == 2


@pytest.mark.parametrize("peer", [CLIENT, GUEST])
def test_nobody_reads_without_the_owners_leave(bench: Bench, peer: Peer) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    assert bench.refused(get_of(stripe, None), peer) is ErrorCode.ACCESS_DENIED
    assert bench.refused(GetSlot(stripe.signer.address, None), peer) is ErrorCode.ACCESS_DENIED
    assert bench.refused(TellHolders([stripe.table], None), peer) is ErrorCode.ACCESS_DENIED


def test_a_claim_counts_for_its_address_operation_requester_and_time_only(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    address = stripe.signer.address
    wrong = [
        GetSlot(address, stripe.signer.access(NUMBERS[GetSlot], GUEST.id)),
        GetSlot(address, stripe.signer.access(NUMBERS[Prove], CLIENT.id)),
        GetSlot(address, make_stripe(2).signer.access(NUMBERS[GetSlot], CLIENT.id)),
        GetSlot(address, stripe.signer.access(NUMBERS[GetSlot], CLIENT.id, NOW_UNIX_S - 301)),
    ]
    assert [bench.refused(request) for request in wrong] == [ErrorCode.ACCESS_DENIED] * 4


def test_a_claim_alone_gives_no_shards(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    claim = stripe.signer.access(NUMBERS[GetShards], CLIENT.id)
    get = GetShards(stripe.signer.address, stripe.parts[0].descriptor_hash, claim)
    assert bench.refused(get) is ErrorCode.PROOF_INVALID
    assert bench.storage.counts["gets"] == 0


def test_a_read_that_fails_uses_no_grant_up(bench: Bench) -> None:
    stripe = make_stripe(1)
    get = get_of(stripe)
    assert bench.refused(get) is ErrorCode.SHARD_UNAVAILABLE
    bench.ask(put_of(stripe))
    assert isinstance(bench.ask(get), Shards)
    assert bench.refused(get) is ErrorCode.GRANT_REPLAYED


def test_a_node_reads_without_a_claim_only_where_our_table_names_it(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    assert isinstance(bench.ask(get_of(stripe, None), HOLDER), Shards)
    assert isinstance(bench.ask(GetSlot(stripe.signer.address, None), HOLDER), Slots)
    assert bench.refused(get_of(stripe, None), STRANGER) is ErrorCode.ACCESS_DENIED
    assert bench.refused(GetSlot(stripe.signer.address, None), STRANGER) is ErrorCode.ACCESS_DENIED
    prove = Prove(stripe.signer.address, stripe.parts[0].descriptor_hash, bytes(16), None)
    assert bench.refused(prove, STRANGER) is ErrorCode.ACCESS_DENIED


def test_a_slot_shows_every_version_and_the_tombstone(bench: Bench) -> None:
    old, new = make_stripe(1), make_stripe(1, version=3)
    bench.ask(put_of(old))
    bench.ask(put_of(new, 2))
    ask = GetSlot(old.signer.address, old.signer.access(NUMBERS[GetSlot], CLIENT.id))
    slots = bench.ask(ask)
    assert isinstance(slots, Slots)
    assert [(state.descriptor, state.index) for state in slots.states] == [(new.signed, 2), (old.signed, 0)]
    bench.ask(Delete(old.signer.tombstone(3)))
    assert bench.ask(ask) == Slots([], old.signer.tombstone(3))


def test_only_the_asset_key_deletes(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    tombstone = stripe.signer.tombstone(1)
    forged = Signed(tombstone.body, make_stripe(2).signer.tombstone(1).signature)
    assert bench.refused(Delete(forged)) is ErrorCode.PROOF_INVALID
    assert bench.store.figures().stripes == 1
    assert bench.ask(Delete(tombstone)) == Done()
    assert bench.store.figures().stripes == 0
    assert bench.refused(put_of(stripe)) is ErrorCode.STALE


@pytest.mark.parametrize("shard_bytes", [300, 9000, 100_000])
def test_a_proof_holds_the_drawn_leaves_and_checks_against_the_signed_ids(bench: Bench, shard_bytes: int) -> None:
    stripe = make_stripe(1, shard_bytes=shard_bytes)
    bench.ask(put_of(stripe, 3))
    nonce = bytes_of("nonce", length=16)
    access = stripe.signer.access(NUMBERS[Prove], CLIENT.id)
    proof = bench.ask(Prove(stripe.signer.address, stripe.parts[0].descriptor_hash, nonce, access))
    assert isinstance(proof, Proof)
    leaf = leaf_bytes(shard_bytes)
    for number, (group, leaves) in enumerate(zip(stripe.descriptor.groups, proof.groups, strict=True)):
        assert [one.leaf_index for one in leaves] == merkle.drawn_leaves(nonce, number, shard_bytes, leaf)
        assert all(merkle.check(group.shard_ids[3], shard_bytes, leaf, one) for one in leaves)


def test_a_corrupt_part_is_refused_and_counted(bench: Bench) -> None:
    stripe = make_stripe(1)
    bench.ask(put_of(stripe))
    bench.store.corrupt(stripe.signer.address, stripe.parts[0].descriptor_hash)
    assert bench.refused(get_of(stripe)) is ErrorCode.SHARD_CORRUPT
    assert bench.storage.counts["corrupt"] == 1


def test_holders_are_found_by_anybody_else_the_nearest_are_named(bench: Bench) -> None:
    stripe = make_stripe(1)
    ask = FindHolders(stripe.signer.address)
    assert bench.ask(ask, GUEST) == Holders([], None, RECORDS)
    bench.ask(put_of(stripe))
    assert bench.ask(ask, GUEST) == Holders([stripe.table], None, [])
    bench.ask(Delete(stripe.signer.tombstone(1)))
    assert bench.ask(ask, GUEST) == Holders([], stripe.signer.tombstone(1), [])
