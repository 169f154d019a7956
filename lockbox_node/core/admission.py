"""May this peer in, and may it ask this now: Hello, roles, downgrades, rates, access claims.

Rules. A wrong chain, network or leaf, and a revoked id, close the connection; an expired certificate, a clock that is
more than 5 min off or software that is not released only downgrade it to reading, renewing and handing over, so that no
paperwork ever makes data unreadable.
`ALLOWED` is the one table of who may ask what. All times are passed in. Source: SPEC.md, Hello, Roles and Access.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from lockbox_node.core.documents import NO_RULES, Rules
from lockbox_node.errors import ConfigError, LockboxError
from protocol.certificates import NetworkRoot, PeerIdentity, Role, verify_chain, verify_record
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import address_of
from protocol.messages import (
    NUMBERS,
    AskGrant,
    CompareHeld,
    Delete,
    FindHolders,
    FindNode,
    GetDocuments,
    GetShards,
    GetSlot,
    Gossip,
    Hello,
    Message,
    Ping,
    PingFor,
    Prove,
    PutStripe,
    Renew,
    SyncMembers,
    TellDocuments,
    TellHolders,
)
from protocol.possession import AskAudit
from protocol.vantage import CompareVantages, TellVantages

if TYPE_CHECKING:
    from protocol.records import AccessClaim

VERSIONS = (1,)  # of the protocol, that we speak
SOFTWARE_BYTES = 32
CLOCK_WARN_S = 60.0
CLOCK_DOWNGRADE_S = 300.0
CLAIM_PAST_S = 300.0
CLAIM_AHEAD_S = 60.0
ROUNDING = 1e-6  # of a token: who waits for as long as it was told gets its token, whatever floats make of it

_NODE = frozenset({Role.NODE})
_STORING = frozenset({Role.NODE, Role.CLIENT})
_CARRYING = frozenset({Role.NODE, Role.OPERATOR})
_ASKING = frozenset({Role.CLIENT, Role.GUEST})
_READING = frozenset({Role.NODE, Role.CLIENT, Role.GUEST})
_ALL = frozenset(Role)

# Who may ask what. Hello is asked once, as call 0, before this table is read.
ALLOWED: dict[type[Message], frozenset[Role]] = {
    Hello: _ALL,
    Ping: _ALL,
    PingFor: _NODE,
    SyncMembers: _ALL,
    Gossip: _NODE,
    FindNode: _ALL,
    FindHolders: _ALL,
    PutStripe: _STORING,
    GetShards: _READING,
    GetSlot: _READING,
    Delete: _STORING,
    Prove: _READING,
    TellHolders: _STORING,
    Renew: _STORING,
    CompareHeld: _NODE,
    GetDocuments: _ALL,
    TellDocuments: _CARRYING,
    CompareVantages: _STORING,
    TellVantages: _NODE,
    AskGrant: _ASKING,
    AskAudit: _ASKING,
}
assert set(ALLOWED) == set(NUMBERS)

# What a downgraded peer may not ask. A client would store new data; a node only hands over what an owner has signed
# and tells who holds it now, which needs no trust in the node's papers. Deleting is neither reading nor handing over.
# Renewing is never refused for paperwork: it only keeps what an owner wants kept.
WRITES: dict[Role, frozenset[type[Message]]] = {
    Role.NODE: frozenset({Gossip, Delete, TellVantages}),
    Role.CLIENT: frozenset({PutStripe, Delete, TellHolders}),
    Role.OPERATOR: frozenset(),
    Role.GUEST: frozenset(),
}


class Downgrade(StrEnum):
    """Why a connection may only read; falsy when it is not downgraded."""

    NONE = ""
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    SOFTWARE = "software"


_DOWNGRADED: dict[Downgrade, tuple[ErrorCode, str, str]] = {
    Downgrade.CERTIFICATE: (
        ErrorCode.NOT_A_MEMBER,
        "your certificate is not valid at this time; until it is renewed this connection only reads",
        "renew the certificate with the network's authority",
    ),
    Downgrade.CLOCK: (
        ErrorCode.CLOCK_SKEW,
        "your clock is more than 5 minutes off; until it is right this connection only reads",
        "set the clock, best by NTP, and connect again",
    ),
    Downgrade.SOFTWARE: (
        ErrorCode.INVALID_SOFTWARE_VERSION,
        "the network does not accept your software; until it is updated this connection only reads",
        "install a release that is on the network's release list",
    ),
}


@dataclass(frozen=True, slots=True)
class AdmissionParams:
    """Requests a second and the burst above it, per peer: by id, guests (who share one id) by host."""

    node_rate: float = 20_000.0
    node_burst: float = 40_000.0
    client_rate: float = 5_000.0
    client_burst: float = 10_000.0
    operator_rate: float = 200.0
    operator_burst: float = 800.0
    guest_rate: float = 200.0
    guest_burst: float = 800.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if not 1.0 <= getattr(self, name) <= 1e9:
                raise ConfigError(f"admission.{name} is {getattr(self, name)}", "give a number from 1 to 1e9")

    def of(self, role: Role) -> tuple[float, float]:
        """(rate, burst) of a role."""
        return getattr(self, f"{role.value}_rate"), getattr(self, f"{role.value}_burst")


DEFAULTS = AdmissionParams()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A peer that may in. `clock_offset_s` = its clock minus ours, the way of the message included."""

    identity: PeerIdentity
    version: int
    reads_only: Downgrade
    clock_offset_s: float

    @property
    def clock_warned(self) -> bool:
        """Whether the operator should hear of this clock."""
        return abs(self.clock_offset_s) > CLOCK_WARN_S


