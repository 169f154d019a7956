"""Roles, rates, downgrades and handlers: what becomes of a request."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.core.admission import AdmissionParams
from lockbox_node.core.policy import Governed
from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused, StoreFull
from lockbox_node.rpc.connection import ConnectionParams
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.server import ServerParams
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import (
    Done,
    GetSlot,
    Gossip,
    Message,
    Ping,
    Pong,
    PutStripe,
    Signed,
    Slots,
    Stored,
)
from simulations.identities import NOW_UNIX_S
from tests.rpc.world import Party, world

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer


PING = Ping(7)
PUT = PutStripe(Signed(b"x", bytes(64)), [b"slot"], 0, [], [])
GET = GetSlot(b"a" * 32, None)


def put(_request: PutStripe, _peer: Peer, answer: Answer[Message]) -> None:
    answer(Stored([]))


def get(_request: GetSlot, _peer: Peer, answer: Answer[Message]) -> None:
    answer(Slots([], None))


STORING = [Route(PutStripe, put), Route(GetSlot, get)]


async def refused(asking: Party, asked: Party, request: Message) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await asking.pool.request(asked.contact, request)
    return caught.value


async def test_roles_are_held_to_the_table() -> None:
    async with world() as w:
        node = await w.node(routes=STORING)
        guest, client = await w.client(w.network.guest()), await w.client(w.network.client(1))
        assert (await refused(guest, node, PUT)).code is ErrorCode.ROLE_FORBIDDEN
        assert (await refused(client, node, Gossip([]))).code is ErrorCode.ROLE_FORBIDDEN
        assert await guest.pool.request(node.contact, GET) == Slots([], None)
        assert await client.pool.request(node.contact, PUT) == Stored([])


async def test_hello_is_said_once() -> None:
    async with world() as w:
        node, client = await w.node(), await w.client()
        assert (await refused(client, node, client.identity.hello())).code is ErrorCode.UNSUPPORTED


async def test_a_request_without_a_route_is_unsupported() -> None:
    async with world() as w:
        node, client = await w.node(), await w.client()
        assert (await refused(client, node, GET)).code is ErrorCode.UNSUPPORTED


async def test_an_expired_client_reads_and_does_not_write() -> None:
    async with world() as w:
        now = NOW_UNIX_S + 2 * 24 * 3600
        node = await w.node(dataclasses.replace(w.network.node(1), now_unix_s=now), routes=STORING)
        client = await w.client(dataclasses.replace(w.network.client(1, days=1), now_unix_s=now))
        assert await client.pool.request(node.contact, GET) == Slots([], None)
        error = await refused(client, node, PUT)
        assert error.code is ErrorCode.NOT_A_MEMBER
        assert "renew" in error.hint


async def test_a_node_whose_clock_is_off_hands_over_and_does_not_gossip() -> None:
    async with world() as w:
        node = await w.node(routes=[*STORING, Route(Gossip, lambda _r, _p, answer: answer(Done()))])
        late = await w.node(dataclasses.replace(w.network.node(2), now_unix_s=NOW_UNIX_S - 400))
        assert await late.pool.request(node.contact, PUT) == Stored([])
        assert (await refused(late, node, Gossip([]))).code is ErrorCode.CLOCK_SKEW


async def test_too_many_requests_are_refused_with_a_time(autojump_clock: MockClock) -> None:
    async with world() as w:
        node = await w.node(admission=AdmissionParams(client_rate=2.0, client_burst=3.0))
        client = await w.client()
        for _ in range(3):
            await client.pool.request(node.contact, PING)
        error = await refused(client, node, PING)
        assert (error.code, error.retryable, error.retry_after_s) == (ErrorCode.RATE_LIMITED, True, 0.5)
        client.pool.release(node.identity.id)
        assert (await refused(client, node, PING)).code is ErrorCode.RATE_LIMITED  # a new connection does not help
        await trio.sleep(0.5)
        assert await client.pool.request(node.contact, PING) == Pong(7, 1)


async def test_a_policy_bounds_requests_and_bytes_of_who_is_connected_at_once(autojump_clock: MockClock) -> None:
    async with world() as w:
        node, client, sibling = await w.node(routes=STORING), await w.client(), await w.node()
        assert node.server is not None
        await client.pool.request(node.contact, GET)
        allowances = node.dispatcher.allowances
        allowances.obey(Governed().under("client-requests", "1"), trio.current_time())
        for _ in range(2):
            await client.pool.request(node.contact, GET)
        error = await refused(client, node, GET)
        assert (error.code, error.retry_after_s) == (ErrorCode.RATE_LIMITED, 1.0)
        allowances.obey(Governed().under("client-bytes", "1024"), trio.current_time())
        large = PutStripe(Signed(b"x" * 16_384, bytes(64)), [b"slot"], 0, [], [])
        await client.pool.request(node.contact, large)  # what has come is served; then it is made up for
        error = await refused(client, node, GET)
        assert error.code is ErrorCode.RATE_LIMITED
        assert 13 < error.retry_after_s < 15
        for _ in range(9):
            await sibling.pool.request(node.contact, large)
        await trio.sleep(error.retry_after_s)
        assert await client.pool.request(node.contact, GET) == Slots([], None)


@pytest.mark.parametrize("late", [False, True])
async def test_errors_of_a_handler_become_refusals_and_the_connection_stays(late: bool) -> None:
    errors: list[LockboxError | RemoteProtocolError] = [
        StoreFull("no room", "ask another"),
        RemoteProtocolError("a bad signature", ErrorCode.PROOF_INVALID),
    ]

    def fails(request: Ping, _peer: Peer, answer: Answer[Message]) -> None:
        error = errors[request.nonce]
        if not late:
            raise error
        answer(error if isinstance(error, LockboxError) else LockboxError(str(error), code=error.code))

    async with world() as w:
        node, client = await w.node(routes=[Route(Ping, fails)]), await w.client()
        full, bad = await refused(client, node, Ping(0)), await refused(client, node, Ping(1))
        assert (full.code, full.hint) == (ErrorCode.STORE_FULL, "ask another")
        assert (bad.code, bad.message) == (ErrorCode.PROOF_INVALID, "a bad signature")
        assert len(w.hub.dials) == 1
        assert node.dispatcher.refused == {("Ping", "STORE_FULL"): 1, ("Ping", "PROOF_INVALID"): 1}


async def test_a_defect_in_a_handler_closes_that_peer_only() -> None:
    def fails(request: Ping, _peer: Peer, answer: Answer[Message]) -> None:
        if request.nonce == 13:
            raise ZeroDivisionError
        answer(Pong(request.nonce, 1))

    async with world() as w:
        node = await w.node(routes=[Route(Ping, fails)])
        one, two = await w.client(w.network.client(1)), await w.client(w.network.client(2))
        assert await two.pool.request(node.contact, PING) == Pong(7, 1)
        with pytest.raises(PeerUnreachable):
            await one.pool.request(node.contact, Ping(13))
        assert await two.pool.request(node.contact, PING) == Pong(7, 1)
        assert node.dispatcher.served == {"Ping": 2}


async def test_a_handler_that_answers_wrongly_closes_that_peer_only() -> None:
    def fails(_request: Ping, _peer: Peer, answer: Answer[Message]) -> None:
        answer(Stored([]))

    async with world() as w:
        node, client = await w.node(routes=[Route(Ping, fails)]), await w.client()
        with pytest.raises(PeerUnreachable):
            await client.pool.request(node.contact, PING)
        assert node.server is not None
        assert node.server.visitors == 0


async def test_an_answer_after_the_peer_has_gone_is_dropped() -> None:
    held: list[Answer[Message]] = []

    def hold(_request: Ping, _peer: Peer, answer: Answer[Message]) -> None:
        held.append(answer)

    async with world() as w:
        node, client = await w.node(routes=[Route(Ping, hold)]), await w.client()
        client.pool.post(node.contact, PING, lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        client.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        held[0](Pong(7, 1))


async def test_a_handler_with_a_task_answers_or_refuses_and_is_bounded(autojump_clock: MockClock) -> None:
    async def slow(request: Ping, _peer: Peer) -> Pong:
        await trio.sleep(1)
        if request.nonce == 1:
            raise StoreFull("no room")
        return Pong(request.nonce, 1)

    async with world() as w:
        params = ServerParams(connection=ConnectionParams(tasks_max=2))
        node, client = await w.node(routes=[Route(Ping, slow)], server_params=params), await w.client()
        answers: list[Message | LockboxError] = []
        await client.pool.connection(node.contact)
        for nonce in range(3):
            client.pool.post(node.contact, Ping(nonce), answers.append)
        await trio.sleep(2)
        codes = [answer.code if isinstance(answer, LockboxError) else answer for answer in answers]
        assert codes[0] is ErrorCode.BUSY
        assert set(codes[1:]) == {Pong(0, 1), ErrorCode.STORE_FULL}
        assert await client.pool.request(node.contact, Ping(5)) == Pong(5, 1)


async def test_a_defect_in_a_task_closes_that_peer_only(autojump_clock: MockClock) -> None:
    async def fails(_request: Ping, _peer: Peer) -> Pong:
        await trio.sleep(1)
        raise ZeroDivisionError

    async with world() as w:
        node, client = await w.node(routes=[Route(Ping, fails)]), await w.client()
        with pytest.raises(PeerUnreachable):
            await client.pool.request(node.contact, PING)
        assert (await w.client(w.network.client(2))).pool.connections() == []
        assert node.server is not None
        assert node.server.visitors == 0
