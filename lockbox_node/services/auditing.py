"""A verifier's other part: looks at who holds what when the asset key asks for it, and signs what it saw.

It checks the owner's request and leave, that it is near enough to be asked, and the rate; then it challenges every
place but itself, and states one finding each. A request is answered once, over restarts too, statements are numbered
and each names the last one about its address: so an honest verifier can never be made to contradict itself. The work
is bounded: audits at a time, challenges at a time. Source: SPEC.md, Possession certificates.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.grants import require_near, target_of
from lockbox_node.core.paces import ATTEMPTS_MAX, WINDOW_S
from lockbox_node.core.possession import Asked, Sight, asked, finding_of, places_of, require_leave, sight_of
from lockbox_node.core.spent import AUDITED_HERE, Use, use_of
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.challenging import Challenger, Part
from lockbox_node.services.redeeming import lately, recalled
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.possession import NOTHING, AskAudit, Finding, Place, Statement
from protocol.records import sign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.core.documents import Rules
    from lockbox_node.core.grants import Around
    from lockbox_node.core.location import Judgement
    from lockbox_node.core.membership import Membership
    from lockbox_node.ports import Entropy, Journal, WallClock
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Pool
    from lockbox_node.services.announcing import Operational
    from lockbox_node.services.discovery import Discovery
    from protocol.messages import Message, Signed
    from protocol.records import NodeRecord

AUDITS_MAX = 8  # at a time
AUDITS_SHARE = 4  # of one requester at a time, or of all guests together: everybody may be one
CHALLENGES_SHARE = 8  # of one audit at a time
CHALLENGES_MAX = 32  # at a time: each may bring 1 MiB of leaves
BUSY_S = 1.0  # then who was sent away may ask again
HEADS_MAX = 4096  # addresses whose last statement is remembered
RATED_MAX = 2**14  # (requester, asset) pairs whose rate is kept
RATED_SHARE_MAX = 2**10  # of one requester
REQUESTS_MAX = 600  # of one requester within WINDOW_S, whatever the asset: keys are cheap, and each asks 40 others
REQUESTERS_MAX = 2**12
ALL, GUESTS = b"all", b"guests"  # whom audits are counted for, beside each requester
Approach = Callable[[bytes], Awaitable[object]]
"""Makes sure that whoever is nearest to an address is known."""


class Ports(Protocol):
    """What of the world an audit needs."""

    @property
    def clock(self) -> WallClock:
        """For what is signed."""
        ...

    @property
    def journal(self) -> Journal:
        """For which requests were answered."""
        ...

    @property
    def entropy(self) -> Entropy:
        """For nonces."""
        ...


@dataclass(frozen=True, slots=True)
class Sights:
    """What a node's own view says of the others. `record(node)`: of a member, dead or alive, or of ourselves."""

    own: NodeId
    record: Callable[[NodeId], NodeRecord | None]
    judgement: Callable[[], Judgement]
    rules: Callable[[], Rules]

    def of(self, node: bytes, now_unix_s: float) -> Sight:
        """What a finding says of a node beside what it showed."""
        return sight_of(self.record(NodeId(node)), self.judgement(), self.rules(), now_unix_s)

    @property
    def own_region(self) -> str:
        """Where we say that we stand."""
        record = self.record(self.own)
        return "" if record is None else record.region


