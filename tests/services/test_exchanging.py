"""Push-pull over real rpc: page by page in both directions, what a client gets, which pages end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.member_events import Status
from lockbox_node.errors import LockboxError
from lockbox_node.services import exchanging
from protocol.messages import (
    DocumentVersion,
    Gossip,
    Members,
    MemberState,
    MemberUpdate,
    Message,
    Ping,
    Pong,
    Signed,
    SyncMembers,
)
from protocol.records import NodeRecord, parse
from tests.fakes.nodes import Member, Town

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def town() -> Town:
    return Town()


async def started(nursery: trio.Nursery, *members: Member) -> None:
    for member in members:
        await nursery.start(member.run)


def rumour(signed: Signed) -> MemberUpdate:
    record = parse(signed, NodeRecord)
    return MemberUpdate(MemberState(record.node, record.sequence, int(Status.ALIVE)), signed)


async def test_push_pull_goes_on_over_pages_and_gives_what_the_other_wants(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "PAGE", 3)
    known = [town.record(number) for number in range(20, 30)]
    first = Member(town, 1, remembered=known)
    second = Member(town, 2, [1], [town.record(40)])
    await started(nursery, first, second)
    await trio.sleep(0.1)
    assert {town.papers(number).node_id for number in range(20, 30)} <= set(second.machine.members)
    assert town.papers(40).node_id in first.machine.members


async def test_clients_get_pages_of_records_and_leave_no_trace(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "CLIENT_PAGE", 4)
    member = Member(town, 1, remembered=[town.record(number) for number in range(20, 26)])
    await started(nursery, member)
    unknown = MemberState(b"\x55" * 32, 1, int(Status.DEAD))
    seen: list[bytes] = []
    async with town.asker(town.authority.client(1)) as pool:
        connection = await pool.connection(member.contact)
        after = b""
        while True:
            reply = await connection.request(SyncMembers([unknown], after))
            assert isinstance(reply, Members)
            assert reply.wanted == []
            assert len(reply.updates) <= 4
            assert all(update.record is not None for update in reply.updates)
            seen += [update.state.node for update in reply.updates]
            if not reply.more:
                break
            after = seen[-1]
        assert isinstance(pong := await connection.request(Ping(7)), Pong)
        assert (pong.nonce, pong.incarnation) == (7, member.announcer.record.sequence)
        with pytest.raises(LockboxError):
            await connection.request(Gossip([rumour(town.record(5))]))
    assert seen == sorted([member.id, *(town.papers(number).node_id for number in range(20, 26))])
    assert unknown.node not in member.machine.members


async def test_pages_that_do_not_go_forward_end_the_exchange(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = Member(town, 1)
    asked = []

    def compare(*_: object) -> Message:
        asked.append(trio.current_time())
        return Members([rumour(town.record(5))], [], True)

    liar.machine.compare = compare  # type: ignore[method-assign,assignment]
    await started(nursery, liar, Member(town, 2, [1]))
    assert len(asked) == 2


async def test_only_the_first_page_is_asked_for_with_all_that_we_know(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "PAGE", 3)
    first = Member(town, 1, remembered=[town.record(number) for number in range(20, 40)])
    answer, asked = first.machine.compare, []

    def compare(known: list[MemberState], after: bytes = b"", limit: int = 0, groups: bytes = b"") -> Members:
        asked.append((after, [state.node for state in known]))
        return answer(known, after, limit, groups)

    first.machine.compare = compare  # type: ignore[method-assign,assignment]
    await started(nursery, first, Member(town, 2, [1], [town.record(number) for number in range(40, 50)]))
    assert len(asked) > 5
    assert asked[0][0] == b""
    assert asked[0][1]
    assert all(node > after for after, known in asked for node in known)


async def test_large_tables_are_compared_by_digests_and_only_what_differs_is_told(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "SUMMARY_FROM", 5)
    same = [town.record(number) for number in range(20, 40)]
    first = Member(town, 1, remembered=[*same, town.record(50)])
    answer, told = first.machine.compare, []

    def compare(known: list[MemberState], after: bytes = b"", limit: int = 0, groups: bytes = b"") -> Members:
        told.append({state.node for state in known})
        return answer(known, after, limit, groups)

    first.machine.compare = compare  # type: ignore[method-assign,assignment]
    second = Member(town, 2, [1], [*same, town.record(60)])
    await started(nursery, first, second)
    connection = await second.pool.connection(first.contact)
    told.clear()  # of the start, when the second knew nobody yet
    await second.service.exchanging.through(connection)
    await trio.sleep(0.1)
    both = {first.id, second.id, *(town.papers(number).node_id for number in (*range(20, 40), 50, 60))}
    assert {*first.machine.members, first.id} == both
    assert {*second.machine.members, second.id} == both
    other = {first.id[0], second.id[0], town.papers(50).node_id[0], town.papers(60).node_id[0]}
    assert told
    assert {node[0] for known in told for node in known} <= other
    assert second.service.complete
    told.clear()
    await second.service.exchanging.through(connection)
    assert told == []  # both have all: digests say so


async def test_a_summary_of_another_length_ends_the_connection(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    member = Member(town, 1)
    await started(nursery, member)
    async with town.asker(town.papers(2).identity) as pool:
        with pytest.raises(LockboxError):
            await pool.request(member.contact, SyncMembers([], b"", [], bytes(100)))
    assert member.machine.own


async def test_both_hear_which_documents_the_other_has_and_a_client_is_told_alone(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first, second = Member(town, 1), Member(town, 2, [1])
    heard: list[tuple[int, int, bytes]] = []
    for member in (first, second):

        def hear(versions: list[DocumentVersion], node: bytes, number: int = member.number) -> None:
            heard.extend((number, version.version, node) for version in versions)

        member.service.exchanging.documents = lambda n=member.number: [DocumentVersion(1, n, bytes(32))]  # type: ignore[misc]
        member.service.exchanging.on_documents = hear
    await started(nursery, first, second)
    assert heard == [(1, 2, second.id), (2, 1, first.id)]
    async with town.asker(town.authority.client(1)) as pool:
        told = await pool.request(first.contact, SyncMembers([], b"", [DocumentVersion(1, 9, bytes(32))]))
        assert isinstance(told, Members)
        assert [version.version for version in told.documents] == [1]
    assert len(heard) == 2


async def test_a_table_counts_as_complete_when_its_last_page_was_read(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "PAGE", 3)
    monkeypatch.setattr(exchanging, "PAGES_MAX", 2)
    first = Member(town, 1, remembered=[town.record(number) for number in range(20, 30)])
    second = Member(town, 2, [1])
    await started(nursery, first, second)
    assert first.service.complete
    assert not second.service.complete
    monkeypatch.setattr(exchanging, "PAGES_MAX", 9)
    await trio.sleep(60)
    assert second.service.complete
