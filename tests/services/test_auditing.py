"""One verifier: for whom it looks, what it states of each kind of holder, and that it never contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.contradictions import contradictions
from lockbox_node.core.documents import Rules
from lockbox_node.core.location import NOTHING_KNOWN
from lockbox_node.core.paces import ATTEMPTS_MAX, WINDOW_S
from lockbox_node.core.possession import Witness, asked, witnessed
from lockbox_node.errors import LockboxError, ShardCorrupt, ShardMissing
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.hello import Peer
from lockbox_node.services import auditing
from lockbox_node.services.auditing import Auditing, Sights
from lockbox_node.services.challenging import Challenger
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import Prove, Signed
from protocol.possession import NOTHING, AskAudit, Place
from protocol.records import NodeRecord, open_access, parse
from simulations.identities import NOW_UNIX_S, Papers
from simulations.journal import MemoryJournal
from simulations.world import SeededEntropy
from tests.core.test_audit import proof_of
from tests.fakes.granting import around, network, verifier
from tests.fakes.holder_bench import CLIENT, GUEST, peer_of
from tests.fakes.possession import leave_for, request_of, stripe_of
from tests.fakes.stripes import AssetSigner, FixedClock, bytes_of
from tests.rpc.world import world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from protocol.messages import Message
    from tests.fakes.stripes import Stripe
    from tests.rpc.world import Party, World

STRIPE = stripe_of("asset")
HOLDERS = 5


@dataclass
class Holder:
    """A node that shows what `shows` makes of a challenge; None is silence."""

    party: Party
    shows: Callable[[Prove], Message | LockboxError | None]
    asked: list[Prove] = field(default_factory=list)


@dataclass
class Bench:
    """One verifier and its holders, over real connections."""

    holders: list[Holder]
    judge: Party
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_UNIX_S))
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    life: int = 4
    nonces: int = 0
    approached: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.around = around(self.own, [verifier(number) for number in range(1, 4)])
        self.known = {NodeId(one.party.identity.id): one.party for one in self.holders}
        self.restart()

    @property
    def own(self) -> bytes:
        return self.judge.identity.id

    def restart(self) -> None:
        """Its next life."""
        self.journal = self.journal.start()
        self.life += 1
        contact = {node: party.contact for node, party in self.known.items()}
        challenger = Challenger(self.judge.pool, contact.get, lambda _node: 0.0, SeededEntropy(self.life))
        sights = Sights(NodeId(self.own), self._record, lambda: NOTHING_KNOWN, Rules)
        papers, life = Papers(self.judge.identity), self.life
        self.service = Auditing(
            papers, life, lambda: self.around, self.clock, self.journal, challenger, sights, self._approach
        )

    async def _approach(self, address: bytes) -> None:
        self.approached.append(address)

    def _record(self, node: NodeId) -> NodeRecord | None:
        party = self.judge if node == self.own else self.known.get(node)
        signed = None if party is None else party.identity.record
        return None if signed is None else parse(signed, NodeRecord)

    def request(self, stripe: Stripe = STRIPE, peer: Peer = CLIENT, **changes: object) -> AskAudit:
        """What the owner asks, of all holders unless told otherwise."""
        self.nonces += 1
        fields: dict[str, object] = {
            "requester": peer.id,
            "nonce": bytes_of("nonce", self.nonces),
            "time_unix_s": int(self.clock.now),
            "places": [Place(index, one.party.identity.id) for index, one in enumerate(self.holders)],
        }
        access = leave_for(stripe.signer, self.own, self.clock.now)
        return AskAudit(request_of(stripe, **(fields | changes)), stripe.signed, access)

    async def ask(self, request: AskAudit | None = None, peer: Peer = CLIENT) -> Signed | ErrorCode:
        """The statement, or the code of the refusal."""
        [route] = self.service.routes()
        try:
            reply = await route.handler(request or self.request(), peer)  # type: ignore[call-arg, misc]
        except (LockboxError, RemoteProtocolError) as refusal:
            return refusal.code
        assert isinstance(reply, Signed)
        return reply

    async def witness(self, request: AskAudit | None = None, peer: Peer = CLIENT) -> Witness:
        """What it states, checked as anybody checks it."""
        request = request or self.request(peer=peer)
        said = await self.ask(request, peer)
        assert isinstance(said, Signed), said
        return witnessed(network().root, asked(request.request, request.descriptor), said)

    async def verdicts(self) -> list[int]:
        return [finding.verdict for finding in (await self.witness()).statement.findings]


async def _holder(w: World, number: int) -> Holder:
    holders: list[Holder] = []

    async def prove(request: Prove, _peer: Peer) -> Message:
        holders[0].asked.append(request)
        outcome = holders[0].shows(request)
        if isinstance(outcome, LockboxError):
            raise outcome
        if outcome is None:
            await trio.sleep_forever()
            raise AssertionError
        return outcome

    party = await w.node(routes=[Route(Prove, prove)])
    holders.append(Holder(party, partial(_honest, number)))
    return holders[0]


def _honest(index: int, request: Prove) -> Message:
    return proof_of(STRIPE, index, request.nonce)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with world() as w:
        yield Bench([await _holder(w, number) for number in range(HOLDERS)], await w.node())


async def test_a_statement_says_what_every_holder_showed(bench: Bench) -> None:
    request = bench.request()
    witness = await bench.witness(request)
    statement = witness.statement
    assert (witness.signer.id, statement.life) == (bench.own, bench.life)
    assert (statement.time_unix_s, statement.region) == (NOW_UNIX_S, "eu-central")
    assert [(one.index, one.verdict, one.leaves) for one in statement.findings] == [(i, 0, 2) for i in range(HOLDERS)]
    assert [one.operator for one in statement.findings] == [one.party.identity.operator for one in bench.holders]
    shown = [one.asked[0] for one in bench.holders]
    assert {one.access for one in shown} == {request.access}
    assert open_access(request.access).requester == bench.own
    assert len({one.nonce for one in shown}) == HOLDERS
    assert bench.approached == [STRIPE.signer.address]


async def test_each_kind_of_holder_is_told_apart(bench: Bench, autojump_clock: MockClock) -> None:
    liar, loser, mute, gone, _honest = bench.holders
    liar.shows = lambda _request: ShardCorrupt("rotten", "")
    loser.shows = lambda _request: ShardMissing("gone", "")
    mute.shows = lambda _request: None
    gone.party.scope.cancel()
    assert await bench.verdicts() == [2, 1, 3, 3, 0]
    assert bench.service.counts == {"stated": 1, "corrupt": 1, "missing": 1, "silent": 2, "held": 1}


async def test_a_stranger_is_silent_and_nothing_is_known_of_it(bench: Bench) -> None:
    places = [Place(0, bytes_of("nobody"))]
    [finding] = (await bench.witness(bench.request(places=places))).statement.findings
    assert (finding.verdict, finding.region, finding.operator, finding.round_trip_us) == (3, "", "", 0)


async def test_a_verifier_that_holds_a_part_says_nothing_of_itself(bench: Bench) -> None:
    places = sorted(
        [Place(0, bench.own), *(Place(n, one.party.identity.id) for n, one in enumerate(bench.holders) if n)],
        key=lambda place: place.index,
    )
    statement = (await bench.witness(bench.request(places=places))).statement
    assert [finding.index for finding in statement.findings] == [1, 2, 3, 4]


async def test_who_has_not_the_asset_key_gets_nobody_looked_at(bench: Bench) -> None:
    thief, own = AssetSigner("thief"), bench.request()
    good = parse(own.request, type(asked(own.request, own.descriptor).request))
    forged = Signed(own.request.body, thief.sign(own.request.body))
    others = Peer(bytes_of("thief"), Role.CLIENT, "", "h", Downgrade.NONE, None, b"", 0.0)
    cases = [
        (AskAudit(forged, own.descriptor, own.access), CLIENT, ErrorCode.PROOF_INVALID),
        (AskAudit(own.request, own.descriptor, leave_for(thief, bench.own)), CLIENT, ErrorCode.ACCESS_DENIED),
        (AskAudit(own.request, own.descriptor, own.request), CLIENT, ErrorCode.PROOF_INVALID),
        (own, others, ErrorCode.ACCESS_DENIED),  # overheard, and sent again by somebody else
        (bench.request(time_unix_s=int(NOW_UNIX_S) - 121), CLIENT, ErrorCode.ACCESS_DENIED),
        (bench.request(descriptor_hash=bytes(32)), CLIENT, ErrorCode.PROOF_INVALID),
    ]
    for request, peer, code in cases:
        assert await bench.ask(request, peer) is code
    assert not any(one.asked for one in bench.holders)
    assert bench.journal.kept() == []
    assert good.requester == CLIENT.id
    assert (bench.service.counts["ACCESS_DENIED"], bench.service.counts["stated"]) == (3, 0)


async def test_the_revoked_and_who_asks_far_away_get_nothing(bench: Bench) -> None:
    bench.around = around(bench.own, [verifier(1)], frozenset({CLIENT.id}))
    assert await bench.ask() is ErrorCode.REVOKED
    assert isinstance(await bench.ask(bench.request(peer=GUEST), GUEST), Signed)
    crowd = [verifier(number) for number in range(90)]
    far = 0
    for number in range(12):
        stripe = stripe_of(number)
        bench.around = around(bench.own, crowd)
        far += await bench.ask(bench.request(stripe)) is ErrorCode.GRANT_FAR
    assert far


async def test_a_request_is_looked_after_once_and_a_restart_remembers_it(bench: Bench) -> None:
    request = bench.request()
    said: list[Signed | ErrorCode] = []

    async def ask() -> None:
        said.append(await bench.ask(request))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert sum(isinstance(one, Signed) for one in said) == 1
    assert said.count(ErrorCode.GRANT_REPLAYED) == 19
    bench.restart()
    assert await bench.ask(request) is ErrorCode.GRANT_REPLAYED
    bench.journal.lose_power()
    bench.restart()
    assert await bench.ask(request) is ErrorCode.BUSY


async def test_five_a_minute_for_one_asset_and_requester(bench: Bench, autojump_clock: MockClock) -> None:
    said = [await bench.ask() for _ in range(7)]
    assert [isinstance(one, Signed) for one in said] == [True] * 5 + [False] * 2
    assert said[5:] == [ErrorCode.RATE_LIMITED] * 2
    other = stripe_of("another asset")
    assert isinstance(await bench.ask(bench.request(other)), Signed)
    assert isinstance(await bench.ask(bench.request(peer=GUEST), GUEST), Signed)
    await trio.sleep(61)
    bench.clock.now += 61
    assert isinstance(await bench.ask(), Signed)


async def test_one_requester_has_a_limit_over_all_assets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "REQUESTS_MAX", 3)
    bench.restart()
    said = [await bench.ask(bench.request(stripe_of(number))) for number in range(5)]
    assert [isinstance(one, Signed) for one in said] == [True] * 3 + [False] * 2
    assert said[3:] == [ErrorCode.RATE_LIMITED] * 2
    assert isinstance(await bench.ask(bench.request(peer=GUEST), GUEST), Signed)


async def test_guests_are_told_apart_by_host(bench: Bench) -> None:
    guests = [Peer(GUEST.id, Role.GUEST, "", host, Downgrade.NONE, None, b"", 0.0) for host in ("a", "b")]
    said = [await bench.ask(bench.request(peer=guest), guest) for guest in guests for _ in range(6)]
    assert [isinstance(one, Signed) for one in said] == ([True] * 5 + [False]) * 2


async def test_more_audits_than_it_can_do_are_put_off_and_use_nothing_up(
    bench: Bench, autojump_clock: MockClock
) -> None:
    for holder in bench.holders:
        holder.shows = lambda _request: None
    peers = [peer_of(Role.CLIENT, bytes_of("client", number)) for number in range(auditing.AUDITS_MAX + 1)]
    requests = [(bench.request(stripe_of(number), peer), peer) for number, peer in enumerate(peers)]
    said = await asked_at_once(bench, requests)
    assert said.count(ErrorCode.BUSY) == 1
    assert sum(isinstance(one, Signed) for one in said) == auditing.AUDITS_MAX
    turned_away = [one for one in requests if await bench.ask(*one) is not ErrorCode.GRANT_REPLAYED]
    assert len(turned_away) == 1


async def asked_at_once(bench: Bench, requests: list[tuple[AskAudit, Peer]]) -> list[Signed | ErrorCode]:
    said: list[Signed | ErrorCode] = []

    async def ask(request: AskAudit, peer: Peer) -> None:
        said.append(await bench.ask(request, peer))

    async with trio.open_nursery() as nursery:
        for request, peer in requests:
            nursery.start_soon(ask, request, peer)
    return said


async def test_neither_one_client_nor_all_guests_together_take_every_place(
    bench: Bench, autojump_clock: MockClock
) -> None:
    for holder in bench.holders:
        holder.shows = lambda _request: None
    guests = [replace(GUEST, host=f"10.0.0.{number}") for number in range(auditing.AUDITS_MAX)]
    for peers in ([CLIENT] * auditing.AUDITS_MAX, guests):
        requests = [(bench.request(stripe_of(bench.nonces), peer), peer) for peer in peers]
        said = await asked_at_once(bench, requests)
        assert said.count(ErrorCode.BUSY) == auditing.AUDITS_MAX - auditing.AUDITS_SHARE
    assert bench.service.under_way == 0
    assert len(bench.service._under_way) == 0


async def test_a_restart_forgets_no_rate(bench: Bench) -> None:
    for _ in range(ATTEMPTS_MAX):
        await bench.witness()
    bench.restart()
    assert await bench.ask() is ErrorCode.RATE_LIMITED


async def test_a_client_that_leaves_takes_its_audit_with_it(bench: Bench, autojump_clock: MockClock) -> None:
    bench.holders[0].shows = lambda _request: None
    for _ in range(2 * auditing.AUDITS_MAX):
        stripe = stripe_of(bench.nonces)
        with trio.move_on_after(0.1) as left:
            await bench.ask(bench.request(stripe))
        assert left.cancelled_caught
    assert isinstance(await bench.ask(), Signed)


async def test_numbers_rise_and_each_statement_names_the_one_before_it(bench: Bench) -> None:
    first, second = [await bench.witness() for _ in range(2)]
    bench.clock.now -= 100  # the clock is set back
    third = await bench.witness()
    numbers = [one.statement.number for one in (first, second, third)]
    assert numbers == sorted(set(numbers))
    assert [one.statement.previous for one in (first, second, third)] == [NOTHING, first.digest, second.digest]
    elsewhere = stripe_of("another asset")
    assert (await bench.witness(bench.request(elsewhere))).statement.previous == NOTHING


async def test_an_honest_verifier_never_contradicts_itself(bench: Bench) -> None:
    said: list[Witness] = []

    async def ask(stripe: Stripe) -> None:
        said.append(await bench.witness(bench.request(stripe)))

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for stripe in [stripe_of("asset")] * 2 + [stripe_of("another"), stripe_of("third")]:
                nursery.start_soon(ask, stripe)
        bench.holders[len(said) % HOLDERS].shows = lambda _request: ShardMissing("gone", "")
        bench.clock.now += WINDOW_S + 1
        bench.restart()
    assert len(said) == 12
    assert contradictions(said) == []


async def test_heads_are_forgotten_when_there_are_too_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "HEADS_MAX", 1)
    await bench.witness()
    await bench.witness(bench.request(stripe_of("another asset")))
    assert (await bench.witness()).statement.previous == NOTHING
