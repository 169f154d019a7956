"""Who verifies, what a request and a grant must say, and how many a holder asks."""

from __future__ import annotations

import msgspec
import pytest

from lockbox_node.core.grants import (
    NEAR,
    Around,
    Needed,
    independent,
    is_quorum,
    judge_request,
    needed,
    require_grants,
    require_near,
    target_of,
    verifier_order,
)
from lockbox_node.core.placement import Candidate
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.grants import GrantRequest
from protocol.ids import distance
from protocol.messages import NUMBERS, GetSlot, Signed
from protocol.records import parse
from simulations.identities import FakeNetwork
from tests.fakes.granting import GET_SHARDS, around, grant, grants, network, verifier, wish
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner, bytes_of, node_of

OWN, CLIENT, OTHER = node_of(0), bytes_of("client"), bytes_of("another client")
SIGNER = AssetSigner("asset")
VERIFIERS = [verifier(number) for number in range(5)]
SEEN = around(OWN, VERIFIERS)
TWO = Needed(2, 2)


def request_code(signed: Signed, *, requester: bytes = CLIENT, now: float = NOW_UNIX_S) -> ErrorCode | None:
    try:
        judge_request(parse(signed, GrantRequest), SIGNER.address, GET_SHARDS, requester, now)
    except LockboxError as refusal:
        return refusal.code
    return None


def code(
    granted: list[Signed],
    signed: Signed,
    wanted: Needed = TWO,
    seen: Around = SEEN,
    now: float = NOW_UNIX_S,
) -> ErrorCode | None:
    """What a holder says; None = enough."""
    try:
        require_grants(network().root, granted, parse(signed, GrantRequest), wanted, seen, now)
    except (LockboxError, RemoteProtocolError) as refusal:
        return refusal.code
    return None


@pytest.fixture
def asked() -> Signed:
    return wish(SIGNER, CLIENT)


# Requests


def test_a_request_holds_for_its_requester_operation_and_moment() -> None:
    assert request_code(wish(SIGNER, CLIENT)) is None
    assert request_code(wish(SIGNER, CLIENT), now=NOW_UNIX_S + 300) is None
    assert request_code(wish(SIGNER, CLIENT), now=NOW_UNIX_S - 60) is None


def test_each_wrong_request_has_its_own_code() -> None:
    codes = {
        request_code(wish(AssetSigner("other"), CLIENT)): ErrorCode.ACCESS_DENIED,
        request_code(wish(SIGNER, CLIENT, operation=NUMBERS[GetSlot])): ErrorCode.GRANT_OPERATION,
        request_code(wish(SIGNER, OTHER)): ErrorCode.GRANT_FOREIGN,
        request_code(wish(SIGNER, CLIENT), now=NOW_UNIX_S + 301): ErrorCode.GRANT_EXPIRED,
        request_code(wish(SIGNER, CLIENT), now=NOW_UNIX_S - 61): ErrorCode.GRANT_EARLY,
    }
    assert all(said is wanted for said, wanted in codes.items())
    assert len(codes) == 5


# Grants


def test_a_quorum_of_good_grants_is_enough(asked: Signed) -> None:
    assert code(grants(asked), asked) is None
    assert code(grants(asked, 4), asked, Needed(4, 4)) is None


def test_too_few_are_too_few(asked: Signed) -> None:
    assert code([], asked) is ErrorCode.GRANTS_TOO_FEW
    assert code(grants(asked, 1), asked) is ErrorCode.GRANTS_TOO_FEW
    assert code(grants(asked, 3), asked, Needed(4, 4)) is ErrorCode.GRANTS_TOO_FEW


def test_one_verifier_counts_once(asked: Signed) -> None:
    one = grant(VERIFIERS[0], asked)
    again = grant(VERIFIERS[0], asked, expires_unix_s=NOW_UNIX_S + 60)
    assert code([one, one], asked) is ErrorCode.GRANT_DUPLICATE
    assert code([one, again], asked) is ErrorCode.GRANT_DUPLICATE
    assert code([one, again, grant(VERIFIERS[1], asked)], asked) is None


def test_one_operator_counts_once(asked: Signed) -> None:
    same = [network().node(number, operator="one and the same") for number in (300, 301, 302)]
    seen = around(OWN, [*same, VERIFIERS[0]])
    granted = [grant(one, asked) for one in same]
    assert code(granted, asked, seen=seen) is ErrorCode.GRANTS_TOO_FEW
    assert code([*granted, grant(VERIFIERS[0], asked)], asked, seen=seen) is None
    assert code(granted, asked, Needed(2, 1), seen) is None


def test_each_wrong_grant_has_its_own_code_and_counts_for_nothing(asked: Signed) -> None:
    good, by = grant(VERIFIERS[0], asked), VERIFIERS[1]
    stranger, revoked = network().node(400), around(OWN, VERIFIERS, frozenset({by.id}))
    forged = FakeNetwork(2).node(1)
    cases: list[tuple[Signed, ErrorCode]] = [
        (grant(by, asked, requester=OTHER), ErrorCode.GRANT_FOREIGN),
        (grant(by, asked, operation=NUMBERS[GetSlot]), ErrorCode.GRANT_OPERATION),
        (grant(by, asked, nonce=bytes(32)), ErrorCode.GRANT_INVALID),
        (grant(by, asked, address=AssetSigner("other").address), ErrorCode.GRANT_INVALID),
        (grant(by, asked, expires_unix_s=NOW_UNIX_S - 61), ErrorCode.GRANT_EXPIRED),
        (grant(by, asked, expires_unix_s=NOW_UNIX_S + 181), ErrorCode.GRANT_EARLY),
        (grant(stranger, asked), ErrorCode.GRANT_UNKNOWN_SIGNER),
        (grant(forged, asked), ErrorCode.NOT_A_MEMBER),
        (Signed(good.body, bytes(64)), ErrorCode.PROOF_INVALID),
        (grant(by, wish(SIGNER, CLIENT)), ErrorCode.GRANT_INVALID),
    ]
    for bad, wanted in cases:
        assert code([good, bad], asked) is wanted
        assert code([bad, good, grant(VERIFIERS[2], asked)], asked) is None
    assert code([good, grant(by, asked)], asked, seen=revoked) is ErrorCode.REVOKED