class Auditing:
    """Serves ask_audit. `counts`: stated, the verdicts in what was stated, and refusals by their code."""

    def __init__(
        self,
        identity: Operational,
        life: int,
        around: Callable[[], Around],
        clock: WallClock,
        journal: Journal,
        challenger: Challenger,
        sights: Sights,
        approach: Approach,
    ) -> None:
        """`life` is the epoch of our record."""
        self.counts: Counter[str] = Counter()
        self._identity, self._life, self._around = identity, life, around
        self._clock, self._journal = clock, journal
        self._challenger, self._sights, self._approach = challenger, sights, approach
        self._spent = recalled(journal, AUDITED_HERE, clock.now_unix_s())
        self._rates = SlidingLog(ATTEMPTS_MAX, WINDOW_S, RATED_MAX, RATED_SHARE_MAX)
        self._requesters = SlidingLog(REQUESTS_MAX, WINDOW_S, REQUESTERS_MAX, 1)
        for use, asked_at in lately(journal, AUDITED_HERE, clock.now_unix_s(), trio.current_time()):
            self._rates.take(use.pair, use.owner, asked_at)
            self._requesters.take(use.owner, use.owner, asked_at)
        self._under_way = Counter[bytes]()  # by whom they are asked for; GUESTS for all guests
        self._challenges = trio.CapacityLimiter(CHALLENGES_MAX)
        self._heads: OrderedDict[bytes, bytes] = OrderedDict()  # address -> digest of our last statement about it
        self._number = 0

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(AskAudit, self._ask_audit)]

    async def _ask_audit(self, request: AskAudit, peer: Peer) -> Message:
        try:
            audit = self._admitted(request, peer)
        except (LockboxError, RemoteProtocolError) as refusal:
            self.counts[refusal.code.value] += 1
            raise
        askers = _askers(peer)
        self._under_way.update(askers)
        try:
            findings = await self._looked(audit, request)
        finally:
            self._under_way.subtract(askers)
            self._under_way += Counter()  # drops who has none
        self.counts["stated"] += 1
        return self._stated(audit, findings)

    def _admitted(self, request: AskAudit, peer: Peer) -> Asked:
        """In one step: of the same request asked many times at once, one is looked after."""
        around, now_unix_s = self._around(), self._clock.now_unix_s()
        if peer.id in around.revoked:
            raise LockboxError("this client is revoked", "ask the network's authority", ErrorCode.REVOKED)
        audit = asked(request.request, request.descriptor)
        require_leave(audit, request.access, peer.id, self._identity.node_id, now_unix_s)
        require_near(around.own, target_of(audit.address), around)
        use = use_of(AUDITED_HERE, audit.request, peer.rate_key, now_unix_s, guest=peer.role is Role.GUEST)
        self._spent.require_new(use, now_unix_s)
        self._require_room(peer)
        self._require_rate(use)
        self._spent.add(use)
        self._journal.append(use.packed())
        return audit

    @property
    def under_way(self) -> int:
        """Audits at work now."""
        return self._under_way[ALL]

    def _require_room(self, peer: Peer) -> None:
        by_whom = self._under_way
        if by_whom[peer.rate_key] >= AUDITS_SHARE or (peer.role is Role.GUEST and by_whom[GUESTS] >= AUDITS_SHARE):
            raise _later(ErrorCode.BUSY, "as many audits as one may ask for at a time are under way", BUSY_S)
        if by_whom[ALL] >= AUDITS_MAX:
            raise _later(ErrorCode.BUSY, "as many audits as this node can do are under way", BUSY_S)

    def _require_rate(self, use: Use) -> None:
        wait_s = self._rates.take(use.pair, use.owner, trio.current_time())
        if wait_s:
            why = f"this asset was looked at {ATTEMPTS_MAX} times within {WINDOW_S:.0f} s for you"
            raise _later(ErrorCode.RATE_LIMITED, why, wait_s)
        wait_s = self._requesters.take(use.owner, use.owner, trio.current_time())
        if wait_s:
            why = f"{REQUESTS_MAX} assets were looked at within {WINDOW_S:.0f} s for you"
            raise _later(ErrorCode.RATE_LIMITED, why, wait_s)

    async def _looked(self, audit: Asked, request: AskAudit) -> list[Finding]:
        """One finding for every place but ourselves, in order."""
        await self._approach(audit.address)  # who holds it is far from us
        places = places_of(audit, self._identity.node_id)
        found: dict[Place, Finding] = {}
        share = trio.CapacityLimiter(CHALLENGES_SHARE)

        async def look(place: Place) -> None:
            part = Part(audit.address, audit.descriptor_hash, audit.descriptor, place.index, request.access)
            async with share, self._challenges:
                shown = await self._challenger.challenge(NodeId(place.node), part)
            self.counts[shown.verdict.value] += 1
            sight = self._sights.of(place.node, self._clock.now_unix_s())
            found[place] = finding_of(audit, place, shown.verdict, shown.round_trip_s, sight)

        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(partial(look, place))
        return [found[place] for place in places]

    def _stated(self, audit: Asked, findings: Sequence[Finding]) -> Signed:
        """In one step: the number and the head belong to this statement alone."""
        now_unix_s = self._clock.now_unix_s()
        # By the clock, so that a copy of this machine that runs in the same life does not use the same numbers.
        self._number = max(self._number + 1, int(now_unix_s * 1000))
        statement = Statement(
            address=audit.address,
            descriptor_hash=audit.descriptor_hash,
            request=audit.digest,
            region=self._sights.own_region,
            life=self._life,
            number=self._number,
            previous=self._heads.pop(audit.address, NOTHING),
            time_unix_s=int(now_unix_s),
            findings=list(findings),
            chain=list(self._identity.chain),
        )
        signed = sign(statement, self._identity)
        self._heads[audit.address] = hashlib.sha256(signed.body).digest()
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)
        return signed


def auditing_of(
    identity: Operational,
    life: int,
    around: Callable[[], Around],
    ports: Ports,
    pool: Pool,
    discovery: Discovery,
    machine: Membership,
    view: tuple[Callable[[], Judgement], Callable[[], Rules]],
    approach: Approach,
) -> Auditing:
    """A node's. `view`: what it makes of places, and the network's documents."""
    challenger = Challenger(pool, discovery.contact, machine.probing.round_trip_s, ports.entropy)
    sights = Sights(discovery.own, discovery.known, *view)
    return Auditing(identity, life, around, ports.clock, ports.journal, challenger, sights, approach)


def _askers(peer: Peer) -> list[bytes]:
    return [ALL, peer.rate_key, *([GUESTS] if peer.role is Role.GUEST else [])]


def _later(code: ErrorCode, why: str, wait_s: float) -> LockboxError:
    error = LockboxError(why, f"wait {wait_s:.0f} s, or ask another node", code)
    error.retry_after_s = wait_s
    return error
