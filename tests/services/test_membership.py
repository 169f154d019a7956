"""Joining, believing and forgetting over real rpc: what is verified, what is published, what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.lowlevel

from lockbox_node.core.member_events import MemberAlive, MemberDead, Status
from lockbox_node.errors import RequestRefused
from lockbox_node.services import membership
from lockbox_node.services.announcing import NodeState
from protocol.ids import NodeId
from protocol.messages import Gossip, MemberState, MemberUpdate, Signed, SyncMembers
from protocol.records import NodeRecord, parse, sign
from simulations.identities import NOW_UNIX_S, FakeNetwork, Papers
from tests.fakes.nodes import Member, StoppedClock, Town, announcer_of
from tests.fakes.swarm import learned

if TYPE_CHECKING:
    import random

    from trio.testing import MockClock

    from protocol.errors import ErrorCode

STRANGERS = FakeNetwork(2)


@pytest.fixture
def town() -> Town:
    return Town()


async def started(nursery: trio.Nursery, *members: Member) -> None:
    for member in members:
        await nursery.start(member.run)


def rumour(signed: Signed, status: Status = Status.ALIVE) -> MemberUpdate:
    record = parse(signed, NodeRecord)
    return MemberUpdate(MemberState(record.node, record.sequence, int(status)), signed)


async def told(town: Town, member: Member, *updates: MemberUpdate) -> ErrorCode | None:
    """Gossip of node 99 to `member`: why it was refused, if it was."""
    async with town.asker(town.authority.node(99)) as pool:
        code = None
        try:
            await pool.request(member.contact, Gossip(list(updates)))
        except RequestRefused as error:
            code = error.code
        await trio.sleep(0.01)
    return code


def bent(town: Town, **changes: object) -> Signed:
    """A record of node 5 with other contents, signed by its own key."""
    papers = town.papers(5)
    return sign(msgspec.structs.replace(parse(town.record(5), NodeRecord), **changes), papers)


async def test_a_rumour_with_a_genuine_record_makes_a_member(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    assert await told(town, member, rumour(town.record(5))) is None
    assert town.papers(5).node_id in member.machine.members


async def test_records_that_do_not_verify_are_refused(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    forged = Signed(town.record(5).body, bytes(64))
    foreign = announcer_of(Papers(STRANGERS.node(5)), "node5:7420", StoppedClock()).signed
    borrowed = bent(town, node=town.papers(6).node_id)
    for bad in (forged, foreign, borrowed, Signed(b"\x91\x01", bytes(64))):
        before = member.service.foreign.refused
        update = MemberUpdate(MemberState(bytes(32), 1, 0), bad)
        assert await told(town, member, update) is not None
        assert member.service.foreign.refused == before + 1
    assert not member.machine.members  # nor the teller itself, whom nobody can dial


async def test_expired_and_undialable_records_are_left_out(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    lapsed = Papers(town.authority.node(5, days=-1))  # its certificates have expired, its record has not
    for useless in (
        bent(town, expires_unix_s=int(NOW_UNIX_S) - 1),
        bent(town, addresses=["node5"]),
        bent(town, addresses=["node5:7420", "node5:0"]),
        announcer_of(lapsed, "node5:7420", StoppedClock()).signed,
    ):
        assert await told(town, member, rumour(useless)) is None
        assert town.papers(5).node_id not in member.machine.members


async def test_two_that_join_through_a_third_know_one_another(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, third = Member(town, 1), Member(town, 2, [1]), Member(town, 3, [1])
    await started(nursery, first, second, third)
    assert third.service.joined.is_set()
    await trio.sleep(5)
    for member in (first, second, third):
        assert set(member.machine.alive()) == {first.id, second.id, third.id} - {member.id}
        states = {one.record.state for one in member.machine.members.values()}
        assert states == {NodeState.ACTIVE}
        assert member.joins == 2


async def test_one_reachable_bootstrap_peer_of_several_is_enough(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    town.hub.silent.add("node8")
    await started(nursery, Member(town, 1))
    second = Member(town, 2, [7, 1, 2, 8])
    await started(nursery, second)
    assert second.service.joined.is_set()
    assert second.machine.alive() == [town.papers(1).node_id]


async def test_it_keeps_trying_while_no_bootstrap_peer_answers(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    late = Member(town, 2, [1])
    await started(nursery, late)
    assert not late.service.joined.is_set()
    await started(nursery, Member(town, 1))
    await trio.sleep(10)
    assert late.service.joined.is_set()
    assert late.machine.alive() == [town.papers(1).node_id]


async def test_remembered_members_stand_in_for_bootstrap_peers(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    spoilt = Signed(town.record(4).body, bytes(64))
    back = Member(town, 2, [9], [spoilt, town.record(1)])  # node 9 is gone for good
    await started(nursery, Member(town, 1), back)
    await trio.sleep(3)
    assert back.service.joined.is_set()
    assert [record.body for record in back.service.records()] == [
        back.machine.members[town.papers(1).node_id].signed.body
    ]


async def test_memories_of_the_dead_do_not_keep_it_from_bootstrap(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ghosts = [town.record(number) for number in range(20, 50)]
    back = Member(town, 2, [1], ghosts)
    await started(nursery, back, Member(town, 1))
    await trio.sleep(8)
    assert back.service.joined.is_set()
    assert town.papers(1).node_id in back.machine.alive()


async def test_the_dead_and_the_returned_are_published_in_order(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second, third = Member(town, 1), Member(town, 2, [1]), Member(town, 3, [1])
    await started(nursery, first, second, third)
    await trio.sleep(5)
    first.published()
    town.cut(3)
    await trio.sleep(15)
    assert first.published() == [MemberDead(third.id)]
    assert third.id not in first.discovery.alive()
    town.hub.down.clear()
    await trio.sleep(90)
    # The returned node believed the others dead: they may be published too, until they have refuted it.
    assert [change for change in first.published() if change.node == third.id] == [MemberAlive(third.id)]
    assert second.id in first.discovery.alive()
    assert third.id in first.discovery.alive()


async def test_a_broken_connection_is_asked_about_at_once(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2, [1])
    await started(nursery, first, second)
    await trio.sleep(3)
    town.cut(2)
    await trio.sleep(0.01)
    assert first.machine.members[second.id].status is Status.SUSPECT


async def test_who_refuses_a_probe_lives(town: Town, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    first, second = Member(town, 1), Member(town, 2, [1], serves=False)
    await started(nursery, first, second)
    await trio.sleep(30)
    assert first.machine.members[second.id].status is Status.ALIVE


async def test_a_rumour_about_ourselves_is_refuted(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2, [1])
    await started(nursery, first, second)
    await trio.sleep(3)
    slander = MemberUpdate(MemberState(first.id, first.announcer.record.sequence, int(Status.DEAD)), None)
    said = first.announcer.record.sequence
    assert await told(town, first, slander) is None
    await trio.sleep(2)
    assert first.announcer.record.sequence > said
    assert second.machine.members[first.id].record.sequence == first.announcer.record.sequence
    assert second.machine.members[first.id].status is Status.ALIVE


async def test_a_full_inbox_drops_and_counts_rumours_but_not_our_own_word(
    town: Town, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    monkeypatch.setattr(membership, "RUMOURS_MAX", 5)
    service = Member(town, 1).service
    for _ in range(8):
        service._feed(learned(NodeId(rng.randbytes(32))))
    assert service.dropped == 3
    service.renew_record()
    assert service.dropped == 3


async def test_good_news_without_a_record_takes_no_room(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, rng: random.Random
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    known = [MemberState(rng.randbytes(32), 1, int(Status.ALIVE)) for _ in range(15_000)]
    async with town.asker(town.authority.node(99)) as pool:
        await pool.request(member.contact, SyncMembers(known))
    assert member.service.dropped == 0


async def test_changes_that_nobody_takes_are_dropped_and_counted(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1, remembered=[town.record(number) for number in range(20, 24)], changes_max=3)
    await started(nursery, member)
    await trio.sleep(0.01)
    assert len(member.published()) == 3
    assert member.service.dropped >= 1


async def test_only_the_new_are_news_to_those_who_keep_pointers(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    await told(town, member, rumour(town.record(5)))
    await trio.sleep(0.01)
    joins = member.joins
    await told(town, member, rumour(town.record(5, NodeState.DRAINING)))
    assert member.machine.members[town.papers(5).node_id].record.state == NodeState.DRAINING
    assert member.joins == joins


async def test_a_farewell_reaches_everybody_who_is_connected(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2, [1])
    await started(nursery, first, second)
    await trio.sleep(3)
    with trio.fail_after(1):
        await second.service.leave()
    await trio.lowlevel.checkpoint()
    assert first.machine.members[second.id].record.state == NodeState.LEAVING
    assert second.id not in [one.node for one in first.discovery.candidates()]


async def test_the_record_is_signed_anew_before_it_grows_old(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    first = member.announcer.record.sequence
    town.clock.ahead_s = 11 * 3600
    await trio.sleep(120)
    assert member.announcer.record.sequence == first
    town.clock.ahead_s = 13 * 3600
    await trio.sleep(120)
    assert member.announcer.record.sequence > first
    assert member.machine.known()[0].incarnation == member.announcer.record.sequence


async def test_how_long_a_death_took_to_be_noticed_is_counted(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    members = [Member(town, 1), *(Member(town, number, [1]) for number in (2, 3, 4))]
    for member in members:
        await nursery.start(member.run)
    await trio.sleep(40)
    first, _second, third, _fourth = members
    town.cut(2)
    await trio.sleep(30)
    counted = [sum(one.service.detection.durations.counts) for one in (first, third)]
    assert counted == [1, 1]
    assert 5 < first.service.detection.durations.sum_s < 20