def judge_hello(
    hello: Hello, tls_leaf: bytes, root: NetworkRoot, now_unix_s: float, rules: Rules = NO_RULES
) -> Verdict:
    """Who says this Hello, and what it may do by its papers and by the network's documents.

    RemoteProtocolError: NOT_A_MEMBER for another network, a wrong chain, or a leaf other than the one that TLS proved;
    REVOKED; UNSUPPORTED without a common protocol version; PROOF_INVALID for a record that is not the peer's own.
    """
    if hello.network != root.network_id:
        raise RemoteProtocolError("this node belongs to another network", ErrorCode.NOT_A_MEMBER)
    if hello.chain[0] != tls_leaf:
        raise RemoteProtocolError("the leaf in Hello is not the one that TLS proved", ErrorCode.NOT_A_MEMBER)
    identity = verify_chain(root, hello.chain)
    if identity.id in rules.revoked:
        raise RemoteProtocolError("the network's authority has revoked this certificate", ErrorCode.REVOKED)
    version = max(set(VERSIONS) & set(hello.versions), default=0)
    if version == 0:
        raise RemoteProtocolError(f"no common protocol version; spoken here: {VERSIONS}", ErrorCode.UNSUPPORTED)
    _check_claims(hello, identity, root)
    offset_s = hello.clock_unix_ms / 1000 - now_unix_s
    reads_only = _downgrade(identity, offset_s, now_unix_s)
    if not reads_only and identity.role is Role.NODE and rules.refuses(hello.software, now_unix_s):
        reads_only = Downgrade.SOFTWARE
    return Verdict(identity, version, reads_only, offset_s)


def _check_claims(hello: Hello, identity: PeerIdentity, root: NetworkRoot) -> None:
    """The record is the peer's own and only nodes have one; so with software. A node may have no record yet."""
    is_node = identity.role is Role.NODE
    if len(hello.software) != (SOFTWARE_BYTES if is_node else 0):
        raise RemoteProtocolError("a Hello whose software claim does not fit its role")
    if hello.record is None:
        return
    if not is_node or verify_record(root, hello.record).node != identity.id:
        raise RemoteProtocolError("a Hello with a record that is not the peer's own")


def _downgrade(identity: PeerIdentity, offset_s: float, now_unix_s: float) -> Downgrade:
    # The clock comes first: between two clocks that disagree nobody can judge the times of a certificate. A leaf made
    # a moment ago may start in our future by as much as a clock may be off.
    if abs(offset_s) > CLOCK_DOWNGRADE_S:
        return Downgrade.CLOCK
    if not identity.not_before_unix_s - CLOCK_DOWNGRADE_S <= now_unix_s <= identity.not_after_unix_s:
        return Downgrade.CERTIFICATE
    return Downgrade.NONE


@cache
def permitted(role: Role, reads_only: Downgrade) -> frozenset[type[Message]]:
    """The request types that this peer may ask; Hello is not among them, since it was asked."""
    writes = WRITES[role] if reads_only else frozenset()
    return frozenset(kind for kind, roles in ALLOWED.items() if role in roles and kind is not Hello) - writes


