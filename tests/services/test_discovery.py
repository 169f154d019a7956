"""Who is nearest and where shards may go: the member table and the buckets asked as one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lockbox_node.core.documents import Rules
from lockbox_node.core.member_events import OwnSigned, ProbeFailed, RecordLearned, StateHeard, Status
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from lockbox_node.core.regions import BUILT_IN, Region
from lockbox_node.core.routing_table import RoutingParams, RoutingTable
from lockbox_node.services.discovery import Discovery, contact_of, is_dialable, is_eligible
from protocol.ids import NodeId, distance
from protocol.messages import FindNode, MemberState, Nodes
from tests.fakes.swarm import node_id, record_of, signed_of

if TYPE_CHECKING:
    from protocol.records import NodeRecord

OWN = node_id(1)


@dataclass
class FakeAnnouncer:
    """The part of the announcer that is read here."""

    id: NodeId
    record: NodeRecord
    signed: object


def bent(record: NodeRecord, **fields: object) -> NodeRecord:
    return msgspec.structs.replace(record, **fields)


@dataclass
class World:
    """Discovery of node 1 with others told to its machine."""

    discovery: Discovery
    machine: Membership
    table: RoutingTable

    def learn(self, record: NodeRecord) -> None:
        self.machine.handle(RecordLearned(signed_of(record), record), 0.0)

    def bury(self, number: int) -> None:
        self.machine.handle(StateHeard(MemberState(node_id(number), 1, int(Status.DEAD))), 0.0)
        self.machine.handle(ProbeFailed(node_id(number)), 0.0)
        assert self.machine.members[node_id(number)].status is Status.DEAD
        self.machine.handle(ProbeFailed(node_id(number)), 0.0)


@pytest.fixture
def world() -> World:
    machine = Membership(OWN, MembershipParams(), random.Random(1))
    record = record_of(OWN)
    machine.handle(OwnSigned(signed_of(record), record), 0.0)
    table = RoutingTable(OWN, RoutingParams())
    announcer: Any = FakeAnnouncer(OWN, record, signed_of(record))
    found = World(Discovery(announcer, machine, table), machine, table)
    for number in range(2, 12):
        found.learn(record_of(node_id(number)))
    return found


def test_the_nearest_are_those_of_the_smallest_distance_ourselves_included(world: World) -> None:
    target = node_id(5)
    wanted = sorted((node_id(number) for number in range(1, 12)), key=lambda node: distance(node, target))
    assert world.discovery.nearest_nodes(target, 4) == wanted[:4]
    assert world.discovery.nearest_nodes(target, 100) == wanted


def test_the_dead_are_neither_nearest_nor_candidates_but_can_still_be_dialled(world: World) -> None:
    world.bury(5)
    assert node_id(5) not in world.discovery.nearest_nodes(node_id(5), 100)
    assert node_id(5) not in world.discovery.alive()
    assert node_id(5) not in [one.node for one in world.discovery.candidates()]
    assert world.discovery.contact(node_id(5)) is not None


def test_a_dead_contact_of_the_buckets_is_not_handed_out(world: World) -> None:
    assert world.discovery.heard_from(node_id(5)) is None
    assert node_id(5) in world.table
    world.bury(5)
    assert node_id(5) not in world.discovery.nearest_nodes(node_id(5), 100)
    world.discovery.failed(node_id(5))
    assert node_id(5) not in world.table


def test_who_has_answered_is_told_nearest_first(world: World) -> None:
    for number in (9, 3, 5):
        world.discovery.heard_from(node_id(number))
    wanted = sorted((node_id(number) for number in (9, 3)), key=lambda node: distance(node, node_id(5)))
    assert world.discovery.nearest_answered(node_id(5), 3)[0] == node_id(5)
    assert [one for one in world.discovery.nearest_answered(node_id(5), 3) if one != node_id(5)] == wanted


def test_contacts_leave_ourselves_out(world: World) -> None:
    contacts = world.discovery.nearest_contacts(OWN, 3)
    assert len(contacts) == 3
    assert OWN not in [contact.node for contact in contacts]
    assert world.discovery.contact(OWN) is None


def test_nobody_unknown_enters_the_buckets(world: World) -> None:
    assert world.discovery.heard_from(node_id(99)) is None
    assert len(world.table) == 0
    assert world.discovery.contact(node_id(99)) is None


@pytest.mark.parametrize(
    ("state", "free", "wanted"), [(1, 5, True), (1, 0, False), (0, 5, False), (2, 5, False), (3, 5, False)]
)
def test_only_active_nodes_with_room_are_candidates(world: World, state: int, free: int, wanted: bool) -> None:
    record = bent(record_of(node_id(50)), state=state, free_class=free)
    assert is_eligible(record) is wanted
    world.learn(record)
    assert (node_id(50) in [one.node for one in world.discovery.candidates()]) is wanted


def test_find_node_answers_signed_records_nearest_first(world: World) -> None:
    (route,) = world.discovery.routes()
    answers: list[Nodes] = []
    handler: Any = route.handler
    handler(FindNode(node_id(5), 3), None, answers.append)
    assert [signed.body[:32] for signed in answers[0].records] == world.discovery.nearest_nodes(node_id(5), 3)


@pytest.mark.parametrize(
    ("addresses", "wanted"),
    [(["a:1"], True), (["[::1]:1"], True), (["a:0"], False), (["a"], False), (["a:1", "b"], False), ([":1"], False)],
)
def test_a_record_is_dialable_when_every_address_is(addresses: list[str], wanted: bool) -> None:
    record = bent(record_of(node_id(2)), addresses=addresses)
    assert is_dialable(record) is wanted
    assert contact_of(record).addresses == tuple(addresses)


def test_who_stands_in_no_region_of_the_network_is_failing_until_the_table_names_it(world: World) -> None:
    world.learn(bent(record_of(node_id(20)), region="lisbon"))
    for number in range(2, 12):
        world.learn(bent(record_of(node_id(number)), region="eu-west-1", sequence=9))
    assert world.discovery.failing() == {node_id(20)}
    rules = [Rules(regions=BUILT_IN.with_region(Region("lisbon", "", 38.72, -9.14)))]
    world.discovery.go_by(lambda: rules[0], lambda: 0.0)
    assert world.discovery.regions is rules[0].regions
    assert world.discovery.failing() == set()
    rules[0] = Rules(regions=BUILT_IN.without("eu-west-1"))
    assert world.discovery.failing() == {node_id(number) for number in (*range(2, 12), 20)}


def test_who_is_excluded_is_no_candidate_and_failing_and_we_are_neither_to_ourselves(world: World) -> None:
    own, excluded = world.discovery.own, node_id(3)
    assert excluded in [one.node for one in world.discovery.candidates()]
    world.discovery.excluded = world.discovery.outvoted = lambda: {excluded, own, node_id(60)}
    assert excluded not in [one.node for one in world.discovery.candidates()]
    assert world.discovery.failing() == {excluded}


def test_who_failed_to_prove_a_part_is_failing_for_that_slot_alone(world: World) -> None:
    slot = (b"address", b"descriptor hash")
    world.discovery.unproven = lambda *asked: frozenset({node_id(4)}) if asked == slot else frozenset()
    assert world.discovery.failing_at(*slot) == {node_id(4)}
    assert world.discovery.failing_at(b"address", b"another") == world.discovery.failing() == set()
    assert node_id(4) in [one.node for one in world.discovery.candidates()]


def test_who_is_not_heard_is_suspected_and_we_never_are(world: World) -> None:
    world.machine.handle(StateHeard(MemberState(node_id(3), 1, int(Status.SUSPECT))), 0.0)
    world.bury(4)
    suspected = {number for number in range(1, 13) if world.discovery.suspected(node_id(number))}
    assert suspected == {3, 4, 12}
