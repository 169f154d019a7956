"""Verifiers on paper: real node identities that sign grants as a test wants them."""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import TYPE_CHECKING

from lockbox_node.core.grants import LIFE_S, Around
from lockbox_node.core.placement import Candidate
from protocol.grants import Grant, GrantRequest
from protocol.ids import address_of, distance
from protocol.messages import NUMBERS, GetShards
from protocol.records import parse, sign
from simulations.identities import FakeNetwork
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner, bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.messages import Signed
    from simulations.identities import FakeIdentity

GET_SHARDS = NUMBERS[GetShards]
FIRST = 100  # numbers of verifiers begin here
_nonces = count()


@cache
def network() -> FakeNetwork:
    """One authority for all: certificates take their time."""
    return FakeNetwork()


@cache
def verifier(number: int) -> FakeIdentity:
    """Verifier `number`, of operator `number`."""
    return network().node(FIRST + number)


def wish(
    signer: AssetSigner,
    requester: bytes,
    *,
    operation: int = GET_SHARDS,
    nonce: bytes = b"",
    time_unix_s: float = NOW_UNIX_S,
) -> Signed:
    """A signed request for grants; a new nonce each time unless one is given."""
    nonce = nonce or bytes_of("nonce", next(_nonces))
    return sign(GrantRequest(signer.public_key, operation, requester, nonce, int(time_unix_s)), signer)


def grant(by: FakeIdentity, request: Signed, now_unix_s: float = NOW_UNIX_S, **changes: object) -> Signed:
    """What `by` signs for a request, without a look at it."""
    asked = parse(request, GrantRequest)
    fields: dict[str, object] = {
        "address": address_of(asked.public_key),
        "requester": asked.requester,
        "operation": asked.operation,
        "nonce": asked.nonce,
        "expires_unix_s": int(now_unix_s + LIFE_S),
        "chain": by.chain,
    }
    return sign(Grant(**(fields | changes)), by.key)  # type: ignore[arg-type]


def grants(request: Signed, quorum: int = 2, now_unix_s: float = NOW_UNIX_S) -> list[Signed]:
    """Of the first `quorum` verifiers."""
    return [grant(verifier(number), request, now_unix_s) for number in range(quorum)]


def around(own: bytes, verifiers: Sequence[FakeIdentity], revoked: frozenset[bytes] = frozenset()) -> Around:
    """A node that knows these verifiers and itself."""
    members = [Candidate(one.id, f"region {number}", one.operator) for number, one in enumerate(verifiers)]
    members.append(Candidate(own, "here", "us"))
    ids = {one.node for one in members}

    def near(target: bytes, count: int) -> list[Candidate]:
        return sorted(members, key=lambda one: distance(one.node, target))[:count]

    return Around(own, len(members), near, ids.__contains__, revoked)
