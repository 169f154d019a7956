"""What the storage service takes, serves and refuses; the store is the one in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.storage_params import StorageParams, StoreParams
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.hello import Peer
from lockbox_node.services.storage import Storage
from protocol import merkle
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
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
    Message,
    Proof,
    Prove,
    PutStripe,
    Shards,
    Signed,
    Slots,
    Stored,
    TellHolders,
    Told,
)
from protocol.records import leaf_bytes
from tests.fakes.memory_store import MemoryStore
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, FixedClock, Stripe, bytes_of, make_stripe, node_of

OWN = NodeId(node_of(0))
NOTHING_TOLD = Told([], [], [])
RECORDS = [Signed(b"a record", bytes(64))]


def peer_of(role: Role, peer_id: bytes) -> Peer:
    return Peer(peer_id, role, "op1", "127.0.0.1", Downgrade.NONE, None, b"", 0.0)


CLIENT = peer_of(Role.CLIENT, bytes_of("client"))
GUEST = peer_of(Role.GUEST, bytes_of("guest"))
HOLDER = peer_of(Role.NODE, node_of(3))
STRANGER = peer_of(Role.NODE, node_of(77))


@dataclass
class Bench:
    """A storage service alone, answering at once."""

    near: bool = True
    told: list[HolderTable] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = FixedClock()
        self.store = MemoryStore(StoreParams(), self.clock)
        self.storage = Storage(
            self.store,
            OWN,
            self.clock,
            lambda _target, _count: RECORDS,
            lambda _target, _count: [OWN] if self.near else [],
            self.told.append,
        )
        self.handlers = {route.request: route.handler for route in self.storage.routes()}

    def ask(self, request: Message, peer: Peer = CLIENT) -> Message:
        """The reply; raises what the peer would be refused with."""
        answers: list[Any] = []
        self.handlers[type(request)](request, peer, answers.append)  # type: ignore[call-arg]
        assert len(answers) == 1
        if isinstance(answers[0], LockboxError):
            raise answers[0]
        assert isinstance(answers[0], Message)
        return answers[0]

    def refused(self, request: Message, peer: Peer = CLIENT) -> ErrorCode:
        """The code of the refusal."""
        with pytest.raises((LockboxError, RemoteProtocolError)) as caught:
            self.ask(request, peer)
        error = caught.value
        assert isinstance(error, LockboxError | RemoteProtocolError)
        return error.code


@pytest.fixture
def bench() -> Bench:
    return Bench()


def put_of(stripe: Stripe, index: int = 0, changes: dict[str, object] | None = None) -> PutStripe:
    part = stripe.parts[index]
    request = PutStripe(part.descriptor, list(part.slots), index, list(part.shards), list(part.entries))
    return msgspec.structs.replace(request, **(changes or {}))


def get_of(stripe: Stripe, peer: Peer | None = CLIENT, operation: type[Message] = GetShards) -> GetShards:
    access = None if peer is None else stripe.signer.access(NUMBERS[operation], peer.id)
    return GetShards(stripe.signer.address, stripe.parts[0].descriptor_hash, access)


def test_a_stored_part_is_served_to_the_owner_and_told_to_the_spreader(bench: Bench) -> None:
    stripe = make_stripe(1, slots=2)
    part = stripe.parts[4]
    assert bench.ask(put_of(stripe, 4)) == Stored([])
    assert bench.told == [stripe.table]
    assert bench.ask(get_of(stripe)) == Shards(part.descriptor, list(part.slots), 4, list(part.shards))
    assert (bench.storage.counts["puts"], bench.storage.counts["gets"]) == (1, 1)


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
    wrong = [
        get_of(stripe, GUEST),
        get_of(stripe, CLIENT, GetSlot),
        GetShards(
            stripe.signer.address,
            stripe.parts[0].descriptor_hash,
            make_stripe(2).signer.access(NUMBERS[GetShards], CLIENT.id),
        ),
        GetShards(
            stripe.signer.address,
            stripe.parts[0].descriptor_hash,
            stripe.signer.access(NUMBERS[GetShards], CLIENT.id, NOW_UNIX_S - 301),
        ),
    ]
    assert [bench.refused(request) for request in wrong] == [ErrorCode.ACCESS_DENIED] * 4


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


def test_tables_are_kept_as_pointers_only_near_their_address(bench: Bench) -> None:
    held, other = make_stripe(1), make_stripe(2)
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
    mine, other = make_stripe(1), make_stripe(2)
    access = mine.signer.access(NUMBERS[TellHolders], CLIENT.id)
    assert bench.ask(TellHolders([mine.table], access)) == NOTHING_TOLD
    assert bench.refused(TellHolders([mine.table, other.table], access)) is ErrorCode.ACCESS_DENIED
    assert bench.store.figures().pointers == 1


def test_the_checks_of_a_small_put_cost_little(bench: Bench) -> None:
    """Best of many: a signature, two Merkle roots and a slot hash, far from anything quadratic."""
    requests = [put_of(make_stripe(number)) for number in range(50)]
    best = float("inf")
    for request in requests:
        start = time.perf_counter()
        bench.storage._check(request)
        best = min(best, time.perf_counter() - start)
    assert best < 500e-6
