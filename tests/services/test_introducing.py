"""Who comes to us is dialled back; who cannot be reached is no member anywhere, and knows why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio

from lockbox_node.core.member_params import MembershipParams
from lockbox_node.errors import PeerUnreachable, RequestRefused
from lockbox_node.services.announcing import NodeState
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import Done, Gossip, MemberState, MemberUpdate, Ping
from protocol.records import NodeRecord, parse
from simulations.identities import Papers
from tests.fakes.nodes import Member, StoppedClock, Town, announcer_of

if TYPE_CHECKING:
    from trio.testing import MockClock

OUTSIDE = "router:7000"


@pytest.fixture
def town() -> Town:
    return Town()


async def started(nursery: trio.Nursery, *members: Member) -> None:
    for member in members:
        await nursery.start(member.run)


def dials(town: Town, source: str, target: str) -> int:
    return town.hub.dials.count((source, target))


async def test_who_cannot_be_dialled_back_is_no_member_anywhere_and_says_why_once(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    with structlog.testing.capture_logs() as logs:
        first, second, lost = Member(town, 1), Member(town, 2, [1]), Member(town, 3, [1, 2], address=OUTSIDE)
        await started(nursery, first, second, lost)
        await trio.sleep(60)
    assert lost.id not in first.machine.members
    assert lost.id not in second.machine.members
    why = lost.service.introducing.unreachable
    assert why.startswith(f"nobody answers at {OUTSIDE} with this node's key; set node.advertise")
    assert [line["reason"] for line in logs if line["event"] == "join.unreachable"] == [why]
    assert len([line for line in logs if line["event"] == "newcomer.unreachable"]) == 2, "once by each"
    assert first.pool.dial_backs.counts["unreachable"] > 5, "it goes on trying"


async def test_it_joins_once_the_forward_works(town: Town, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    first, second, inside = Member(town, 1), Member(town, 2, [1]), Member(town, 3, [1], address=OUTSIDE)
    await started(nursery, first, second, inside)
    await trio.sleep(20)
    town.forward(OUTSIDE, 3)
    await trio.sleep(6)
    assert inside.service.introducing.unreachable == ""
    for member in (first, second):
        assert member.machine.members[inside.id].record.addresses == [OUTSIDE]
        assert inside.id in member.machine.alive()


async def test_another_nodes_key_behind_the_forward_counts_for_nothing(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, inside = Member(town, 1), Member(town, 2, [1], address=OUTSIDE)
    await started(nursery, first)
    town.forward(OUTSIDE, 1)
    await started(nursery, inside)
    assert inside.service.introducing.unreachable
    assert inside.id not in first.machine.members
    town.forward(OUTSIDE, 2)
    await trio.sleep(6)
    assert inside.id in first.machine.alive()


async def test_renewed_records_and_restarts_at_the_same_address_need_no_dial(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2, [1])
    await started(nursery, first, second)
    await trio.sleep(1)
    before = first.pool.dial_backs.counts["reached"]
    for _ in range(3):
        second.service.renew_record()
        await trio.sleep(2)
    assert first.machine.members[second.id].record.sequence == second.announcer.record.sequence
    assert before == first.pool.dial_backs.counts["reached"] == 1


async def test_another_address_of_a_member_counts_once_it_was_reached_there(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = Member(town, 1)
    await started(nursery, first)
    moved = announcer_of(town.papers(5), OUTSIDE, town.clock)
    node = moved.id
    first.service.learn(town.record(5))  # a member told us of it
    await trio.sleep(0.1)
    identity = town.authority.node(5)
    shown = moved.renew(first.machine.members[node].incarnation + 1)[0]
    identity.record = shown
    async with town.asker(identity) as pool:
        update = MemberUpdate(MemberState(node, moved.record.sequence, 0), shown)
        with pytest.raises(RequestRefused) as refused:
            await pool.request(first.contact, Gossip([update]))
        assert refused.value.code is ErrorCode.NETWORK_PARTITIONED
        assert refused.value.message == f"nobody answers at {OUTSIDE} with this node's key"
        assert "node.advertise" in refused.value.hint
        assert first.machine.members[node].record.addresses == ["node5:7420"]
        await trio.sleep(3)
        away = Member(town, 5)
        await started(nursery, away)
        town.forward(OUTSIDE, 5)
        assert isinstance(await pool.request(first.contact, Gossip([update])), Done)
        await trio.sleep(0.1)
        assert first.machine.members[node].record.addresses == [OUTSIDE]


async def test_a_newcomer_may_not_pass_as_told_by_naming_another_node(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = Member(town, 1)
    await started(nursery, first)
    identity = town.authority.node(5)
    assert identity.record is not None
    async with town.asker(identity) as pool:
        posing = MemberUpdate(MemberState(town.papers(6).node_id, 1, 0), identity.record)
        with pytest.raises(RequestRefused):
            await pool.request(first.contact, Gossip([posing]))
    assert town.papers(5).node_id not in first.machine.members


async def test_a_stranger_that_only_pings_is_dialled_no_oftener_than_the_pause_allows(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = Member(town, 1)
    await started(nursery, first)
    async with town.asker(town.authority.node(5)) as pool:
        for nonce in range(200):
            await pool.request(first.contact, Ping(nonce))
            await trio.sleep(0.05)
    assert not first.machine.members
    assert 1 <= dials(town, "node1", "node5") <= 6, "in ten seconds"


async def test_a_leaf_that_was_renewed_proves_the_same_node(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2)
    await started(nursery, first, second)
    older = Papers(town.authority.node(2, days=300))
    assert older.chain[0] != second.papers.chain[0]
    signed = announcer_of(older, "node2:7420", StoppedClock()).signed
    record = first.service.foreign.news(signed)
    assert record is not None
    first.service.introducing.dial_back(signed, record)
    await trio.sleep(0.1)
    assert first.machine.alive() == [second.id]


async def test_two_that_start_at_once_find_one_another(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1, [2]), Member(town, 2, [1])
    async with trio.open_nursery() as both:
        both.start_soon(started, nursery, first)
        both.start_soon(started, nursery, second)
    await trio.sleep(5)
    assert first.machine.alive() == [second.id]
    assert second.machine.alive() == [first.id]
    assert not first.service.introducing.unreachable
    assert not second.service.introducing.unreachable


async def test_the_first_node_hears_that_its_own_address_leads_nowhere(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1, address=OUTSIDE), Member(town, 2, [1])
    await started(nursery, first, second)
    await trio.sleep(10)
    assert OUTSIDE in first.service.introducing.unreachable
    assert first.id not in second.machine.members


async def test_one_liar_does_not_take_a_member_out(town: Town) -> None:
    introducing = Member(town, 1).service.introducing
    refusal = RequestRefused("nobody answers", code=ErrorCode.NETWORK_PARTITIONED)
    introducing.answered(Done())
    introducing.answered(refusal)
    assert introducing.unreachable == ""


async def test_only_a_members_refusal_counts_against_us(town: Town) -> None:
    introducing = Member(town, 1).service.introducing
    introducing.answered(PeerUnreachable("the connection broke"))
    introducing.answered(RequestRefused("slow down", code=ErrorCode.RATE_LIMITED))
    assert introducing.unreachable == ""
    introducing.answered(RequestRefused("nobody answers", code=ErrorCode.NETWORK_PARTITIONED))
    assert "node1:7420" in introducing.unreachable
    introducing.taken()
    assert introducing.unreachable == ""


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.LEAVING])
async def test_who_drains_or_leaves_is_eligible_nowhere_after_some_rounds_of_gossip_and_no_dial_back(
    state: NodeState, town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    members = [Member(town, number, [1] if number > 1 else []) for number in range(1, 9)]
    await started(nursery, *members)
    await trio.sleep(10)
    goer, *others = reversed(members)
    assert all(goer.id in eligible(member) for member in members)
    reached = [member.pool.dial_backs.counts["reached"] for member in members]
    goer.service.set_state(state)
    await trio.sleep(4 * MembershipParams().gossip_interval_s)  # fan-out 3: eight are told in two rounds, mostly
    assert not any(goer.id in eligible(member) for member in members)
    assert all(member.machine.members[goer.id].record.state == state for member in others)
    assert all(goer.id in member.discovery.failing() for member in others), "what it holds is wanted elsewhere"
    assert [member.pool.dial_backs.counts["reached"] for member in members] == reached


async def test_an_old_record_that_is_replayed_changes_nothing_and_is_not_dialled(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = Member(town, 1)
    await started(nursery, first)
    identity = town.authority.node(5)
    old = town.record(5, NodeState.DRAINING, OUTSIDE)
    await trio.sleep(1)
    first.service.learn(town.record(5))
    await trio.sleep(0.1)
    identity.record = old
    replay = MemberUpdate(MemberState(NodeId(identity.id), parse(old, NodeRecord).sequence, 0), old)
    async with town.asker(identity) as pool:
        assert isinstance(await pool.request(first.contact, Gossip([replay])), Done)
        await trio.sleep(0.1)
    assert first.machine.members[NodeId(identity.id)].record.addresses == ["node5:7420"]
    assert NodeId(identity.id) in eligible(first)
    assert dials(town, "node1", "router") == 0


def eligible(member: Member) -> list[bytes]:
    return [one.node for one in member.discovery.candidates()]
