"""What documents do in whole nodes over a memory network: cut off, dead, healed around, governed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node.config import Config
from lockbox_node.core.admission import Downgrade
from lockbox_node.core.documents import NO_RULES, Rules
from lockbox_node.core.member_events import Status
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.core.tiers import ELITE, TIERS
from lockbox_node.errors import RequestRefused
from lockbox_node.rpc.frames import Frames
from lockbox_node.rpc.hello import hello_out
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.documents import CATCH_UP_S, ENDS_EVERY_S
from lockbox_node.services.joining import JOIN_TIMEOUT_S
from protocol.codec import encode_call
from protocol.documents import Policy, Release, Releases, Revocation, Revocations, Setting, sign_document
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import FindNode, GetDocuments, Nodes, Ping, Pong, SignedDocument
from simulations.streams import stream_pair
from tests.fakes.nodes import SOFTWARE, Town

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trio.testing import MockClock

    from lockbox_node.node import Node
    from simulations.streams import MemoryStream


@pytest.fixture
def town() -> Town:
    return Town()


def revoked(town: Town, version: int, *ids: bytes) -> SignedDocument:
    entries = [Revocation(one, 0, "test") for one in sorted(ids)]
    return sign_document(Revocations(version, 0, entries), town.root_key)


def released(town: Town, version: int, *software: bytes, until_unix_s: int = 0) -> SignedDocument:
    entries = [Release(one, "test", until_unix_s) for one in sorted(software)]
    return sign_document(Releases(version, 0, entries), town.root_key)


def policy(town: Town, version: int, **settings: str) -> SignedDocument:
    entries = [Setting(key.replace("_", "-"), value) for key, value in sorted(settings.items())]
    return sign_document(Policy(version, 0, entries), town.root_key)


@asynccontextmanager
async def running(nodes: Sequence[Node]) -> AsyncIterator[None]:
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                await nursery.start(node.run)
            yield
            for node in nodes:
                node.stop.set()


def contact(node: Node) -> Contact:
    return Contact(node.announcer.id, tuple(node.announcer.record.addresses))


async def test_a_revoked_node_is_cut_off_everywhere_within_10_s_and_counts_as_dead(
    town: Town, autojump_clock: MockClock
) -> None:
    nodes = [town.node(number, [1] if number > 1 else []) for number in range(1, 21)]
    async with running(nodes):
        await trio.sleep(60)
        out = nodes[7]
        others = [node for node in nodes if node is not out]
        assert any(node.pool.ready(out.announcer.id) for node in others)
        nodes[3].documents.take([revoked(town, 1, out.announcer.id)])
        await trio.sleep(10)
        for node in others:
            assert node.documents.rules.revoked == {out.announcer.id: "test"}
            assert node.pool.ready(out.announcer.id) is None
            assert node.machine.members[out.announcer.id].status is Status.DEAD
            assert out.announcer.id not in {one.node for one in node.discovery.candidates()}
            with pytest.raises(RequestRefused) as caught:
                await out.pool.request(contact(node), Ping(1))
            assert caught.value.code is ErrorCode.REVOKED
        await trio.sleep(600)
        assert out.documents.revoked_here
        assert all(out.announcer.id not in node.machine.alive() for node in others), "whatever it signs"
        assert all(set(node.machine.alive()) < set(nodes[3].discovery.alive()) for node in others)


async def test_a_list_without_a_node_lets_it_in_again(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running([first, second]):
        await trio.sleep(5)
        first.documents.take([revoked(town, 1, second.announcer.id)])
        await trio.sleep(5)
        assert not first.machine.alive()
        first.documents.take([revoked(town, 2)])
        await trio.sleep(60)
        assert first.machine.alive() == [second.announcer.id]


async def test_a_node_that_is_let_in_again_no_longer_says_that_it_is_out(town: Town, autojump_clock: MockClock) -> None:
    nodes = [town.node(number, [1, 2, 3] if number > 3 else [1, 2, 3][: number - 1]) for number in range(1, 6)]
    out = nodes[4]
    async with running(nodes):
        await trio.sleep(30)
        nodes[0].documents.take([revoked(town, 1, out.announcer.id)])
        await trio.sleep(120)
        assert out.documents.revoked_here
        nodes[0].documents.take([revoked(town, 2)])
        await trio.sleep(120)
        assert len(out.machine.alive()) == 4
        assert not out.documents.revoked_here


async def test_a_revoked_client_loses_its_connections_and_is_told_why(town: Town, autojump_clock: MockClock) -> None:
    node, client, other = town.node(1), town.authority.client(1), town.authority.client(2)
    async with running([node]), town.asker(client) as pool, town.asker(other) as staying:
        assert isinstance(await pool.request(contact(node), Ping(1)), Pong)
        assert isinstance(await staying.request(contact(node), Ping(1)), Pong)
        assert node.server.visitors == 2
        node.documents.take([revoked(town, 1, client.id)])
        await trio.sleep(0.1)
        assert node.server.visitors == 1
        with pytest.raises(RequestRefused) as caught:
            await pool.request(contact(node), Ping(2))
        assert caught.value.code is ErrorCode.REVOKED
        assert isinstance(await staying.request(contact(node), Ping(2)), Pong)


@dataclass
class Interrupted:
    """A stream on which something happens while the server's Hello goes out."""

    stream: MemoryStream
    meanwhile: Callable[[], None]

    def __post_init__(self) -> None:
        self.peer_leaf, self.peer_host = self.stream.peer_leaf, self.stream.peer_host

    async def receive_into(self, buffer: memoryview) -> int:
        return await self.stream.receive_into(buffer)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.meanwhile()
        await self.stream.send_all(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_who_is_revoked_while_our_hello_goes_out_is_not_let_in(town: Town, autojump_clock: MockClock) -> None:
    node, client = town.node(1), town.authority.client(1)
    near, far = stream_pair(town.papers(1).leaf(), client.leaf())
    await far.send_all(encode_call(0, client.hello()))
    with trio.fail_after(10):
        await node.server._welcome(Interrupted(near, lambda: node.documents.take([revoked(town, 1, client.id)])))
    assert node.server.turned_away == {"REVOKED": 1}


async def test_who_is_revoked_while_we_wait_for_its_hello_is_not_taken(town: Town, autojump_clock: MockClock) -> None:
    node, client = town.node(1), town.authority.client(1)
    near, far = stream_pair(node.announcer.record.chain[0], client.leaf())
    known = [NO_RULES]

    def learn() -> None:
        known[0] = Rules(revoked={node.announcer.id: "test"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.server._welcome, Interrupted(near, learn))
        with pytest.raises(RemoteProtocolError) as caught:
            await hello_out(Frames(far), client, lambda: known[0])
        await far.aclose()
    assert caught.value.code is ErrorCode.REVOKED


async def test_refused_software_gets_no_new_shards(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running([first, second]):
        await trio.sleep(5)
        assert len(first.discovery.candidates()) == 2
        first.documents.take([released(town, 1, b"x" * 32)])
        await trio.sleep(5)
        assert first.discovery.candidates() == second.discovery.candidates() == []
        first.documents.take([released(town, 2, SOFTWARE)])
        assert len(first.discovery.candidates()) == 2


async def test_refused_software_only_reads_and_released_software_is_whole_again(
    town: Town, autojump_clock: MockClock
) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running([first, second]):
        await trio.sleep(5)
        first.documents.take([released(town, 1, b"x" * 32)])
        await trio.sleep(10)
        for one, other in ((first, second), (second, first)):
            connection = await one.pool.connection(contact(other))
            assert connection.peer.reads_only is Downgrade.SOFTWARE
            assert isinstance(await connection.request(FindNode(bytes(32), 3)), Nodes)
        assert first.machine.alive() == [second.announcer.id], "who may only read still counts"
        first.documents.take([released(town, 2, b"x" * 32, SOFTWARE)])
        await trio.sleep(10)
        connection = await first.pool.connection(contact(second))
        assert connection.peer.reads_only is Downgrade.NONE


async def test_a_release_that_ends_while_connections_stand_lets_them_only_read_within_the_named_time(
    town: Town, autojump_clock: MockClock
) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running([first, second]):
        await trio.sleep(5)
        ends_unix_s = int(town.clock.now_unix_s()) + 100
        first.documents.take([released(town, 1, SOFTWARE, until_unix_s=ends_unix_s)])
        await trio.sleep(5)
        standing = await first.pool.connection(contact(second))
        other_way = await second.pool.connection(contact(first))
        await trio.sleep(ends_unix_s - 1 - town.clock.now_unix_s())
        assert not standing.closed
        assert not other_way.closed
        await trio.sleep(1 + ENDS_EVERY_S)
        for one, other in ((first, second), (second, first)):
            assert one.pool.ready(other.announcer.id) not in (standing, other_way)
            connection = await one.pool.connection(contact(other))
            assert connection.peer.reads_only is Downgrade.SOFTWARE
        read_only = await first.pool.connection(contact(second))
        await trio.sleep(10 * ENDS_EVERY_S)
        assert await first.pool.connection(contact(second)) is read_only, "who was judged by today's rules stays"


async def test_documents_that_end_nothing_cut_nobody_as_time_goes_by(town: Town, autojump_clock: MockClock) -> None:
    first, second = town.node(1), town.node(2, [1])
    async with running([first, second]):
        await trio.sleep(5)
        first.documents.take([released(town, 1, SOFTWARE)])
        await trio.sleep(5)
        standing = await first.pool.connection(contact(second))
        await trio.sleep(10 * ENDS_EVERY_S)
        assert await first.pool.connection(contact(second)) is standing


async def test_a_policy_is_in_force_until_another_is_and_the_configuration_holds_where_it_is_silent(
    town: Town, autojump_clock: MockClock
) -> None:
    base = replace(Config(), repair=RepairParams(hold_off_s=9.0), guard=GuardParams(quiet_s=8.0))
    first, second = town.node(1, base=base), town.node(2, [1], base=base)
    async with running([first, second]):
        await trio.sleep(5)
        first.documents.take(
            [
                policy(
                    town,
                    1,
                    healing="off",
                    hold_off="2",
                    guard="1",
                    audit="60",
                    tiers="elite",
                    colour="red",
                    client_requests="7",
                )
            ]
        )
        await trio.sleep(5)
        for node in (first, second):
            assert node.dispatcher.allowances._requests == 7.0
            assert not node.healing.active
            assert (node.healing.params.hold_off_s, node.guard._params.quiet_s) == (2.0, 1.0)
            assert node.rounds.params.period_s == 60.0
            assert node.storage.governed.tiers == (ELITE,)
        second.documents.take([policy(town, 2, guard="1")])
        await trio.sleep(5)
        for node in (first, second):
            assert node.healing.active
            assert (node.healing.params.hold_off_s, node.guard._params.quiet_s) == (9.0, 1.0)
            assert node.rounds.params == Config().audit
            assert node.storage.governed.tiers == TIERS
            assert node.dispatcher.allowances._requests is None


class Listeners(dict[tuple[str, int], Any]):
    """The listeners of a hub; what each node's documents were when it began to listen."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self.seen: dict[str, int] = {}

    def __setitem__(self, key: tuple[str, int], value: Any) -> None:  # noqa: ANN401  # a hub's own
        self.seen[key[0]] = len(self.nodes[key[0]].documents.versions())
        super().__setitem__(key, value)


async def test_a_node_learns_what_was_said_while_it_was_away_before_it_serves(
    town: Town, autojump_clock: MockClock
) -> None:
    first, away = town.node(1), town.node(2, [1])
    known_by_cache = town.node(3, remembered=[town.record(1)])
    town.hub.listeners = Listeners({"node1": first, "node2": away, "node3": known_by_cache})
    async with running([first]):
        first.documents.take([revoked(town, 3, town.authority.client(1).id)])
        async with running([away, known_by_cache]):
            assert town.hub.listeners.seen == {"node1": 0, "node2": 1, "node3": 1}


async def test_whom_a_node_asks_what_was_said_is_not_served_before_it_knows(
    town: Town, autojump_clock: MockClock
) -> None:
    first, away = town.node(1), town.node(2, [1, 8, 9])
    town.hub.silent.update({"node8", "node9"})
    async with running([first]), trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, away.run)
        await trio.sleep(CATCH_UP_S / 2)
        assert first.pool.ready(away.announcer.id) is not None
        with pytest.raises(RequestRefused) as caught:
            await first.pool.request(contact(away), Ping(1))
        assert caught.value.code is ErrorCode.BUSY
        await trio.sleep(CATCH_UP_S + JOIN_TIMEOUT_S)
        assert isinstance(await first.pool.request(contact(away), Ping(1)), Pong)
        away.stop.set()


async def test_nobody_to_learn_from_keeps_no_node_from_serving(town: Town, autojump_clock: MockClock) -> None:
    town.hub.silent.add("node8")
    node = town.node(1, [8, 9])
    async with running([node]):
        assert trio.current_time() <= CATCH_UP_S + JOIN_TIMEOUT_S


async def test_what_was_kept_holds_without_anybody_to_ask(town: Town, autojump_clock: MockClock) -> None:
    client = town.authority.client(1)
    kept = [revoked(town, 3, client.id), SignedDocument(1, b"\x93\x04\x00\x90", bytes(64))]
    node = town.node(1, documents=kept)
    async with running([node]), town.asker(client) as pool, town.asker(town.authority.guest()) as guests:
        with pytest.raises(RequestRefused) as caught:
            await pool.request(contact(node), Ping(1))
        assert caught.value.code is ErrorCode.REVOKED
        found = await guests.request(contact(node), GetDocuments([]))
        assert found.documents == kept[:1]  # type: ignore[attr-defined]
