"""Certificates on paper: an owner that asks, verifiers with real certificates that state what a test wants them to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.core.audit import Verdict
from lockbox_node.core.possession import Asked, Sight, asked, finding_of, places_of
from lockbox_node.core.tiers import BASIC
from protocol.possession import LISTED, MEASURED, NOTHING, AuditRequest, Certificate, Evidence, Place, Statement
from protocol.possession_file import sealed
from protocol.records import AccessClaim, sign
from simulations.identities import NOW_UNIX_S
from tests.fakes.granting import network, verifier
from tests.fakes.stripes import AssetSigner, Stripe, bytes_of, make_stripe, node_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lockbox_node.core.tiers import Tier
    from protocol.messages import Signed
    from simulations.identities import FakeIdentity

PROVE = 11
CLIENT = bytes_of("client")


def stripe_of(seed: object, tier: Tier = BASIC) -> Stripe:
    """A stripe of that tier, small."""
    return make_stripe(seed, tier=(tier.number, tier.k, tier.n))


def places(tier: Tier = BASIC) -> list[Place]:
    """Index i at node i."""
    return [Place(index, node_of(index)) for index in range(tier.n)]


def request_of(stripe: Stripe, /, **changes: object) -> Signed:
    """What the owner asks about a stripe."""
    fields: dict[str, object] = {
        "public_key": stripe.signer.public_key,
        "descriptor_hash": stripe.parts[0].descriptor_hash,
        "requester": CLIENT,
        "nonce": bytes_of("audit", stripe.signer.address),
        "time_unix_s": int(NOW_UNIX_S),
        "places": [Place(index, node_of(index)) for index in range(stripe.descriptor.n)],
        "certificate": bytes_of("certificate"),
        "stripe": 0,
        "stripes": 1,
        "previous": NOTHING,
    }
    return sign(AuditRequest(**(fields | changes)), stripe.signer)  # type: ignore[arg-type]


def leave_for(signer: AssetSigner, own: bytes, time_unix_s: float = NOW_UNIX_S, operation: int = PROVE) -> Signed:
    """What a verifier shows to the holders."""
    claim = AccessClaim(signer.public_key, operation, own, bytes_of("leave", own, length=16), int(time_unix_s))
    return sign(claim, signer)


def statement_by(
    by: FakeIdentity, audit: Asked, seen: Mapping[int, Verdict] | None = None, **changes: object
) -> Signed:
    """What `by` states: everything held, but what `seen` says of an index."""
    verdicts = seen or {}
    sight = Sight("eu-central-1", "op 7", MEASURED, LISTED)
    findings = []
    for place in places_of(audit, by.id):
        verdict = verdicts.get(place.index, Verdict.HELD)
        findings.append(finding_of(audit, place, verdict, 0.0 if verdict is Verdict.SILENT else 0.012, sight))
    fields: dict[str, object] = {
        "address": audit.address,
        "descriptor_hash": audit.descriptor_hash,
        "request": audit.digest,
        "region": "eu-west-1",
        "life": 1,
        "number": 1,
        "previous": NOTHING,
        "time_unix_s": audit.request.time_unix_s + 1,
        "findings": findings,
        "chain": by.chain,
    }
    return sign(Statement(**(fields | changes)), by.key)  # type: ignore[arg-type]


@dataclass
class Paper:
    """A certificate of one or several stripes by verifiers 0, 1, ..., before and after it is sealed."""

    tier: Tier = BASIC
    stripes: int = 1
    seed: object = "asset"
    certificate: bytes = bytes_of("certificate")
    previous: bytes = NOTHING
    time_unix_s: int = int(NOW_UNIX_S)
    life: int = 1
    evidence: list[Evidence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = [stripe_of((self.seed, number), self.tier) for number in range(self.stripes)]
        self.evidence = [self.stripe(number) for number in range(self.stripes)]

    def audit(self, number: int = 0) -> Asked:
        """What is asked about a stripe."""
        return asked(self.request(number), self.parts[number].signed)

    def request(self, number: int = 0, **changes: object) -> Signed:
        """The request of a stripe."""
        fields: dict[str, object] = {
            "stripe": number,
            "stripes": self.stripes,
            "certificate": self.certificate,
            "previous": self.previous,
            "time_unix_s": self.time_unix_s,
            "nonce": bytes_of("audit", self.certificate, number),
        }
        return request_of(self.parts[number], **(fields | changes))

    def stripe(self, number: int = 0, statements: Sequence[Signed] = ()) -> Evidence:
        """A stripe with these statements, or with those of as many honest verifiers as the tier has."""
        audit = self.audit(number)
        said = list(statements) or [
            statement_by(verifier(one), audit, life=self.life, number=1 + number) for one in range(self.tier.verifiers)
        ]
        return Evidence(self.request(number), self.parts[number].signed, said)

    def stated(self, *statements: Signed) -> Paper:
        """With these statements of the first stripe instead."""
        self.evidence[0] = self.stripe(0, statements)
        return self

    def file(self, signer: AssetSigner | None = None, network_id: bytes = b"") -> bytes:
        """Sealed by the owner, or by somebody else."""
        by = signer or self.parts[0].signer
        certificate = Certificate(network_id or network().root.network_id, self.evidence)
        return sealed(certificate, by.public_key, by)
