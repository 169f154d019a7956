"""Possession, stated: what an asset key asks verifiers to look at, what one of them saw, and the file that keeps it.

The owner signs one AuditRequest a stripe, which names every holder to be challenged, so that a verifier can leave out
nobody but itself. Each verifier challenges them by its own nonces and signs a Statement. A Certificate is those of all
stripes of an asset; the root asset key seals it, so that nothing can be taken out of it either. How they are judged:
SPEC.md, Possession certificates.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.fields import U8, U32, U63, Chain, Id32, Message, ShortText, Signed

PLACES_MAX = 40  # of one stripe: twice n of the widest tier; a Statement of them fits in one Signed whatever they say
STATEMENTS_MAX = 8  # of one stripe
STRIPES_MAX = 16_384  # in one certificate
CERTIFICATE_BYTES_MAX = 256 * 1024 * 1024
MAGIC = b"lockbox possession certificate 1\n"
NOTHING = bytes(32)  # no earlier certificate, no earlier statement

HELD, MISSING, CORRUPT, SILENT = range(4)  # what a holder showed
CLAIMED, MEASURED, ATTESTED, REFUTED = range(4)  # what a verifier knew of its place
UNLISTED, LISTED, REFUSED = range(3)  # its software: no release list is in force; it is on the list; it is not


class Place(Message, frozen=True):
    """The node `node` is to show shard `index` of every group."""

    index: U8
    node: Id32


class AuditRequest(Message, frozen=True):
    """The asset key wants statements about one stripe, now, for one certificate. Signed by the asset key."""

    public_key: Id32  # its SHA-256 is the address
    descriptor_hash: Id32
    requester: Id32  # id of the TLS peer that asks
    nonce: Id32
    time_unix_s: U63
    places: Annotated[list[Place], Meta(min_length=1, max_length=PLACES_MAX)]  # strictly rising
    certificate: Id32  # drawn for the certificate; the same in the requests of all its stripes
    stripe: U32
    stripes: Annotated[int, Meta(ge=1, le=STRIPES_MAX)]
    previous: Id32  # SHA-256 of the file of an earlier certificate of this asset, or NOTHING


class Finding(Message, frozen=True):
    """What one place showed, and what the verifier's member table says of its node; texts are empty for strangers."""

    index: U8
    node: Id32
    verdict: Annotated[int, Meta(ge=0, le=3)]
    leaves: U32  # shown and checked, of all groups
    round_trip_us: U32  # from the challenge to its answer, rounded up; 0 when it was silent
    region: ShortText
    operator: ShortText
    location: Annotated[int, Meta(ge=0, le=3)]
    software: Annotated[int, Meta(ge=0, le=2)]


class Statement(Message, frozen=True):
    """What one verifier saw of one stripe. Signed by the operational key of `chain` (leaf, then identity)."""

    address: Id32
    descriptor_hash: Id32
    request: Id32  # SHA-256 of the AuditRequest's body
    region: ShortText  # where the verifier says that it stands
    life: U63  # the epoch of its record
    number: U63  # strictly rising within that life
    previous: Id32  # SHA-256 of the body of its statement about this address before this one, or NOTHING
    time_unix_s: U63
    findings: Annotated[list[Finding], Meta(max_length=PLACES_MAX)]  # in the request's order, without itself
    chain: Chain


class AskAudit(Message, frozen=True):
    """A verifier's statement is wanted; the reply is the signed Statement."""

    request: Signed  # an AuditRequest
    descriptor: Signed
    access: Signed  # an AccessClaim for the verifier, operation prove: what it shows to the holders


class Evidence(Message, frozen=True):
    """All that is known of one stripe."""

    request: Signed
    descriptor: Signed
    statements: Annotated[list[Signed], Meta(min_length=1, max_length=STATEMENTS_MAX)]


class Certificate(Message, frozen=True):
    """Evidence of every stripe of an asset, by stripe number."""

    network: Id32
    stripes: Annotated[list[Evidence], Meta(min_length=1, max_length=STRIPES_MAX)]


class Seal(Message, frozen=True):
    """Nothing was taken out of a certificate, nor put in. Signed by the asset key of its first stripe."""

    public_key: Id32
    digest: Id32  # SHA-256 of MAGIC and the certificate's body


class SealedCertificate(Message, frozen=True):
    """The file behind MAGIC."""

    body: Annotated[bytes, Meta(min_length=1, max_length=CERTIFICATE_BYTES_MAX)]  # an encoded Certificate
    seal: Signed