def test_a_holders_own_grant_does_not_count_with_itself(asked: Signed) -> None:
    own = around(VERIFIERS[1].id, VERIFIERS[:1] + VERIFIERS[2:])
    assert code(grants(asked), asked, seen=own) is ErrorCode.GRANT_INVALID
    assert code([*grants(asked), grant(VERIFIERS[2], asked)], asked, seen=own) is None


def test_no_grant_that_differs_by_a_byte_counts(asked: Signed) -> None:
    good, other = grants(asked)
    for at in range(0, len(other.body), 7):
        bad = Signed(other.body[:at] + bytes([other.body[at] ^ 0x10]) + other.body[at + 1 :], other.signature)
        assert code([good, bad], asked) is not None


def a_crowd(count: int) -> Around:
    members = [Candidate(node_of(number), f"region {number % 7}", f"operator {number}") for number in range(count)]

    def near(target: bytes, most: int) -> list[Candidate]:
        return sorted(members, key=lambda one: distance(one.node, target))[:most]

    return Around(OWN, count, near, lambda _node: True, frozenset())


def test_who_is_not_among_the_nearest_is_too_far() -> None:
    seen, target = a_crowd(200), target_of(SIGNER.address)
    order = [one.node for one in seen.near(target, 200)]
    for node in order[:NEAR]:
        require_near(node, target, seen)
    for node in order[NEAR:]:
        with pytest.raises(LockboxError) as refused:
            require_near(node, target, seen)
        assert refused.value.code is ErrorCode.GRANT_FAR
    require_near(node_of(10_000), target, a_crowd(80))


def test_a_grant_by_a_verifier_that_is_too_far_does_not_count(asked: Signed) -> None:
    target = target_of(SIGNER.address)
    close = [Candidate(target[:31] + bytes([number]), "here", f"operator {number}") for number in range(NEAR)]
    seen = Around(OWN, 1000, lambda _target, count: close[:count], lambda _node: True, frozenset())
    assert code(grants(asked), asked, seen=seen) is ErrorCode.GRANT_FAR


# What a holder asks


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_a_holder_asks_the_quorum_of_as_many_operators(tier: object) -> None:
    quorum = tier.quorum  # type: ignore[attr-defined]
    assert needed(quorum, target_of(SIGNER.address), a_crowd(50)) == Needed(quorum, quorum)


def test_lost_regions_lower_what_is_asked_to_what_there_is() -> None:
    target = target_of(SIGNER.address)
    assert needed(4, target, around(OWN, VERIFIERS[:3])) == Needed(3, 3)
    assert needed(2, target, around(OWN, VERIFIERS[:1])) == Needed(1, 1)
    assert needed(2, target, around(OWN, [])) == Needed(0, 0)
    same = [network().node(number, operator="one and the same") for number in range(300, 306)]
    assert needed(4, target, around(OWN, same)) == Needed(4, 1)


def test_operators_are_looked_for_among_all_who_may_verify() -> None:
    target = target_of(SIGNER.address)
    members = sorted((node_of(number) for number in range(60)), key=lambda node: distance(node, target))
    crowd = [Candidate(node, "here", "big" if at < 40 else f"small {at}") for at, node in enumerate(members)]
    seen = Around(OWN, len(crowd), lambda _target, count: crowd[:count], lambda _node: True, frozenset())
    assert needed(4, target, seen) == Needed(4, 4)


# Whom a client asks


def candidate(number: int, region: int, operator: int) -> Candidate:
    return Candidate(node_of(number), f"region {region}", f"operator {operator}")


def test_strangers_of_distinct_regions_come_first_and_holders_last() -> None:
    near = [
        candidate(1, 1, 1),  # a holder
        candidate(2, 1, 1),
        candidate(3, 1, 2),  # the region again
        candidate(4, 2, 3),
        candidate(5, 3, 1),  # the operator again
        candidate(6, 4, 4),  # a holder, and the only node of its operator
    ]
    order = verifier_order(near, {node_of(1), node_of(6)})
    assert [near.index(one) + 1 for one in order] == [2, 4, 3, 6, 5, 1]


def test_a_quorum_is_of_distinct_operators() -> None:
    assert is_quorum(["a", "b"], STANDARD.quorum)
    assert not is_quorum(["a", "a"], STANDARD.quorum)
    assert not is_quorum(["a", "b", "c"], ELITE.quorum)
    assert not is_quorum(["a", "b", "c", "c", "c"], ELITE.quorum)


def test_independent_are_strangers_of_other_operators_and_regions() -> None:
    granted = [candidate(1, 1, 1), candidate(2, 1, 2), candidate(3, 2, 1), candidate(4, 3, 4), candidate(5, 4, 5)]
    assert independent(granted, {node_of(5)}) == 2
    assert independent(granted, {one.node for one in granted}) == 0


def test_what_is_judged_is_the_whole_record() -> None:
    """A field that is added to a grant must be judged, or be known here to need no judgement."""
    assert {field.name for field in msgspec.structs.fields(GrantRequest)} == {
        "public_key", "operation", "requester", "nonce", "time_unix_s",
    }  # fmt: skip
