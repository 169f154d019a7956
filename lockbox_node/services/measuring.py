"""Measures how far others are, tells and hears what was measured, and says who is refuted.

One node after another is pinged over a warm connection: our neighbours', and in turn those of the others that are
nearest to us in XOR order, who are the ones that we bear witness on. A nonce that nobody can guess makes sure that no
answer comes before its ping. What proves or refutes something is signed and spread: at once to whom it speaks against
and to some others, the rest by exchanges with one connected node at a time. What it all means is core.location's.
Source: DESIGN, Evidence of location; SPEC.md, Vantage reports.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.location import (
    ELECTORS,
    NOTHING_KNOWN,
    Judgement,
    Sighting,
    is_telling,
    judge,
    region_km,
)
from lockbox_node.core.sounding import Burst, Life, MeasuringParams, Soundings
from lockbox_node.core.vantages import APART_S, LIFE_S, Objection, VantageTable, sightings_of
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.dispatch import Route
from protocol.certificates import Role, verify_vantage
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import Done, Message, Ping, Pong, Signed
from protocol.records import parse
from protocol.vantage import ROUND_TRIPS_MAX, VANTAGES_MAX, CompareVantages, RoundTrip, TellVantages, Vantage, Vantages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from random import Random

    from lockbox_node.ports import Answer, Entropy
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Pool
    from lockbox_node.services.announcing import Announcer
    from lockbox_node.services.discovery import Discovery

LOOK_S = 5.0  # between two looks for somebody to measure
PING_TIMEOUT_S = 5.0
EXCHANGE_TIMEOUT_S = 10.0
REFRESH_S = LIFE_S / 4  # a report that says nothing new is signed again after this
UNHURRIED = 4.0  # so many times less often, where the policy excludes nobody
FAN_OUT = 3  # connected nodes that hear a new report of ours at once
TOLD_AT_ONCE_MAX = 16  # nodes that hear at once that we contradict them
NONCE_BITS = 63
JUDGED_LESS = 19.0  # times as long as a judgement took, the last one stands: of 20,000 members it takes 0.1 s or more
LOGGED_MAX = 4096  # contradictions and verdicts that were logged
NAMED_MAX = 10  # witnesses named in one line

log = structlog.get_logger()


class Measuring:
    """One per node. `enforced`: whether the policy excludes who is refuted."""

    def __init__(
        self,
        announcer: Announcer,
        discovery: Discovery,
        pool: Pool,
        now_unix_s: Callable[[], float],
        entropy: Entropy,
        rng: Random,
        params: MeasuringParams | None = None,
    ) -> None:
        self._announcer, self._discovery, self._pool = announcer, discovery, pool
        self._now_unix_s, self._entropy, self._rng = now_unix_s, entropy, rng
        self._params = params or MeasuringParams()
        self._soundings = Soundings(self._params)
        self._table = VantageTable(announcer.id)
        self._judged = NOTHING_KNOWN
        self._judged_of: tuple[object, object, tuple[int, int]] = (None, None, (0, 0))
        self._judge_at = -math.inf
        self._said: list[RoundTrip] = []
        self._signed_unix_s = 0
        self._logged: set[tuple[object, ...]] = set()
        self.enforced = False
        self.pings = self.discarded = 0
        self.refused: Counter[str] = Counter()  # reports that did not count, by why

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(CompareVantages, self._on_compare), Route(TellVantages, self._on_tell)]

    def km(self, a: str, b: str) -> float | None:
        """The distance of two regions, by the network's table."""
        return region_km(a, b, self._discovery.regions)

    @property
    def reports(self) -> int:
        """How many are kept, our own among them."""
        return len(self._table)

    @property
    def judgement(self) -> Judgement:
        """What we make of all that is known now; the same object until that changes."""
        alive, regions = self._discovery.alive(), self._discovery.regions
        versions = (self._table.version, self._soundings.version)
        before_alive, before_regions, before_versions = self._judged_of
        changed = before_alive is not alive or before_versions != versions
        began = trio.current_time()
        if before_regions is not regions or (changed and began >= self._judge_at):
            own = self._announcer.id
            theirs = self._table.sightings(self._now_unix_s(), without=own)
            self._judged = judge(own, alive, self._ours(), theirs, self.km)
            self._judged_of = alive, regions, versions
            self._judge_at = trio.current_time() + JUDGED_LESS * (trio.current_time() - began)
        return self._judged

    def excluded(self) -> Collection[bytes]:
        """Who may hold nothing new."""
        return self.judgement.refuted.keys() if self.enforced else ()

    def outvoted(self) -> Collection[bytes]:
        """Whose parts move away: what one node alone believes, ourselves or a mistaken one, moves nothing."""
        return self.judgement.outvoted if self.enforced else ()

    def obey(self, *, enforced: bool) -> None:
        """The policy says whether who is refuted is excluded."""
        self.enforced = enforced
        self._heed()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._measure)
            nursery.start_soon(self._exchange)
            task_status.started()

    @property
    def _slowness(self) -> float:
        return 1.0 if self.enforced else UNHURRIED

    # Measuring

    async def _measure(self) -> None:
        while True:
            lives = self._lives()
            node = self._soundings.next(lives, trio.current_time())
            if node is None:
                await trio.sleep(LOOK_S)
            else:
                await self._sound(node, lives[node])

    def _lives(self) -> dict[NodeId, Life]:
        """Those on whom we bear witness, nearest first."""
        alive, own = self._discovery.alive(), self._announcer.id
        near = self._discovery.nearest_nodes(own, ELECTORS + 1)
        return {node: (alive[node].region, alive[node].instance) for node in near if node != own and node in alive}

    async def _sound(self, node: NodeId, life: Life) -> None:
        burst = Burst(self._params)
        connection = await self._warm(node)
        while connection is not None and not burst.over and not connection.closed:
            due = trio.current_time() + self._slowness / self._params.pings_per_s
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            round_trip_s, resumed_late_s = await self._timed(connection)
            self.discarded += not burst.add(round_trip_s, max(late_s, resumed_late_s))
        if burst.enough:
            self._soundings.measured(node, life, burst.trip(node, life[0], self._now_unix_s()), trio.current_time())
            self._publish()
        else:
            self._soundings.failed(node, life, trio.current_time())
            await trio.sleep(1 / self._params.pings_per_s)

    async def _warm(self, node: NodeId) -> Connection | None:
        """The connection to a node, after a first ping on it that does not count; None when it does not answer."""
        contact = self._discovery.contact(node)
        if contact is None:
            return None
        with trio.move_on_after(PING_TIMEOUT_S):
            try:
                connection = await self._pool.connection(contact)
            except LockboxError as error:
                log.debug("measuring.unreachable", node=node.hex()[:8], reason=str(error.code))
                return None
            await self._timed(connection)
            return connection
        return None

    async def _timed(self, connection: Connection) -> tuple[float | None, float]:
        """The round trip of one ping (None: no answer), and how long the answer then waited for this task."""
        self._entropy.fill(drawn := bytearray(8))
        nonce = int.from_bytes(drawn, "big") >> (64 - NONCE_BITS)
        answered = trio.Event()
        came: list[tuple[float, Message | LockboxError]] = []

        def answer(outcome: Message | LockboxError) -> None:
            came.append((trio.current_time(), outcome))
            answered.set()

        self.pings += 1
        sent = trio.current_time()
        call = connection.post(Ping(nonce), answer)
        with trio.move_on_after(PING_TIMEOUT_S):
            await answered.wait()
        if not came:
            connection.forget(call)
            return None, 0.0
        at, outcome = came[0]
        good = isinstance(outcome, Pong) and outcome.nonce == nonce
        return (at - sent if good else None), trio.current_time() - at

    def _ours(self) -> list[Sighting]:
        """What we measured, as it counts now."""
        own, chain = self._announcer.record, self._announcer.record.chain
        return sightings_of(Vantage(own.node, own.region, 0, self._soundings.trips(), chain), self._now_unix_s())

    # Telling

    def _telling(self) -> list[RoundTrip]:
        """What of it others should know: nothing while we doubt ourselves."""
        if self.judgement.doubted:
            return []
        alive = self._discovery.alive()
        telling = {one.subject for one in self._ours() if is_telling(one, self.km)}
        trips = [trip for trip in self._soundings.trips() if trip.subject in telling]
        return [trip for trip in trips if NodeId(trip.subject) in alive][:ROUND_TRIPS_MAX]

    def _publish(self) -> None:
        """Sign what we have seen, when it is news or the last report grows old; tell some."""
        now_unix_s, telling = int(self._now_unix_s()), self._telling()
        self._heed()
        new = [trip for trip in telling if trip not in self._said]
        changed = telling != self._said
        aged = bool(telling) and now_unix_s >= self._signed_unix_s + REFRESH_S
        if not (changed or aged) or now_unix_s < self._signed_unix_s + APART_S:
            return
        self._said, self._signed_unix_s = telling, now_unix_s
        signed, vantage = self._announcer.vantage(telling, now_unix_s)
        self._table.keep(signed, vantage)
        if not self.enforced:
            return  # exchanges bring it to all in time
        accused = {one.subject for one in self.judgement.contradictions if one.judge == self._announcer.id}
        told = [NodeId(trip.subject) for trip in new if trip.subject in accused][:TOLD_AT_ONCE_MAX]
        others = [NodeId(one.peer.id) for one in self._pool.connections()]
        for node in dict.fromkeys([*told, *self._rng.sample(others, min(FAN_OUT, len(others)))]):
            contact = self._discovery.contact(node)
            if contact is not None:
                self._pool.post(contact, TellVantages([signed]), lambda _outcome: None)  # exchanges mend what is lost

    async def _exchange(self) -> None:
        while True:
            await trio.sleep(self._slowness * self._params.exchange_s * (0.5 + self._rng.random()))
            self._table.expire(self._now_unix_s(), self._discovery.alive())
            self._publish()
            connections = self._pool.connections()
            if not connections:
                continue
            connection = self._rng.choice(connections)
            with trio.move_on_after(EXCHANGE_TIMEOUT_S):
                try:
                    await self._exchange_with(connection)
                except (LockboxError, RemoteProtocolError) as error:
                    log.debug("vantages.exchange_failed", node=connection.peer.log_name, reason=str(error.code))

    async def _exchange_with(self, connection: Connection) -> None:
        reply = await connection.request(CompareVantages(self._table.known()))
        assert isinstance(reply, Vantages), "the codec checked the type of the reply"
        await self.take(reply.vantages)
        wanted = self._table.of(reply.wanted)
        if wanted:
            await connection.request(TellVantages(wanted))

    # Hearing

    async def take(self, reports: Iterable[Signed]) -> None:
        """Keep what counts and is new. RemoteProtocolError at the first that does not hold: who tells it lies."""
        try:
            for signed in reports:
                self._take_one(signed)
                await trio.lowlevel.checkpoint()  # to verify one takes long: the others get their turn
        except RemoteProtocolError:
            self.refused["forged"] += 1
            raise
        finally:
            self._heed()

    def _take_one(self, signed: Signed) -> None:
        claimed = parse(signed, Vantage)
        if claimed.judge == self._announcer.id:
            return  # nobody tells us what we saw
        objection = self._table.objection(claimed, self._now_unix_s(), self._discovery.alive())
        if objection is not None:
            self.refused[objection] += objection is not Objection.STALE  # to hear what we have is no offence
            return
        self._table.keep(signed, verify_vantage(self._announcer.root, signed))

    async def _on_tell(self, request: TellVantages, _peer: Peer) -> Message:
        await self.take(request.vantages)
        return Done()

    def _on_compare(self, request: CompareVantages, peer: Peer, answer: Answer[Message]) -> None:
        if peer.role is Role.NODE:
            newer, more = self._table.newer_than(request.known, NodeId(peer.id))
            wanted = self._table.wanted(request.known, self._now_unix_s(), self._discovery.alive())
            answer(Vantages(newer, wanted, more))
            return
        if request.known:
            raise LockboxError("only nodes exchange reports", "ask with an empty list", ErrorCode.ROLE_FORBIDDEN)
        judges = sorted({one.judge for one in self.judgement.contradictions if one.judge > request.after})
        answer(Vantages(self._table.of(judges[:VANTAGES_MAX]), [], len(judges) > VANTAGES_MAX))

    def _heed(self) -> None:
        """Tell the operator, once, of verdicts and of whoever contradicts us."""
        judgement, own = self.judgement, self._announcer.id
        tell = log.warning if self.enforced else log.info
        if judgement.doubted:
            self._once(("doubted",), partial(tell, "location.doubted", hint="is node.region right?"))
        for node, witnesses in judgement.refuted.items():
            by = [one.judge.hex()[:8] for one in witnesses[:NAMED_MAX]]
            self._once(("refuted", node), partial(tell, "location.refuted", node=node.hex()[:8], by=by))
        for one in judgement.against(own):
            seen = {"node": one.judge.hex()[:8], "region": one.judge_region, "within_km": round(one.within_km)}
            self._once(("against", one.judge), partial(tell, "location.contradicted", **seen))

    def _once(self, what: tuple[object, ...], tell: Callable[[], None]) -> None:
        key = (*what, self.enforced)
        if key not in self._logged and len(self._logged) < LOGGED_MAX:
            self._logged.add(key)
            tell()
