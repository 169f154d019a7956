"""Samples of what is said about possession, from the same names as the other samples, which hand in what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.ids import address_of, network_id_of
from protocol.possession import (
    HELD,
    LISTED,
    MEASURED,
    MISSING,
    NOTHING,
    REFUTED,
    SILENT,
    UNLISTED,
    AskAudit,
    AuditRequest,
    Certificate,
    Evidence,
    Finding,
    Place,
    Statement,
)
from protocol.possession_file import sealed
from protocol.records import descriptor_hash, sign
from tests.protocol.sample_keys import digest, ed, hashed, raw

if TYPE_CHECKING:
    from protocol.messages import Signed

NOW_UNIX_S = 1_800_000_000


def audit_request(descriptor: Signed, **changes: object) -> AuditRequest:
    """What the asset key asks about the sample's five holders."""
    fields: dict[str, object] = {
        "public_key": raw("asset"),
        "descriptor_hash": descriptor_hash(descriptor),
        "requester": digest("requester"),
        "nonce": digest("audit nonce"),
        "time_unix_s": NOW_UNIX_S,
        "places": [Place(index, digest(f"holder {index}")) for index in range(5)],
        "certificate": digest("certificate"),
        "stripe": 0,
        "stripes": 1,
        "previous": NOTHING,
    }
    return AuditRequest(**(fields | changes))  # type: ignore[arg-type]


def statement(descriptor: Signed, chain: list[bytes], **changes: object) -> Statement:
    """What a verifier with that chain saw; holder 4 is the verifier itself."""
    seen = [(HELD, 4, 1_834, MEASURED, LISTED), (HELD, 4, 2_001, 0, LISTED)]
    seen += [(MISSING, 0, 90_000, REFUTED, LISTED), (SILENT, 0, 0, 0, UNLISTED)]
    findings = [
        Finding(index, digest(f"holder {index}"), verdict, leaves, micros, "eu-helsinki", "Öko", place, software)
        for index, (verdict, leaves, micros, place, software) in enumerate(seen)
    ]
    fields: dict[str, object] = {
        "address": address_of(raw("asset")),
        "descriptor_hash": descriptor_hash(descriptor),
        "request": hashed(sign(audit_request(descriptor), ed("asset")).body),
        "region": "eu-helsinki",
        "life": 12,
        "number": NOW_UNIX_S * 1000,
        "previous": NOTHING,
        "time_unix_s": NOW_UNIX_S + 1,
        "findings": findings,
        "chain": chain,
    }
    return Statement(**(fields | changes))  # type: ignore[arg-type]


def signed_statement(descriptor: Signed, chain: list[bytes], **changes: object) -> Signed:
    """That statement, signed by the sample node's operational key."""
    return sign(statement(descriptor, chain, **changes), ed("node leaf"))


def ask_audit(descriptor: Signed, access: Signed) -> AskAudit:
    """That request, on its way to a verifier."""
    return AskAudit(sign(audit_request(descriptor), ed("asset")), descriptor, access)


def certificate(descriptor: Signed, chain: list[bytes]) -> Certificate:
    """A certificate of one stripe and one verifier: well formed; whether that is a quorum is not asked here."""
    evidence = Evidence(ask_audit(descriptor, descriptor).request, descriptor, [signed_statement(descriptor, chain)])
    return Certificate(network_id_of(b"of the sample"), [evidence])


def certificate_file(descriptor: Signed, chain: list[bytes]) -> bytes:
    """The file of it, sealed by the asset key."""
    return sealed(certificate(descriptor, chain), raw("asset"), ed("asset"))
