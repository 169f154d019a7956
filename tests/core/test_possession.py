"""What a verifier takes for a request, and which statements answer it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from lockbox_node.core.audit import Verdict
from lockbox_node.core.documents import Rules
from lockbox_node.core.location import NOTHING_KNOWN, Judgement
from lockbox_node.core.possession import (
    STRANGER,
    Sight,
    asked,
    finding_of,
    require_leave,
    sight_of,
    witnessed,
)
from lockbox_node.errors import LockboxError
from protocol import possession
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import NUMBERS, GetSlot, Signed
from protocol.possession import Finding, Place, Statement
from protocol.records import NodeRecord, parse, sign
from simulations.identities import NOW_UNIX_S
from tests.fakes.granting import network, verifier
from tests.fakes.possession import CLIENT, PROVE, Paper, leave_for, places, request_of, statement_by, stripe_of
from tests.fakes.stripes import AssetSigner, bytes_of, make_stripe, node_of

ROOT = network().root
STRIPE = stripe_of("asset")
AUDIT = asked(request_of(STRIPE), STRIPE.signed)
OWN = NodeId(verifier(0).id)


def test_proving_is_the_operation_that_holders_are_asked() -> None:
    from protocol.messages import Prove

    assert NUMBERS[Prove] == PROVE


def test_a_request_opens_with_what_it_is_about() -> None:
    assert (AUDIT.address, AUDIT.tier.name) == (STRIPE.signer.address, "basic")
    assert AUDIT.descriptor == STRIPE.descriptor


MANY = sorted((Place(0, bytes_of(number)) for number in range(11)), key=lambda place: place.node)


@pytest.mark.parametrize(
    "changes",
    [
        {"descriptor_hash": bytes(32)},
        {"places": places()[::-1]},
        {"places": [places()[0]] * 2},
        {"places": [Place(5, node_of(5))]},
        {"places": MANY},
        {"stripe": 1},
    ],
)
def test_a_request_that_does_not_fit_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(LockboxError) as refused:
        asked(request_of(STRIPE, **changes), STRIPE.signed)
    assert refused.value.code is ErrorCode.PROOF_INVALID


def test_several_nodes_may_be_named_for_one_index() -> None:
    twice = sorted([*places(), Place(2, node_of(9))], key=lambda place: (place.index, place.node))
    assert asked(request_of(STRIPE, places=twice), STRIPE.signed).request.places == twice


def test_a_descriptor_of_another_code_or_without_shards_is_refused() -> None:
    odd = make_stripe("odd", tier=(0, 2, 5))
    with pytest.raises(LockboxError) as refused:
        asked(request_of(odd), odd.signed)
    assert refused.value.code is ErrorCode.TIER_VIOLATION
    empty = make_stripe("empty", tier=(0, 3, 5), groups=0)
    with pytest.raises(LockboxError, match="without shards"):
        asked(request_of(empty), empty.signed)


def test_somebody_elses_signature_asks_nothing() -> None:
    forged = Signed(request_of(STRIPE).body, AssetSigner("thief").sign(b"whatever"))
    with pytest.raises(RemoteProtocolError):
        asked(forged, STRIPE.signed)
    with pytest.raises(LockboxError, match="another descriptor"):
        asked(request_of(STRIPE), stripe_of("other").signed)


def leave_code(access: Signed, requester: bytes = CLIENT, now_unix_s: float = NOW_UNIX_S) -> ErrorCode | None:
    try:
        require_leave(AUDIT, access, requester, OWN, now_unix_s)
    except (LockboxError, RemoteProtocolError) as refusal:
        return refusal.code
    return None


def test_leave_is_for_this_verifier_asset_and_moment() -> None:
    good = leave_for(STRIPE.signer, OWN)
    assert leave_code(good) is None
    assert leave_code(good, requester=bytes_of("another client")) is ErrorCode.ACCESS_DENIED
    assert leave_code(leave_for(STRIPE.signer, verifier(1).id)) is ErrorCode.ACCESS_DENIED
    assert leave_code(leave_for(AssetSigner("thief"), OWN)) is ErrorCode.ACCESS_DENIED
    assert leave_code(leave_for(STRIPE.signer, OWN, operation=NUMBERS[GetSlot])) is ErrorCode.ACCESS_DENIED
    assert leave_code(Signed(good.body, bytes(64))) is ErrorCode.PROOF_INVALID


@pytest.mark.parametrize(("age_s", "taken"), [(-31, False), (-30, True), (0, True), (120, True), (121, False)])
def test_a_request_is_fresh_by_less_than_holders_allow(age_s: float, taken: bool) -> None:
    access = leave_for(STRIPE.signer, OWN, NOW_UNIX_S + age_s)  # the claim itself is always fresh
    assert (leave_code(access, now_unix_s=NOW_UNIX_S + age_s) is None) is taken


@pytest.mark.parametrize(("age_s", "taken"), [(-31, False), (-30, True), (120, True), (121, False)])
def test_so_is_the_leave(age_s: float, taken: bool) -> None:
    access = leave_for(STRIPE.signer, OWN, NOW_UNIX_S - age_s)
    assert (leave_code(access) is None) is taken


def test_an_honest_statement_is_a_testimony_of_its_signer() -> None:
    signed = statement_by(verifier(1), AUDIT, {2: Verdict.MISSING, 4: Verdict.SILENT})
    found = witnessed(ROOT, AUDIT, signed)
    assert found.signer.id == verifier(1).id
    assert [finding.verdict for finding in found.statement.findings] == [0, 0, 1, 0, 3]


def test_a_verifier_that_is_a_holder_says_nothing_of_itself() -> None:
    own = verifier(1)
    named = sorted([*places()[:4], Place(4, own.id)], key=lambda place: place.index)
    audit = asked(request_of(STRIPE, places=named), STRIPE.signed)
    honest = statement_by(own, audit)
    assert len(witnessed(ROOT, audit, honest).statement.findings) == 4
    boast = finding_of(audit, named[4], Verdict.HELD, 0.01, STRANGER)
    said = parse(honest, Statement).findings
    with pytest.raises(RemoteProtocolError, match="other holders"):
        witnessed(ROOT, audit, statement_by(own, audit, findings=[*said, boast]))


FINDINGS = parse(statement_by(verifier(1), AUDIT), Statement).findings


@pytest.mark.parametrize(
    "changes",
    [
        {"address": bytes(32)},
        {"descriptor_hash": bytes(32)},
        {"request": bytes(32)},
        {"time_unix_s": int(NOW_UNIX_S) - 61},
        {"time_unix_s": int(NOW_UNIX_S) + 601},
        {"findings": FINDINGS[:-1]},
        {"findings": FINDINGS[::-1]},
        {"findings": [*FINDINGS[:-1], msgspec.structs.replace(FINDINGS[-1], node=node_of(77))]},
        {"findings": [*FINDINGS[:-1], msgspec.structs.replace(FINDINGS[-1], leaves=1)]},
        {"findings": [*FINDINGS[:-1], msgspec.structs.replace(FINDINGS[-1], verdict=possession.SILENT)]},
    ],
)
def test_a_statement_that_does_not_answer_the_request_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        witnessed(ROOT, AUDIT, statement_by(verifier(1), AUDIT, None, **changes))


def test_a_statement_is_a_nodes_own() -> None:
    said = parse(statement_by(verifier(1), AUDIT), Statement)
    client = network().client(5)
    with pytest.raises(RemoteProtocolError, match="no node"):
        witnessed(ROOT, AUDIT, sign(msgspec.structs.replace(said, chain=client.chain), client.key))
    with pytest.raises(RemoteProtocolError, match="signature"):
        witnessed(ROOT, AUDIT, sign(said, verifier(2).key))


def test_a_statement_replayed_for_another_request_is_none() -> None:
    again = asked(request_of(STRIPE, nonce=bytes_of("another")), STRIPE.signed)
    with pytest.raises(RemoteProtocolError, match="another request"):
        witnessed(ROOT, again, statement_by(verifier(1), AUDIT))


def test_what_is_known_of_a_node_is_told_by_number() -> None:
    signed = verifier(2).record
    assert signed is not None
    record = parse(signed, NodeRecord)
    node = NodeId(record.node)
    assert sight_of(None, NOTHING_KNOWN, Rules(), NOW_UNIX_S) == STRANGER
    claimed = sight_of(record, NOTHING_KNOWN, Rules(), NOW_UNIX_S)
    assert claimed == Sight(record.region, record.operator, possession.CLAIMED, possession.UNLISTED)
    measured = Judgement({}, frozenset({node}), (), doubted=False)
    refuted = replace(measured, refuted={node: ()})
    assert sight_of(record, measured, Rules(), NOW_UNIX_S).location == possession.MEASURED
    assert sight_of(record, refuted, Rules(), NOW_UNIX_S).location == possession.REFUTED
    levels = [
        sight_of(record, NOTHING_KNOWN, Rules(releases=releases), NOW_UNIX_S).software
        for releases in ({record.software: 0}, {bytes(32): 0}, {record.software: int(NOW_UNIX_S) - 1})
    ]
    assert levels == [possession.LISTED, possession.REFUSED, possession.REFUSED]


def test_a_round_trip_is_told_as_a_bound() -> None:
    place = places()[0]
    held = finding_of(AUDIT, place, Verdict.HELD, 0.0000121, STRANGER)
    assert held == Finding(0, place.node, 0, 2, 13, "", "", 0, 0)
    forever = finding_of(AUDIT, place, Verdict.MISSING, 1e9, STRANGER)
    assert (forever.round_trip_us, forever.leaves) == (2**32 - 1, 0)


def test_every_stripe_of_a_paper_is_asked_for_itself() -> None:
    paper = Paper(stripes=2)
    assert [paper.audit(number).request.stripe for number in range(2)] == [0, 1]
