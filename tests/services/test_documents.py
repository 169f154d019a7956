"""Documents in motion: converged over twenty nodes, by announcing and by push-pull alone; boasts and bad ones bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import LockboxError, RequestRefused
from lockbox_node.rpc.dispatch import Dispatcher, Route
from lockbox_node.rpc.pool import Pool
from lockbox_node.services import documents
from protocol.documents import Revocations, sign_document
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import (
    Documents,
    DocumentVersion,
    Done,
    GetDocuments,
    Message,
    SignedDocument,
    SyncMembers,
    TellDocuments,
)
from tests.fakes.nodes import Town
from tests.protocol import samples
from tests.services.test_enforcing import contact, policy, revoked, running

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.node import Node
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer

NODES = 20


@pytest.fixture
def town() -> Town:
    return Town()


def network_of(town: Town, count: int = NODES) -> list[Node]:
    return [town.node(number, [1] if number > 1 else []) for number in range(1, count + 1)]


async def test_every_kind_is_everywhere_within_30_s(town: Town, autojump_clock: MockClock) -> None:
    nodes = network_of(town)
    async with running(nodes):
        await trio.sleep(45)
        nodes[11].documents.take([revoked(town, 1, bytes(32)), policy(town, 4, guard="9")])
        await trio.sleep(1)
        nodes[2].documents.take([policy(town, 5, guard="8")])
        await trio.sleep(29)
        wanted = [nodes[11].documents.all()[0], nodes[2].documents.all()[1]]
        assert all(node.documents.all() == wanted for node in nodes)


async def test_push_pull_alone_brings_them_to_who_heard_no_announcement(
    town: Town, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "ANNOUNCE_AFTER_S", ())
    first, second = network_of(town, 2)
    async with running([first, second]):
        await trio.sleep(5)
        first.documents.take([revoked(town, 1)])
        assert second.documents.all() == []
        await trio.sleep(2 * first.config.membership.push_pull_interval_s)
        assert second.documents.all() == first.documents.all()


async def test_a_document_is_fetched_once_however_many_announce_it(town: Town, autojump_clock: MockClock) -> None:
    nodes = network_of(town)
    async with running(nodes):
        await trio.sleep(45)
        before = sum(node.dispatcher.served["GetDocuments"] for node in nodes)
        nodes[0].documents.take([revoked(town, 1)])
        await trio.sleep(25)
        asked = sum(node.dispatcher.served["GetDocuments"] for node in nodes) - before
        # Three announcements of each node to all, and what was fetched.
        assert asked <= len(nodes) * (len(documents.ANNOUNCE_AFTER_S) * (len(nodes) - 1) + documents.FETCHERS)
        assert all(node.documents.refused == 0 for node in nodes)


async def test_who_may_tell_and_what_is_refused(town: Town, autojump_clock: MockClock) -> None:
    node = town.node(1)
    older, newer = revoked(town, 4), revoked(town, 5)
    forged = sign_document(Revocations(9, 0, []), samples.p256("node"))
    cut = SignedDocument(newer.kind, newer.body[:-1], newer.signature)
    async with running([node]), town.asker(town.authority.operator(1)) as operator:
        assert await operator.request(contact(node), TellDocuments([newer])) == Done()
        assert await operator.request(contact(node), TellDocuments([newer])) == Done()
        for bad, code in ((older, ErrorCode.STALE), (forged, ErrorCode.PROOF_INVALID), (cut, ErrorCode.PROOF_INVALID)):
            with pytest.raises(RequestRefused) as caught:
                await operator.request(contact(node), TellDocuments([bad]))
            assert caught.value.code is code
        assert node.documents.all() == [newer]
        assert node.documents.refused == 3
        for identity in (town.authority.client(1), town.authority.guest()):
            async with town.asker(identity) as pool:
                with pytest.raises(RequestRefused) as caught:
                    await pool.request(contact(node), TellDocuments([newer]))
                assert caught.value.code is ErrorCode.ROLE_FORBIDDEN
                assert await pool.request(contact(node), GetDocuments([])) == Documents([newer])


async def test_a_bad_document_hides_no_good_one_beside_it(town: Town, autojump_clock: MockClock) -> None:
    node = town.node(1)
    async with running([node]):
        with pytest.raises(RemoteProtocolError):
            node.documents.take([SignedDocument(4, b"x", bytes(64)), revoked(town, 1)])
        assert [version.kind for version in node.documents.versions()] == [1]


class Boaster:
    """A node that says that it has what nobody ever signed."""

    def __init__(self) -> None:
        self.asked = 0

    def on_get(self, _request: Message, _peer: Peer, answer: Answer[Message]) -> None:
        self.asked += 1
        answer(Documents([SignedDocument(1, b"\x93\x09\x00\x90", bytes(64))]))


async def test_who_boasts_in_vain_is_not_asked_again_for_a_while(town: Town, autojump_clock: MockClock) -> None:
    node, boaster, identity = town.node(1), Boaster(), town.authority.node(9)
    dispatcher = Dispatcher()
    dispatcher.add(Route(GetDocuments, boaster.on_get))
    boast = [DocumentVersion(1, 2**63 - 1, bytes(32))]
    pool = Pool(town.hub.network("asker", identity.leaf), identity, dispatcher)
    async with running([node]), trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        for _ in range(50):
            await pool.request(contact(node), SyncMembers([], b"", boast))
            await pool.request(contact(node), GetDocuments(boast))
        await trio.sleep(1)
        assert 1 <= boaster.asked <= documents.FETCHERS
        before = boaster.asked
        await trio.sleep(documents.VAIN_S)
        await pool.request(contact(node), GetDocuments(boast))
        await trio.sleep(1)
        assert boaster.asked == before + 1
        assert node.documents.all() == []
        nursery.cancel_scope.cancel()


async def test_offers_above_their_number_are_dropped(town: Town, autojump_clock: MockClock) -> None:
    node = town.node(1)
    for number in range(2 * documents.OFFERS_MAX):
        node.documents.heard([DocumentVersion(1, 1, bytes(32))], town.papers(number % 3 + 5).node_id)
    assert node.documents._offers.statistics().current_buffer_used == documents.OFFERS_MAX


async def test_catching_up_leaves_no_back_off_behind(town: Town, autojump_clock: MockClock) -> None:
    late = town.node(2, [1])
    async with trio.open_nursery() as nursery:
        await nursery.start(late.pool.run)
        await late.documents.catch_up([("node1", 7420)], [])
        first = town.node(1)
        await nursery.start(first.run)
        try:
            await late.pool.connect_address("node1", 7420)
        except LockboxError as error:
            pytest.fail(f"it waits for its own failure: {error}")
        first.stop.set()
        nursery.cancel_scope.cancel()
