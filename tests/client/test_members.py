"""The client's member view: merging what several nodes say, verifying late, leaving out who failed."""

from __future__ import annotations

import msgspec
import pytest

from lockbox_node.client.members import MemberView, addresses_of
from protocol.messages import MemberState, MemberUpdate, Signed
from protocol.records import NodeRecord, parse
from simulations.identities import FakeIdentity, FakeNetwork

NETWORK = FakeNetwork()
NODES = [NETWORK.node(number, operator=f"op{number % 3}", region="us-east-1") for number in range(1, 7)]


def update(node: FakeIdentity, status: int = 0) -> MemberUpdate:
    return MemberUpdate(MemberState(node.id, 1, status), node.record)


@pytest.fixture
def view() -> MemberView:
    view = MemberView(NETWORK.root)
    view.merge([[update(node) for node in NODES]])
    return view


def test_nearest_comes_in_xor_order_and_shunned_ones_last(view: MemberView) -> None:
    target = NODES[0].id
    near = [member.record.node for member in view.nearest(target, 6, now=0)]
    assert near == sorted(near, key=lambda node: int.from_bytes(node, "big") ^ int.from_bytes(target, "big"))
    view.shun(near[0], until=10)
    assert view.nearest(target, 6, now=5)[-1].record.node == near[0]
    assert view.nearest(target, 6, now=11)[0].record.node == near[0]
    assert not view.is_live(near[0], now=5)


def test_one_liar_does_not_declare_a_member_dead(view: MemberView) -> None:
    honest = [update(node) for node in NODES]
    liar = [update(node, status=2) for node in NODES]
    view.merge([honest, liar, honest])
    assert len(view.nearest(bytes(32), 10, now=0)) == 6
    view.merge([liar, liar, honest])
    assert view.nearest(bytes(32), 10, now=0) == []


def test_a_record_that_its_node_did_not_sign_is_never_a_candidate(view: MemberView) -> None:
    forged = MemberView(NETWORK.root)
    record = NODES[0].record
    assert record is not None
    forged.merge([[MemberUpdate(MemberState(NODES[0].id, 1, 0), Signed(record.body, bytes(64)))]])
    assert forged.candidates(bytes(32), 0, 10) == []
    assert len(forged) == 0
    assert len(view.candidates(bytes(32), 0, 10)) == 6


def test_candidates_leave_out_the_shunned_and_the_excluded(view: MemberView) -> None:
    view.shun(NODES[0].id, until=10)
    found = {candidate.node for candidate in view.candidates(bytes(32), 5, 10, without={NODES[1].id})}
    assert found == {node.id for node in NODES[2:]}
    view.excluded = {NODES[2].id, NODES[3].id}
    assert {candidate.node for candidate in view.candidates(bytes(32), 99, 10)} == {
        node.id for node in (*NODES[:2], *NODES[4:])
    }


def test_distinct_operators_lead_and_nobody_is_lost(view: MemberView) -> None:
    near = view.nearest(bytes(32), 6, now=0)
    spread = view.distinct_operators(near, 3)
    assert len({member.record.operator for member in spread[:3]}) == 3
    assert sorted(member.record.node for member in spread) == sorted(member.record.node for member in near)


def test_cached_addresses_are_of_several_operators_first(view: MemberView) -> None:
    addresses = addresses_of(view, 3)
    assert len(addresses) == len(set(addresses)) == 3


def forged(node: FakeIdentity, sequence: int) -> Signed:
    """A record of that node with another sequence, that nobody signed."""
    assert node.record is not None
    record = msgspec.structs.replace(parse(node.record, NodeRecord), sequence=sequence)
    return Signed(msgspec.msgpack.encode(record), bytes(64))


def test_a_forged_newer_record_does_not_take_the_place_of_the_real_one(view: MemberView) -> None:
    view.take_records([forged(NODES[0], 2**40)])
    assert {candidate.node for candidate in view.candidates(bytes(32), 0, 10)} == {node.id for node in NODES}


def test_a_forged_newer_record_that_came_first_gives_way_to_the_real_one() -> None:
    view = MemberView(NETWORK.root)
    view.take_records([forged(node, 2**40) for node in NODES])
    view.merge([[update(node) for node in NODES]])
    assert len(view.candidates(bytes(32), 0, 10)) == 6


def test_invented_members_do_not_crowd_out_the_nearest_real_ones(view: MemberView) -> None:
    assert NODES[0].record is not None
    record = parse(NODES[0].record, NodeRecord)
    for number in range(100):
        invented = msgspec.structs.replace(record, node=bytes(31) + bytes([number]))
        view.take_records([Signed(msgspec.msgpack.encode(invented), bytes(64))])
    near = view.nearest_verified(bytes(32), 4, 0)
    assert len(near) == 4
    assert {member.record.node for member in near} <= {node.id for node in NODES}
