"""Hello: who is told why it may not in."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.errors import LockboxError, PeerUnreachable, RequestRefused
from protocol.codec import decode_envelope, decode_reply, encode_call
from protocol.errors import ErrorCode
from protocol.messages import (
    Hello,
    Ping,
    Refusal,
    Signed,
)
from simulations.identities import NOW_UNIX_S, FakeNetwork
from tests.rpc.world import CLIENT, Party, World, read_all, speak, world

if TYPE_CHECKING:
    from trio.testing import MockClock

    from simulations.identities import FakeIdentity


PING = Ping(7)


async def hello_refused(w: World, identity: FakeIdentity) -> ErrorCode:
    node, client = await w.node(), await w.client(identity)
    with pytest.raises(RequestRefused) as caught:
        await client.pool.connection(node.contact)
    await trio.testing.wait_all_tasks_blocked()
    assert node.server is not None
    assert node.server.turned_away == {caught.value.code.value: 1}
    assert node.server.visitors == 0
    return caught.value.code


async def test_a_stranger_is_told_that_it_is_no_member() -> None:
    async with world() as w:
        stranger = dataclasses.replace(FakeNetwork(2).client(1), root=w.network.root)
        assert await hello_refused(w, stranger) is ErrorCode.NOT_A_MEMBER


async def test_a_peer_of_another_network_is_told_so() -> None:
    async with world() as w:
        lost = dataclasses.replace(w.network.client(1), network=b"n" * 32)
        assert await hello_refused(w, lost) is ErrorCode.NOT_A_MEMBER


async def test_a_peer_without_a_common_version_is_told_so() -> None:
    async with world() as w:
        assert await hello_refused(w, dataclasses.replace(w.network.client(1), versions=[7])) is ErrorCode.UNSUPPORTED


async def test_a_stolen_chain_is_refused() -> None:
    async with world() as w:
        thief = w.network.client(1)
        thief.leaf = w.network.client(2).leaf  # type: ignore[method-assign]
        assert await hello_refused(w, thief) is ErrorCode.NOT_A_MEMBER


async def test_the_dialler_judges_too() -> None:
    async with world() as w:
        await w.node(dataclasses.replace(w.network.node(1), network=b"n" * 32))
        client = await w.client()
        with pytest.raises(LockboxError) as caught:
            await client.pool.connect_address("node1", 7420)
        assert caught.value.code is ErrorCode.NOT_A_MEMBER


async def test_both_sides_know_how_far_the_others_clock_leads_trios_clock(autojump_clock: MockClock) -> None:
    async with world() as w:
        await trio.sleep(1000)
        ahead = dataclasses.replace(w.network.node(2), now_unix_s=NOW_UNIX_S + 40)
        node, other = await w.node(), await w.node(ahead)
        dialled = await other.pool.connection(node.contact)
        await trio.testing.wait_all_tasks_blocked()
        (accepted,) = node.pool.connections()
        assert dialled.peer.clock_lead_s == NOW_UNIX_S - 1000
        assert accepted.peer.clock_lead_s == NOW_UNIX_S + 40 - 1000


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (encode_call(0, PING), "PROOF_INVALID"),
        (encode_call(1, CLIENT.hello()), "PROOF_INVALID"),
        (b"\xff\xff\xff\xff", "TOO_LARGE"),
        (b"GET / HTTP/1.1\r\n\r\n", "TOO_LARGE"),
        (b"\x00\x00\x00\x01\xc1", "PROOF_INVALID"),
    ],
)
async def test_a_peer_that_does_not_begin_with_hello_is_refused(
    first: bytes, code: str, autojump_clock: MockClock
) -> None:
    async with world() as w:
        stream, _ = await speak(w, first)
        answer = decode_reply(decode_envelope((await read_all(stream))[4:]), Hello)
        assert isinstance(answer, Refusal)
        assert answer.code == code


async def test_calls_right_behind_a_hello_are_served(autojump_clock: MockClock) -> None:
    async with world() as w:
        hello = encode_call(0, CLIENT.hello())
        stream, node = await speak(w, hello + encode_call(1, PING) + encode_call(2, PING)[:5])
        await stream.send_all(encode_call(2, PING)[5:])
        await trio.testing.wait_all_tasks_blocked()
        assert node.pinged_by == [CLIENT.id] * 2


async def test_two_of_one_id_show_each_other_their_records() -> None:
    async with world() as w:
        one, two = await w.node(), await w.node(w.network.node(1, address="elsewhere:7420"))
        met: list[tuple[Party, Signed, bytes]] = []
        for party in (one, two):
            party.pool.on_same = partial(_note, met, party)
        with pytest.raises(PeerUnreachable, match="itself") as caught:
            await two.pool.connect_address("node1", 7420)
        assert caught.value.code is ErrorCode.CONFLICT
        assert met == [
            (one, two.identity.record, two.identity.leaf()),
            (two, one.identity.record, one.identity.leaf()),
        ]


def _note(met: list[tuple[Party, Signed, bytes]], party: Party, record: Signed, leaf: bytes) -> None:
    met.append((party, record, leaf))
