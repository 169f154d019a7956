"""What a verifier takes for a request to look, what it then states, and when a statement answers a request.

Rules. The owner's request names every place that is to be challenged, so a statement has a finding for each of them but
the signer's own: nobody leaves out a holder, and nobody vouches for itself. A verifier takes only what holders will
take too, by clocks that differ a little: else their refusals would look like losses. No clock and no chance here.
Source: SPEC.md, Possession certificates.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.admission import CLAIM_AHEAD_S, access_claim_judge
from lockbox_node.core.audit import Verdict, proof_leaves
from lockbox_node.core.location import Level
from lockbox_node.core.tiers import Tier, tier_numbered
from lockbox_node.errors import LockboxError
from protocol import possession
from protocol.certificates import verify_statement
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import Address, DescriptorHash, NodeId, address_of
from protocol.messages import NUMBERS, Prove
from protocol.possession import AuditRequest, Finding, Place, Statement
from protocol.records import descriptor_hash, open_access, open_audit_request, open_descriptor

if TYPE_CHECKING:
    from lockbox_node.core.documents import Rules
    from lockbox_node.core.location import Judgement
    from protocol.certificates import NetworkRoot, PeerIdentity
    from protocol.messages import Signed
    from protocol.records import Descriptor, NodeRecord

ASKED_PAST_S = 120.0  # so long ago the owner may have signed, by the verifier's clock
ASKED_AHEAD_S = 30.0
ANSWERED_S = 600.0  # from the request to a statement that answers it
VERDICTS = (Verdict.HELD, Verdict.MISSING, Verdict.CORRUPT, Verdict.SILENT)  # by their number in a Finding
LOCATIONS = ("claimed", "measured", "attested", "refuted")
SOFTWARE = ("unlisted", "listed", "refused")
_U32_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and its descriptor, their signatures checked, that fit one another."""

    request: AuditRequest
    digest: bytes  # how statements name the request
    address: Address
    descriptor: Descriptor
    descriptor_hash: DescriptorHash
    tier: Tier


@dataclass(frozen=True, slots=True)
class Witness:
    """One statement, its chain and signature checked. `digest` = how the signer's next statement names it."""

    statement: Statement
    signer: PeerIdentity
    digest: bytes


@dataclass(frozen=True, slots=True)
class Sight:
    """What a verifier's own view says of a node; the numbers are those of a Finding."""

    region: str = ""
    operator: str = ""
    location: int = possession.CLAIMED
    software: int = possession.UNLISTED


STRANGER = Sight()


def asked(request: Signed, descriptor: Signed) -> Asked:
    """What the owner asks. RemoteProtocolError, LockboxError(PROOF_INVALID, TIER_VIOLATION) when it cannot be so."""
    wish, described = open_audit_request(request), open_descriptor(descriptor)
    named = descriptor_hash(descriptor)
    if (described.public_key, named) != (wish.public_key, wish.descriptor_hash):
        raise _unfit("the request is for another descriptor than the one that comes with it")
    tier = tier_numbered(described.tier)
    if (described.k, described.n) != (tier.k, tier.n):
        raise LockboxError("the descriptor is not coded as its tier is", "lock it again", ErrorCode.TIER_VIOLATION)
    if not described.groups:
        raise _unfit("a stripe without shards, of which nobody can show anything")
    places = [(place.index, place.node) for place in wish.places]
    if any(one >= other for one, other in itertools.pairwise(places)):
        raise _unfit("the places do not rise")
    if places[-1][0] >= described.n or len(places) > 2 * described.n:
        raise _unfit("more places than a stripe can have")
    if wish.stripe >= wish.stripes:
        raise _unfit("a stripe beyond the last one")
    digest = hashlib.sha256(request.body).digest()
    return Asked(wish, digest, address_of(wish.public_key), described, named, tier)


def require_leave(audit: Asked, access: Signed, requester: bytes, own: NodeId, now_unix_s: float) -> None:
    """LockboxError(ACCESS_DENIED) or RemoteProtocolError unless `requester` may have this looked at by `own`, now.

    `access` is what the holders are shown.
    """
    if audit.request.requester != requester:
        raise _denied("the request was signed for another requester")
    claim = open_access(access)
    access_claim_judge(claim, audit.address, NUMBERS[Prove], own, now_unix_s)
    for time_unix_s in (audit.request.time_unix_s, claim.time_unix_s):
        if not -ASKED_AHEAD_S <= now_unix_s - time_unix_s <= ASKED_PAST_S:
            raise _denied("it was not signed just now")


def places_of(audit: Asked, verifier: bytes) -> list[Place]:
    """Whom that verifier challenges: everybody but itself."""
    return [place for place in audit.request.places if place.node != verifier]


def sight_of(record: NodeRecord | None, judgement: Judgement, rules: Rules, now_unix_s: float) -> Sight:
    """What is known of a node; None: of a stranger."""
    if record is None:
        return STRANGER
    node = NodeId(record.node)
    refuted = node in judgement.refuted
    location = possession.REFUTED if refuted else _LEVELS[judgement.level(node)]
    software = possession.UNLISTED
    if rules.releases:
        refused = rules.refuses(record.software, now_unix_s)
        software = possession.REFUSED if refused else possession.LISTED
    return Sight(record.region, record.operator, location, software)


_LEVELS = {
    Level.CLAIMED: possession.CLAIMED,
    Level.MEASURED: possession.MEASURED,
    Level.ATTESTED: possession.ATTESTED,
}


def finding_of(audit: Asked, place: Place, verdict: Verdict, round_trip_s: float, sight: Sight) -> Finding:
    """What is stated of one place."""
    leaves = proof_leaves(audit.descriptor) if verdict is Verdict.HELD else 0
    micros = min(_U32_MAX, math.ceil(round_trip_s * 1_000_000))
    number = VERDICTS.index(verdict)
    return Finding(
        place.index, place.node, number, leaves, micros, sight.region, sight.operator, sight.location, sight.software
    )


def witnessed(root: NetworkRoot, audit: Asked, signed: Signed) -> Witness:
    """What a verifier answers to that request. RemoteProtocolError unless it is a node's, signed, and answers it."""
    statement, signer = verify_statement(root, signed)
    said = (statement.address, statement.descriptor_hash, statement.request)
    if said != (audit.address, audit.descriptor_hash, audit.digest):
        raise RemoteProtocolError("a statement that answers another request")
    if not -CLAIM_AHEAD_S <= statement.time_unix_s - audit.request.time_unix_s <= ANSWERED_S:
        raise RemoteProtocolError("a statement from another time than its request")
    wanted = [(place.index, place.node) for place in places_of(audit, signer.id)]
    if [(finding.index, finding.node) for finding in statement.findings] != wanted:
        raise RemoteProtocolError("a statement about other holders than those that were asked for")
    leaves = proof_leaves(audit.descriptor)
    if any(finding.leaves != leaves * (finding.verdict == possession.HELD) for finding in statement.findings):
        raise RemoteProtocolError("a statement by fewer leaves than must be shown")
    return Witness(statement, signer, hashlib.sha256(signed.body).digest())


def _unfit(why: str) -> LockboxError:
    return LockboxError(why, "sign another request", ErrorCode.PROOF_INVALID)


def _denied(why: str) -> LockboxError:
    return LockboxError(why, "check the clock and sign a new request", ErrorCode.ACCESS_DENIED)
