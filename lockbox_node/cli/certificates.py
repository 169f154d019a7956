"""`lockbox-node verify-certificate`: what possession certificates prove, on a machine with nothing but the files.

No socket is opened and no wallet is needed: the root in network.pem, and what verifiers signed. Exit codes: 0 a quorum
saw everything held; 8 the certificates hold, but not every index was; 4 one does not hold, or a signer contradicts
itself, which is a proof against it. CONTRACT, Programs.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli.output import counted, emit, json_option, report, reporting
from lockbox_node.errors import CertificateInvalid, ExitCode, UsageError
from protocol.possession import CERTIFICATE_BYTES_MAX, NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lockbox_node.core.certified import Certified, Examined, IndexVotes
    from lockbox_node.core.contradictions import Contradiction

_FILE = click.Path(path_type=Path, dir_okay=False)
_MICROS_PER_MS = 1000
_SHORT = 8  # hex digits of an id that are shown


@click.command(name="verify-certificate")
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option(
    "--network", type=_FILE, default=Path("network.pem"), show_default=True, help="The network.pem of the network."
)
@json_option
@reporting
def verify_certificate(files: tuple[Path, ...], network: Path, as_json: bool) -> int:
    """Check possession certificates, and what they say of one another.

    Example: lockbox-node verify-certificate k3v7.cert --network network.pem
    """
    from lockbox_node.adapters.identity import NetworkFile
    from lockbox_node.core.certified import examined
    from lockbox_node.core.contradictions import contradictions, predecessors

    root = NetworkFile.load(network).root
    found: list[Examined] = []
    for path in files:
        try:
            found.append(examined(root, read_certificate(path)))
        except CertificateInvalid as error:
            raise CertificateInvalid(f"{path}: {error.message}", error.hint) from None
    before = predecessors(found)
    names = {one.digest: str(path) for path, one in zip(files, found, strict=True)}
    proofs = contradictions(witness for one in found for witness in one.witnesses)
    payload = {
        "valid": not proofs,
        "network": root.network_id.hex(),
        "certificates": [_payload(names[one.digest], one) for one in found],
        "contradictions": [_proof_payload(proof) for proof in proofs],
    }
    lines = [f"network {root.network_id.hex()}"]
    for one, earlier in zip(found, before, strict=True):
        lines += ["", *_words(names[one.digest], one, None if earlier is None else names[earlier.digest])]
    lines += [_proof_words(proof) for proof in proofs]
    emit(as_json, payload, "\n".join(lines))
    if proofs:
        if not as_json:
            report("lockbox-node", _contradicted(proofs), as_json=False)
        return ExitCode.REFUSED
    return ExitCode.DONE if all(one.whole for one in found) else ExitCode.DEGRADED


def read_certificate(path: Path) -> bytes:
    """The bytes of a file that is no larger than a certificate may be. UsageError, CertificateInvalid."""
    try:
        with path.open("rb") as file:
            content = file.read(CERTIFICATE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "give a possession certificate") from None
    if len(content) > CERTIFICATE_BYTES_MAX:
        raise CertificateInvalid("it is larger than any possession certificate", "give another file")
    return content


# As an object


def _payload(name: str, one: Examined) -> dict[str, Any]:
    first, last = one.times_unix_s
    tier = one.stripes[0].asked.tier
    return {
        "file": name,
        "digest": one.digest.hex(),
        "previous": None if one.previous == NOTHING else one.previous.hex(),
        "address": one.address.hex(),
        "tier": tier.name,
        "quorum": tier.quorum,
        "needed": tier.k,
        "stated_unix_s": [first, last],
        "held": one.whole,
        "margin": one.margin,
        "stripes": [_stripe_payload(stripe) for stripe in one.stripes],
    }


def _stripe_payload(stripe: Certified) -> dict[str, Any]:
    return {
        "stripe": stripe.asked.request.stripe,
        "address": stripe.asked.address.hex(),
        "descriptor": stripe.asked.descriptor_hash.hex(),
        "margin": stripe.margin,
        "verifiers": [
            {"node": one.signer.id.hex(), "operator": one.signer.operator, "region": one.statement.region}
            for one in stripe.witnesses
        ],
        "indices": [_votes_payload(votes) for votes in stripe.votes],
    }


def _votes_payload(votes: IndexVotes) -> dict[str, Any]:
    return {
        "index": votes.index,
        "held_by": votes.held_by,
        "verifiers": votes.verifiers,
        "nodes": [node.hex() for node in votes.nodes],
        "round_trip_us": votes.round_trip_us,
        "regions": list(votes.regions),
        "location": _locations(votes),
        "software": _software(votes),
        "failing": [
            {"node": one.node.hex(), "verdict": one.verdict.value, "verifiers": one.verifiers} for one in votes.failing
        ],
    }


def _proof_payload(proof: Contradiction) -> dict[str, Any]:
    return {
        "node": proof.node.hex(),
        "operator": proof.one.signer.operator,
        "shared": proof.shared,
        "statements": [proof.one.digest.hex(), proof.other.digest.hex()],
    }


def _locations(votes: IndexVotes) -> list[str]:
    from lockbox_node.core.possession import LOCATIONS

    return [LOCATIONS[number] for number in votes.locations]


def _software(votes: IndexVotes) -> list[str]:
    from lockbox_node.core.possession import SOFTWARE

    return [SOFTWARE[number] for number in votes.software]


# As words


def _words(name: str, one: Examined, earlier: str | None) -> Iterator[str]:
    first, last = (datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat() for at in one.times_unix_s)
    tier = one.stripes[0].asked.tier
    yield f"{name}  {'held' if one.whole else 'NOT ALL HELD'}"
    yield f"  digest      {one.digest.hex()}"
    yield f"  follows     {_follows(one, earlier)}"
    yield f"  asset       {one.address.hex()}"
    yield f"  tier        {tier.name}: any {tier.k} of {tier.n} shards rebuild it; quorum {tier.quorum}"
    yield f"  stated      {first}" + ("" if first == last else f" to {last}")
    yield f"  margin      {_margin(one.margin)}"
    for stripe in one.stripes:
        yield from _stripe_words(stripe, len(one.stripes))


def _follows(one: Examined, earlier: str | None) -> str:
    if one.previous == NOTHING:
        return "nothing: it is the first of its chain"
    return earlier or f"{one.previous.hex()}, which is not among these files"


def _margin(margin: int) -> str:
    if margin < 0:
        return f"LOST: {counted(-margin, 'shard')} too few were seen"
    return f"{counted(margin, 'shard')} may still vanish"


def _stripe_words(stripe: Certified, stripes: int) -> Iterator[str]:
    said = stripe.asked
    yield f"  stripe {said.request.stripe + 1} of {stripes}  descriptor {said.descriptor_hash.hex()}"
    yield f"    {counted(len(stripe.witnesses), 'verifier')}: " + ", ".join(
        f"{one.signer.id.hex()[:_SHORT]} of {_shown(one.signer.operator)} in {_shown(one.statement.region)}"
        for one in stripe.witnesses
    )
    yield "    INDEX  HELD BY  ROUND TRIP  HOLDER    REGION          LOCATION  SOFTWARE"
    for votes in stripe.votes:
        trip = f"{votes.round_trip_us / _MICROS_PER_MS:.1f} ms" if votes.held_by else "-"
        holders = _joined([node.hex()[:_SHORT] for node in votes.nodes])
        row = (
            f"    {votes.index:>5}  {f'{votes.held_by} of {votes.verifiers}':<7}  {trip:>10}  {holders:<8}  "
            f"{_joined(votes.regions):<14}  {_joined(_locations(votes)):<8}  {_joined(_software(votes))}"
        )
        yield row if votes.held_by >= said.tier.quorum else f"{row}  <- not by a quorum"
        for one in votes.failing:
            seen_by = counted(one.verifiers, "verifier")
            yield f"           {one.node.hex()[:_SHORT]} was {one.verdict.value} to {seen_by}"


def _contradicted(proofs: Sequence[Contradiction]) -> CertificateInvalid:
    nodes = ", ".join(sorted({proof.node.hex()[:_SHORT] for proof in proofs}))
    why = f"these files hold {counted(len(proofs), 'contradiction')}, signed by: {nodes}"
    return CertificateInvalid(why, "keep them as proof, and bring them to the network's authority")


def _joined(words: Sequence[str]) -> str:
    return "/".join(_shown(word) for word in words) or "-"


def _shown(word: str) -> str:
    """What somebody else wrote, for a terminal: nothing in it moves the cursor, or makes a line."""
    return "".join(one if one.isprintable() else "?" for one in word)


def _proof_words(proof: Contradiction) -> str:
    return (
        f"\nCONTRADICTION: node {proof.node.hex()} of {_shown(proof.one.signer.operator)} signed two statements with "
        f"{proof.shared}, which differ: {proof.one.digest.hex()} and {proof.other.digest.hex()}. "
        "These files are a proof against that node."
    )
