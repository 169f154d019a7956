"""Lookups over real rpc: what is found, what liars can do, and that a cut one hurts nobody."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from lockbox_node.core.lookup import LookupParams
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.lookups import Known, Lookups
from protocol.ids import distance
from protocol.messages import FindNode, Message, Nodes, Ping, Pong, Signed
from protocol.records import NodeRecord, parse, sign
from simulations.identities import NOW_UNIX_S, FakeNetwork
from tests.rpc.world import world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from lockbox_node.errors import LockboxError
    from lockbox_node.ports import Answer
    from simulations.identities import FakeIdentity
    from tests.rpc.world import Party, World

    Says = Callable[["Swarm", FindNode], list[Signed]]

TARGET = bytes(32)
PARAMS = LookupParams(k=4, reply_max=6, candidates_max=12)
KEY = FakeNetwork().client(77).key


def record_of(identity: FakeIdentity) -> Signed:
    assert identity.record is not None
    return identity.record


def known(signed: Signed) -> Known:
    return Known(signed, parse(signed, NodeRecord))


class Swarm:
    """Nodes 1 to `count`; each knows `others` numbers ahead of it, or says what `says` lets it."""

    def __init__(self, w: World, says: dict[int, Says]) -> None:
        self.world, self._says = w, says
        self.parties: dict[int, Party] = {}
        self.asked: list[int] = []

    async def add(self, number: int) -> None:
        identity = self.world.network.node(number)

        def find(request: Message, _peer: object, answer: Answer[Message]) -> None:
            assert isinstance(request, FindNode)
            self.asked.append(number)
            says = self._says.get(number, Swarm.nearest)
            answer(Nodes(says(self, request)))

        def ping(request: Message, _peer: object, answer: Answer[Message]) -> None:
            assert isinstance(request, Ping)
            answer(Pong(request.nonce, 1))

        self.parties[number] = await self.world.node(identity, routes=[Route(FindNode, find), Route(Ping, ping)])

    def nearest(self, request: FindNode) -> list[Signed]:
        """The truth."""
        return [self.record(number) for number in self.order()][: request.count]

    def order(self) -> list[int]:
        return sorted(self.parties, key=lambda number: distance(self.parties[number].identity.id, TARGET))

    def record(self, number: int) -> Signed:
        return record_of(self.parties[number].identity)

    def lookups(self, party: Party, params: LookupParams = PARAMS) -> Lookups:
        return Lookups(party.pool, self.world.network.root, party.identity.id, lambda: NOW_UNIX_S, params)

    def numbers(self, found: list[Known]) -> list[int]:
        ids = {party.identity.id: number for number, party in self.parties.items()}
        return [ids[one.record.node] for one in found]


@asynccontextmanager
async def swarm(count: int, says: dict[int, Says] | None = None, delay_s: float = 0.0) -> AsyncIterator[Swarm]:
    async with world(delay_s=delay_s) as w:
        found = Swarm(w, says or {})
        for number in range(1, count + 1):
            await found.add(number)
        yield found


async def test_the_nearest_are_found_from_one_seed(autojump_clock: MockClock) -> None:
    async with swarm(12) as s:
        client = await s.world.client()
        lookups = s.lookups(client)
        farthest = s.order()[-1]
        found = await lookups.find(TARGET, [known(s.record(farthest))])
        assert s.numbers(found) == s.order()[:4]
        assert lookups.figures.messages == len(s.asked) == len(set(s.asked))


async def test_the_dead_are_not_returned(autojump_clock: MockClock) -> None:
    async with swarm(12) as s:
        client = await s.world.client()
        first, second, *_ = s.order()
        s.world.hub.down.add(s.parties[first].host)
        s.world.hub.silent.add(s.parties[second].host)
        found = await s.lookups(client).find(TARGET, [known(s.record(s.order()[-1]))])
        assert s.numbers(found) == s.order()[2:6]


def itself(s: Swarm, _request: FindNode) -> list[Signed]:
    return [s.record(1)] * 128


def garbage(_s: Swarm, _request: FindNode) -> list[Signed]:
    return [Signed(b"\xc1" * 64, bytes(64))] * 3


def forged(s: Swarm, _request: FindNode) -> list[Signed]:
    """The nearest node's record, sent elsewhere: its signature does not hold."""
    record = parse(s.record(s.order()[0]), NodeRecord)
    return [sign(msgspec.structs.replace(record, addresses=["elsewhere:1"], sequence=record.sequence + 1), KEY)]