def refusal_reason(kind: type[Message], role: Role, reads_only: Downgrade) -> LockboxError:
    """Why a request that is not `permitted` is refused."""
    assert kind not in permitted(role, reads_only)
    if kind is Hello:
        return LockboxError("Hello was said already", code=ErrorCode.UNSUPPORTED)
    if role not in ALLOWED[kind]:
        return LockboxError(
            f"a {role.value} may not ask {kind.__name__}", "use a certificate of another role", ErrorCode.ROLE_FORBIDDEN
        )
    code, message, hint = _DOWNGRADED[reads_only]
    return LockboxError(message, hint, code)


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` of them at once."""

    __slots__ = ("_burst", "_level", "_rate", "_stamp")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        assert rate > 0
        assert burst >= 1
        self._rate, self._burst, self._level, self._stamp = rate, burst, burst, now

    def take(self, now: float, tokens: float = 1.0) -> float:
        """0.0 when the tokens were taken; otherwise nothing was taken, and these are the seconds missing."""
        level = min(self._burst, self._level + (now - self._stamp) * self._rate)
        self._stamp = now
        if level >= tokens - ROUNDING:
            self._level = level - tokens
            return 0.0
        self._level = level
        return (tokens - level) / self._rate

    def charge(self, tokens: float) -> None:
        """Take tokens that are used already, beyond what is there: until they are made up for `take` refuses."""
        self._level -= tokens


def rate_limited(retry_after_s: float) -> LockboxError:
    """The error for a request above the rate."""
    error = LockboxError("too many requests from you", "wait and try again", ErrorCode.RATE_LIMITED)
    error.retry_after_s = retry_after_s
    return error


def access_claim_judge(claim: AccessClaim, address: bytes, operation: int, requester: bytes, now_unix_s: float) -> None:
    """LockboxError(ACCESS_DENIED) unless a claim (its signature checked: `open_access`) gives leave for exactly this.

    `operation` is the request's number on the wire, `requester` the id of the TLS peer. A claim is good from 60 s
    before its time until 5 min after it.
    """
    if address_of(claim.public_key) != address:
        raise _denied("it is signed by the key of another address")
    if claim.operation != operation:
        raise _denied("it was signed for another operation")
    if claim.requester != requester:
        raise _denied("it was signed for another requester")
    age_s = now_unix_s - claim.time_unix_s
    if not -CLAIM_AHEAD_S <= age_s <= CLAIM_PAST_S:
        raise _denied("its time is not now", "check the clock and sign again")


def _denied(why: str, hint: str = "sign a new claim for this request") -> LockboxError:
    return LockboxError(f"the access claim does not hold: {why}", hint, ErrorCode.ACCESS_DENIED)


class SlidingLog:
    """At most `most` events of one key in any `window_s`. Bounded in all and per owner of keys.

    A log without room admits nothing new: to forget a key early would let its owner start anew.
    """

    def __init__(self, most: int, window_s: float, keys_max: int, share_max: int) -> None:
        self._most, self._window_s = most, window_s
        self._keys_max, self._share_max = keys_max, share_max
        self._events: OrderedDict[bytes, tuple[bytes, list[float]]] = OrderedDict()  # the latest event last
        self._shares: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._events)

    def take(self, key: bytes, owner: bytes, now: float) -> float:
        """0.0 when the event is admitted and logged; else nothing is, and these are the seconds to wait. `now` never
        falls.
        """
        edge = now - self._window_s
        self._forget(edge)
        entry = self._events.get(key)
        if entry is None:
            if len(self._events) >= self._keys_max or self._shares.get(owner, 0) >= self._share_max:
                return max(ROUNDING, next(iter(self._events.values()))[1][-1] - edge)
            self._shares[owner] = self._shares.get(owner, 0) + 1
            self._events[key] = owner, [now]
            return 0.0
        times = entry[1]
        if len(times) >= self._most:
            if times[0] > edge:
                return times[0] - edge
            del times[0]
        times.append(now)
        self._events.move_to_end(key)
        return 0.0

    def _forget(self, edge: float) -> None:
        events = self._events
        while events:
            key, (owner, times) = next(iter(events.items()))
            if times[-1] > edge:
                return
            del events[key]
            left = self._shares[owner] - 1
            if left:
                self._shares[owner] = left
            else:
                del self._shares[owner]
