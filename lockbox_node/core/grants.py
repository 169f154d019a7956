"""Grants: whom to ask for them, who may have one, and how many a holder wants to see before it serves.

Rules. Verifiers of an address are live nodes near SHA-256(address); asking the same few first makes a rate limit at
each of them bound the whole network. A holder goes by its own view: it asks min(q, live candidates) grants, from
min(q, operators with a live candidate) distinct operators, so that lost regions lock nobody out, and counts no grant of
its own. A bad grant counts for nothing and spoils no good one. No clock and no chance here. Source: SPEC.md, Grants.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.admission import CLAIM_AHEAD_S, CLAIM_PAST_S
from lockbox_node.errors import LockboxError
from protocol.certificates import verify_grant
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import address_of, distance
from protocol.messages import NUMBERS, GetShards

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Sequence

    from lockbox_node.core.placement import Candidate
    from protocol.certificates import NetworkRoot, PeerIdentity
    from protocol.grants import Grant, GrantRequest
    from protocol.messages import Signed

NEAR = 80  # a verifier of an address has fewer live nodes than these nearer to its target
LIFE_S = 120.0  # of a grant, by its verifier's clock
GRANTED = frozenset((NUMBERS[GetShards],))  # operations that need grants
LOOK_FIRST = 12  # nearest candidates that nearly always settle what a holder may ask


@dataclass(frozen=True, slots=True)
class Around:
    """What a node sees of the members. `near(target, count)`: live ones, itself included, nearest first."""

    own: bytes
    live: int  # members believed alive, itself included
    near: Callable[[bytes, int], Sequence[Candidate]]
    known: Callable[[bytes], bool]
    revoked: Collection[bytes]


@dataclass(frozen=True, slots=True)
class Needed:
    """How many grants, and of how many distinct operators."""

    grants: int
    operators: int


def target_of(address: bytes) -> bytes:
    """Verifiers of `address` are near to this: elsewhere than its holders."""
    return hashlib.sha256(address).digest()


def judge_request(request: GrantRequest, address: bytes, operation: int, requester: bytes, now_unix_s: float) -> None:
    """LockboxError unless a request (its signature checked) is for exactly this, now.

    ACCESS_DENIED: the key of another address; GRANT_OPERATION, GRANT_FOREIGN, GRANT_EXPIRED, GRANT_EARLY.
    """
    if address_of(request.public_key) != address:
        raise _refused(ErrorCode.ACCESS_DENIED, "the request is signed by the key of another address")
    if request.operation != operation or operation not in GRANTED:
        raise _refused(ErrorCode.GRANT_OPERATION, "the request was signed for another operation")
    if request.requester != requester:
        raise _refused(ErrorCode.GRANT_FOREIGN, "the request was signed for another requester")
    age_s = now_unix_s - request.time_unix_s
    if age_s > CLAIM_PAST_S:
        raise _refused(ErrorCode.GRANT_EXPIRED, "the request is too old", "check the clock and sign again")
    if age_s < -CLAIM_AHEAD_S:
        raise _refused(ErrorCode.GRANT_EARLY, "the request is from the future", "check the clock and sign again")


def judge_grant(grant: Grant, signer: PeerIdentity, request: GrantRequest, around: Around, now_unix_s: float) -> None:
    """LockboxError unless a grant (its chain and signature checked) is for `request`, holds now, and `signer` may give
    it.

    GRANT_FOREIGN, GRANT_OPERATION, GRANT_INVALID, GRANT_EXPIRED, GRANT_EARLY, REVOKED, GRANT_UNKNOWN_SIGNER, GRANT_FAR.
    The times of the signer's certificates are not judged: no paperwork makes data unreadable.
    """
    if grant.requester != request.requester:
        raise _refused(ErrorCode.GRANT_FOREIGN, "a grant for another requester")
    if grant.operation != request.operation:
        raise _refused(ErrorCode.GRANT_OPERATION, "a grant for another operation")
    address = address_of(request.public_key)
    if (grant.address, grant.nonce) != (address, request.nonce):
        raise _refused(ErrorCode.GRANT_INVALID, "a grant for another request")
    left_s = grant.expires_unix_s - now_unix_s
    if left_s < -CLAIM_AHEAD_S:
        raise _refused(ErrorCode.GRANT_EXPIRED, "a grant that has expired")
    if left_s > LIFE_S + CLAIM_AHEAD_S:
        raise _refused(ErrorCode.GRANT_EARLY, "a grant that would hold for too long")
    if signer.id in around.revoked:
        raise _refused(ErrorCode.REVOKED, "a grant by a node that is revoked")
    if signer.id == around.own:
        raise _refused(ErrorCode.GRANT_INVALID, "a holder's own grant does not count with itself")
    if not around.known(signer.id):
        raise _refused(ErrorCode.GRANT_UNKNOWN_SIGNER, "a grant by a node that is not known here")
    require_near(signer.id, target_of(address), around)


def require_near(node: bytes, target: bytes, around: Around) -> None:
    """LockboxError(GRANT_FAR) unless fewer than NEAR live nodes are nearer to `target` than `node`."""
    if around.live <= NEAR:
        return
    farthest = around.near(target, NEAR)[-1].node
    if distance(node, target) > distance(farthest, target):
        raise _refused(ErrorCode.GRANT_FAR, "a verifier that is too far from this address")


def needed(quorum: int, target: bytes, around: Around) -> Needed:
    """What a holder asks, by its own view."""
    candidates = _others(target, LOOK_FIRST, around)
    if len({one.operator for one in candidates}) < quorum and around.live > LOOK_FIRST:
        candidates = _others(target, NEAR, around)
    return Needed(min(quorum, len(candidates)), min(quorum, len({one.operator for one in candidates})))


def _others(target: bytes, count: int, around: Around) -> list[Candidate]:
    return [one for one in around.near(target, count) if one.node != around.own]


def require_grants(
    root: NetworkRoot,
    grants: Sequence[Signed],
    request: GrantRequest,
    wanted: Needed,
    around: Around,
    now_unix_s: float,
) -> None:
    """LockboxError or RemoteProtocolError unless enough of `grants` hold: what was wrong with the first that does not,
    GRANT_DUPLICATE, else GRANTS_TOO_FEW.
    """
    operators: dict[bytes, str] = {}
    refusals: list[LockboxError | RemoteProtocolError] = []
    for signed in grants:
        if _is_enough(operators, wanted):
            return
        try:
            grant, signer = verify_grant(root, signed)
            judge_grant(grant, signer, request, around, now_unix_s)
        except (LockboxError, RemoteProtocolError) as refusal:
            refusals.append(refusal)
            continue
        if signer.id in operators:
            refusals.append(_refused(ErrorCode.GRANT_DUPLICATE, "several grants of one verifier count as one"))
        operators[signer.id] = signer.operator
    if _is_enough(operators, wanted):
        return
    raise refusals[0] if refusals else _too_few(len(operators), wanted)


def _is_enough(operators: dict[bytes, str], wanted: Needed) -> bool:
    return len(operators) >= wanted.grants and len(set(operators.values())) >= wanted.operators


def _too_few(good: int, wanted: Needed) -> LockboxError:
    error = _refused(
        ErrorCode.GRANTS_TOO_FEW,
        f"{good} good grants; needed here: {wanted.grants}, of {wanted.operators} operators",
        "ask more verifiers",
    )
    error.retryable, error.retry_after_s = True, 1.5  # nodes that are gone count until this holder has noticed
    return error


def verifier_order(near: Sequence[Candidate], holders: Container[bytes]) -> list[Candidate]:
    """Whom to ask, best first; `near` = candidates by distance from the target.

    A holder wants distinct operators, so those come first; among them nodes that hold nothing, in distinct regions.
    """
    order: list[Candidate] = []
    operators: set[str] = set()
    regions: set[str] = set()

    def take(wants: Callable[[Candidate], bool]) -> None:
        for one in near:
            if one not in order and wants(one):
                order.append(one)
                operators.add(one.operator)
                regions.add(one.region)

    take(lambda one: one.node not in holders and one.operator not in operators and one.region not in regions)
    take(lambda one: one.node not in holders and one.operator not in operators)
    take(lambda one: one.operator not in operators)
    take(lambda one: one.node not in holders)
    take(lambda _one: True)
    return order


def is_quorum(operators: Sequence[str], quorum: int) -> bool:
    """Whether grants by nodes of these operators satisfy every holder, whatever it sees."""
    return len(operators) >= quorum and len(set(operators)) >= quorum


def independent(granted: Sequence[Candidate], holders: Container[bytes]) -> int:
    """How many of those who granted hold nothing of the stripe and are of distinct operators and regions."""
    operators: set[str] = set()
    regions: set[str] = set()
    for one in granted:
        if one.node not in holders and one.operator not in operators and one.region not in regions:
            operators.add(one.operator)
            regions.add(one.region)
    return len(operators)


def _refused(code: ErrorCode, why: str, hint: str = "ask verifiers for new grants") -> LockboxError:
    return LockboxError(why, hint, code)