def short_ids(s: Swarm, _request: FindNode) -> list[Signed]:
    good = s.record(s.order()[0])
    return [Signed(good.body[:1] + good.body[5:], good.signature)]


def too_many(s: Swarm, _request: FindNode) -> list[Signed]:
    """More than were asked for, the farthest first."""
    return [s.record(number) for number in reversed(s.order())] * 10


@pytest.mark.parametrize("says", [itself, garbage, forged, short_ids, too_many])
async def test_one_liar_changes_nothing(autojump_clock: MockClock, says: Says) -> None:
    async with swarm(10, {1: says}) as s:
        client = await s.world.client()
        honest = next(number for number in reversed(s.order()) if number != 1)
        lookups = s.lookups(client)
        found = await lookups.find(TARGET, [known(s.record(1)), known(s.record(honest))])
        believed = says in (itself, too_many)
        assert lookups.figures.forged == (0 if believed else 1)
        assert s.numbers(found) == [number for number in s.order() if believed or number != 1][:4]


async def test_expired_records_and_such_that_nobody_can_dial_are_left_out(autojump_clock: MockClock) -> None:
    def useless(s: Swarm, _request: FindNode) -> list[Signed]:
        found = []
        for number, fields in ((2, {"expires_unix_s": 5}), (3, {"addresses": ["nowhere"]})):
            identity = s.parties[number].identity
            record = msgspec.structs.replace(parse(record_of(identity), NodeRecord), **fields)
            found.append(sign(record, identity.key))
        return found

    async with swarm(3, {1: useless}) as s:
        client = await s.world.client()
        assert s.numbers(await s.lookups(client).find(TARGET, [known(s.record(1))])) == [1]


async def test_a_lookup_cut_in_the_middle_of_a_dial_hurts_no_other_waiter(autojump_clock: MockClock) -> None:
    async with swarm(1, delay_s=1.0) as s:
        client = await s.world.client()
        answers: list[Message | LockboxError] = []
        with trio.move_on_after(0.5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(s.lookups(client).find, TARGET, [known(s.record(1))])
                await trio.sleep(0.1)
                client.pool.post(s.parties[1].contact, Ping(7), answers.append)
        assert scope.cancelled_caught
        await trio.sleep(20)
        assert answers == [Pong(7, 1)]
        assert s.asked == [], "nobody waits for the answer any more, so nothing is asked"
        assert len(s.world.hub.dials) == 1


async def test_two_lookups_at_once_share_dials(autojump_clock: MockClock) -> None:
    async with swarm(8, delay_s=0.1) as s:
        client = await s.world.client()
        found: list[list[int]] = []

        async def one() -> None:
            found.append(s.numbers(await s.lookups(client).find(TARGET, [known(s.record(s.order()[-1]))])))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert found == [s.order()[:4]] * 5
        assert len(s.world.hub.dials) == len(set(s.world.hub.dials))


async def test_nobody_known_or_nobody_answering_is_nothing(autojump_clock: MockClock) -> None:
    async with swarm(1) as s:
        client = await s.world.client()
        lookups = s.lookups(client)
        assert await lookups.find(TARGET, []) == []
        s.world.hub.down.add("node1")
        assert await lookups.find(TARGET, [known(s.record(1))], again=True) == []
        assert lookups.figures.failed == 1


async def test_lookups_are_needed_when_the_table_is_incomplete_or_large(autojump_clock: MockClock) -> None:
    async with swarm(0) as s:
        lookups = s.lookups(await s.world.client(), LookupParams(members_max=100))
        assert not lookups.needed(100, True)
        assert lookups.needed(101, True)
        assert lookups.needed(3, False)
