"""What a possession certificate proves: every signature in it checked again, and the votes on every index counted.

Pure: the bytes of a file and the root of a network are all that is needed, so that a stranger's machine can do it. An
index is held when verifiers of a quorum of operators saw some node hold it: who runs two nodes has one voice. What no
file can show: whether a signer was revoked later, whether it was near enough to be asked, and whether a whole quorum
lied. Source: SPEC.md, Possession certificates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.possession import VERDICTS, Asked, Witness, asked, witnessed
from lockbox_node.errors import CertificateInvalid, LockboxError
from protocol.errors import RemoteProtocolError
from protocol.possession import HELD
from protocol.possession_file import file_digest, unsealed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.core.audit import Verdict
    from protocol.certificates import NetworkRoot
    from protocol.ids import Address
    from protocol.possession import Evidence, Finding

HINT = "it proves nothing; ask its owner for another one"


@dataclass(frozen=True, slots=True)
class Failing:
    """A node that did not show what it was asked for: what so many verifiers saw of it."""

    node: bytes
    verdict: Verdict
    verifiers: int


@dataclass(frozen=True, slots=True)
class IndexVotes:
    """One shard index: who saw it held. Regions, location and software are those of the nodes that held it."""

    index: int
    held_by: int  # operators whose verifiers saw it held
    verifiers: int  # operators whose verifiers looked at it
    round_trip_us: int  # the worst of those that showed it
    nodes: tuple[bytes, ...]
    regions: tuple[str, ...]
    locations: tuple[int, ...]  # numbers of a Finding, as any verifier had it
    software: tuple[int, ...]
    failing: tuple[Failing, ...]


@dataclass(frozen=True, slots=True)
class Certified:
    """One stripe of a certificate that holds."""

    asked: Asked
    witnesses: tuple[Witness, ...]
    votes: tuple[IndexVotes, ...]

    @property
    def held(self) -> int:
        """Indices that a quorum saw held."""
        return sum(one.held_by >= self.asked.tier.quorum for one in self.votes)

    @property
    def margin(self) -> int:
        """How many of those may still vanish; negative when too few are left to rebuild it."""
        return self.asked.tier.margin(self.held)


@dataclass(frozen=True, slots=True)
class Examined:
    """A certificate that holds."""

    digest: bytes  # of its file: how a later one names it
    network: bytes
    stripes: tuple[Certified, ...]

    @property
    def address(self) -> Address:
        """Of the asset: that of its first stripe."""
        return self.stripes[0].asked.address

    @property
    def previous(self) -> bytes:
        """The digest of the certificate that it follows; NOTHING when it follows none."""
        return self.stripes[0].asked.request.previous

    @property
    def times_unix_s(self) -> tuple[int, int]:
        """When the first and the last statement were made."""
        times = [one.statement.time_unix_s for stripe in self.stripes for one in stripe.witnesses]
        return min(times), max(times)

    @property
    def whole(self) -> bool:
        """A quorum saw every index of every stripe held."""
        return all(stripe.held == stripe.asked.tier.n for stripe in self.stripes)

    @property
    def margin(self) -> int:
        """The least of any stripe."""
        return min(stripe.margin for stripe in self.stripes)

    @property
    def witnesses(self) -> list[Witness]:
        """All of them."""
        return [one for stripe in self.stripes for one in stripe.witnesses]


def examined(root: NetworkRoot, file: bytes) -> Examined:
    """What the bytes of a certificate file prove in that network. CertificateInvalid says why they prove nothing."""
    try:
        return _examined(root, file)
    except (LockboxError, RemoteProtocolError) as error:
        raise CertificateInvalid(str(error), HINT) from None


def _examined(root: NetworkRoot, file: bytes) -> Examined:
    certificate, sealed_by = unsealed(file)
    if certificate.network != root.network_id:
        raise RemoteProtocolError(f"the certificate is of another network, {certificate.network.hex()}")
    stripes = tuple(_certified(root, evidence) for evidence in certificate.stripes)
    first = stripes[0].asked.request
    if first.stripes != len(stripes):
        raise RemoteProtocolError(f"{len(stripes)} stripes are here, where its owner asked about {first.stripes}")
    for number, stripe in enumerate(stripes):
        request = stripe.asked.request
        if (request.stripe, request.stripes) != (number, len(stripes)):
            raise RemoteProtocolError(f"another stripe stands in the place of stripe {number}")
        named = (request.certificate, request.previous, request.requester)
        if named != (first.certificate, first.previous, first.requester):
            raise RemoteProtocolError(f"stripe {number} is of another certificate")
    if len({stripe.asked.tier.number for stripe in stripes}) > 1:
        raise RemoteProtocolError("its stripes are of several tiers: no asset is")
    if sealed_by != first.public_key:
        raise RemoteProtocolError("the certificate is sealed by another key than that of its asset")
    return Examined(file_digest(file), certificate.network, stripes)


def _certified(root: NetworkRoot, evidence: Evidence) -> Certified:
    audit = asked(evidence.request, evidence.descriptor)
    witnesses = tuple(witnessed(root, audit, signed) for signed in evidence.statements)
    require_quorum(audit, witnesses)
    return Certified(audit, witnesses, votes(audit, witnesses))


def require_quorum(audit: Asked, witnesses: Sequence[Witness]) -> None:
    """RemoteProtocolError unless enough distinct verifiers, of enough operators, have stated something, once each."""
    signers = {one.signer.id for one in witnesses}
    operators = {one.signer.operator for one in witnesses}
    quorum = audit.tier.quorum
    if len(signers) < len(witnesses):
        raise RemoteProtocolError("several statements of one verifier about one stripe")
    if len(signers) < quorum or len(operators) < quorum:
        raise RemoteProtocolError(
            f"statements of {len(signers)} verifiers of {len(operators)} operators, where {audit.tier.name} needs "
            f"{quorum} of {quorum}"
        )


def votes(audit: Asked, witnesses: Sequence[Witness]) -> tuple[IndexVotes, ...]:
    """The votes on every index from 0 to n - 1; on those that no place names there are none."""
    said: dict[int, list[tuple[str, Finding]]] = defaultdict(list)
    for one in witnesses:
        for finding in one.statement.findings:
            said[finding.index].append((one.signer.operator, finding))
    return tuple(_votes(index, said[index]) for index in range(audit.tier.n))


def _votes(index: int, said: Sequence[tuple[str, Finding]]) -> IndexVotes:
    findings = [finding for _, finding in said if finding.verdict == HELD]
    failing = Counter((finding.node, finding.verdict) for _, finding in said if finding.verdict != HELD)
    return IndexVotes(
        index,
        len({operator for operator, finding in said if finding.verdict == HELD}),
        len({operator for operator, _ in said}),
        max((finding.round_trip_us for finding in findings), default=0),
        tuple(sorted({finding.node for finding in findings})),
        tuple(sorted({finding.region for finding in findings})),
        tuple(sorted({finding.location for finding in findings})),
        tuple(sorted({finding.software for finding in findings})),
        tuple(Failing(node, VERDICTS[verdict], count) for (node, verdict), count in sorted(failing.items())),
    )
