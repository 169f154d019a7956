"""A member as it goes over the wire."""

from __future__ import annotations

from dataclasses import replace

from lockbox_node.core.member_events import Member, Status
from protocol.messages import MemberState, MemberUpdate
from tests.fakes.swarm import node_id, record_of, signed_of


def test_good_news_carries_the_record_and_bad_news_does_not() -> None:
    record = record_of(node_id(2), 7)
    member = Member(signed_of(record), record, Status.ALIVE, 0.0)
    assert member.update() == MemberUpdate(MemberState(node_id(2), 7, 0), member.signed)
    for status in (Status.SUSPECT, Status.DEAD):
        assert replace(member, status=status).update() == MemberUpdate(MemberState(node_id(2), 7, int(status)), None)


def test_precedence_is_the_order_of_the_numbers() -> None:
    assert Status.ALIVE < Status.SUSPECT < Status.DEAD
