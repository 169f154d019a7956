"""Dialling newcomers back: what proves them, what is said to whom, and how little a flood of them makes us dial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.dial_backs import DialBackParams
from lockbox_node.rpc.pool import Contact, PoolParams
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from tests.rpc.world import Party, world

if TYPE_CHECKING:
    import random

    from trio.testing import MockClock

LIMITS = DialBackParams()
Verdicts = list[LockboxError | None]


def ask(asker: Party, contact: Contact, verdicts: Verdicts, leaf: bytes = b"") -> None:
    asker.pool.dial_backs.ask(contact, lambda shown: shown == leaf, verdicts.append)


async def test_whoever_shows_the_key_at_the_address_is_reached_and_let_go(autojump_clock: MockClock) -> None:
    async with world() as w:
        seed, newcomer = await w.node(), await w.node()
        verdicts: Verdicts = []
        ask(seed, newcomer.contact, verdicts, newcomer.identity.leaf())
        await trio.sleep(0.1)
        assert verdicts == [None]
        assert w.hub.dials == [("node1", "node2")]
        assert all(end.closed for ends in w.hub.streams for end in ends)
        assert seed.pool.figures().open == newcomer.pool.figures().open == 0
        assert seed.pool.dial_backs.counts == {"reached": 1}


async def test_another_key_at_the_address_reaches_nobody(autojump_clock: MockClock) -> None:
    async with world() as w:
        seed, other = await w.node(), await w.node()
        verdicts: Verdicts = []
        ask(seed, Contact(NodeId(b"n" * 32), other.contact.addresses), verdicts, b"another leaf")
        await trio.sleep(0.1)
        (error,) = verdicts
        assert isinstance(error, PeerUnreachable)
        assert error.message == "nobody answers at node2:7420 with this node's key"
        assert "node.advertise" in error.hint
        assert all(end.closed for ends in w.hub.streams for end in ends)


async def test_any_of_the_addresses_is_enough(autojump_clock: MockClock) -> None:
    async with world() as w:
        seed, newcomer = await w.node(), await w.node()
        w.hub.silent.add("hangs")
        verdicts: Verdicts = []
        contact = Contact(newcomer.contact.node, ("nobody:1", "hangs:7420", "node2:7420"))
        ask(seed, contact, verdicts, newcomer.identity.leaf())
        await trio.sleep(LIMITS.timeout_s)
        assert verdicts == [None]


async def test_silent_addresses_are_given_up_in_time(autojump_clock: MockClock) -> None:
    async with world() as w:
        seed = await w.node()
        w.hub.silent |= {"one", "two"}
        verdicts: Verdicts = []
        ask(seed, Contact(NodeId(b"n" * 32), ("one:1", "two:2")), verdicts)
        await trio.sleep(LIMITS.timeout_s + 0.1)
        assert [type(verdict) for verdict in verdicts] == [PeerUnreachable]


async def test_who_was_not_found_is_left_alone_for_a_while(autojump_clock: MockClock) -> None:
    async with world() as w:
        seed = await w.node()
        contact = Contact(NodeId(b"n" * 32), ("nobody:1",))
        verdicts: Verdicts = []
        for _ in range(5):
            ask(seed, contact, verdicts)
            await trio.sleep(0.1)
        assert len(verdicts) == 5
        assert len(w.hub.dials) == 1
        assert not seed.pool.dial_backs.idle(contact.node)
        await trio.sleep(LIMITS.pause_s)
        assert seed.pool.dial_backs.idle(contact.node)
        ask(seed, contact, verdicts)
        await trio.sleep(0.1)
        assert len(w.hub.dials) == 2


async def test_one_dial_back_of_a_node_runs_at_a_time_and_all_share_it(autojump_clock: MockClock) -> None:
    async with world(delay_s=1.0) as w:
        seed, newcomer = await w.node(), await w.node()
        verdicts: Verdicts = []
        for _ in range(LIMITS.waiting_max):
            ask(seed, newcomer.contact, verdicts, newcomer.identity.leaf())
        await trio.sleep(0.1)
        assert not verdicts
        ask(seed, newcomer.contact, verdicts)
        ask(seed, Contact(newcomer.contact.node, ("elsewhere:1",)), verdicts)
        assert [verdict.code for verdict in verdicts if verdict is not None] == [ErrorCode.BUSY] * 2
        await trio.sleep(2)
        assert verdicts[2:] == [None] * LIMITS.waiting_max
        assert len(w.hub.dials) == 1


async def test_a_flood_of_newcomers_makes_us_dial_no_more_than_the_bucket_gives(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with world() as w:
        seed = await w.node()
        verdicts: Verdicts = []
        asked, began = 0, trio.current_time()
        for _ in range(100):
            for _ in range(50):
                ask(seed, Contact(NodeId(rng.randbytes(32)), ("victim:1",)), verdicts)
                asked += 1
            await trio.sleep(0.1)
        allowed = LIMITS.burst + LIMITS.rate * (trio.current_time() - began)
        assert 0.9 * allowed < len(w.hub.dials) <= allowed
        assert len(verdicts) == asked
        counts = seed.pool.dial_backs.counts
        assert counts["busy"] + counts["unreachable"] == asked


async def test_only_so_many_run_at_a_time(autojump_clock: MockClock, rng: random.Random) -> None:
    async with world() as w:
        seed = await w.node()
        w.hub.silent.add("silent")
        verdicts: Verdicts = []
        for _ in range(LIMITS.in_flight_max + 5):
            ask(seed, Contact(NodeId(rng.randbytes(32)), ("silent:1",)), verdicts)
        assert len(verdicts) == 5
        await trio.sleep(0.1)
        assert len(w.hub.dials) == LIMITS.in_flight_max


async def test_they_leave_half_of_the_dials_to_the_pool() -> None:
    assert LIMITS.rate <= PoolParams().dial_rate / 2
    assert LIMITS.burst <= PoolParams().dial_burst / 2


@pytest.mark.parametrize("before", [True, False])
async def test_who_waits_hears_when_the_pool_stops(before: bool, autojump_clock: MockClock) -> None:
    async with world(delay_s=1.0) as w:
        seed, newcomer = await w.node(), await w.node()
        verdicts: Verdicts = []
        if before:
            ask(seed, newcomer.contact, verdicts)
            await trio.sleep(0.1)
        seed.scope.cancel()
        await trio.sleep(0.1)
        if not before:
            ask(seed, newcomer.contact, verdicts)
        assert [type(verdict) for verdict in verdicts] == [PeerUnreachable]
