"""Network documents: what the authority says to all. Revoked ids, releases, regions, policy.

Each kind has one newest document. The root key signs domain || body, so anybody may carry one; the greater (version,
H(body)) wins, so that two documents of one version, which an authority makes only by mistake, still end as one
everywhere. Bodies have one encoding, as all signed records; lists are in rising order, without repeats. Settings that
a reader does not know are kept and passed on. Source: SPEC.md, Network documents.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from msgspec import Meta

from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.messages import (
    DOCUMENT_BYTES_MAX,
    U63,
    UNDECODABLE,
    DocumentVersion,
    Id32,
    Message,
    ShortText,
    SignedDocument,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

REVOCATIONS_MAX = 4096
RELEASES_MAX = 512
REGIONS_MAX = 512
SETTINGS_MAX = 64
_HALF_BYTES = 32  # of a signature: r, and s

Version = Annotated[int, Meta(ge=1, le=2**63 - 1)]
REGION_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*\Z")
RegionName = Annotated[str, Meta(min_length=1, max_length=64, pattern=REGION_NAME.pattern)]
Latitude = Annotated[int, Meta(ge=-90_000_000, le=90_000_000)]
Longitude = Annotated[int, Meta(ge=-180_000_000, le=180_000_000)]


class Kind(IntEnum):
    """The kinds of documents, as they are numbered on the wire."""

    REVOCATIONS = 1
    RELEASES = 2
    REGIONS = 3
    POLICY = 4


class Revocation(Message, frozen=True):
    """A node, client, operator or guest that is out for good."""

    id: Id32
    since_unix_s: U63
    reason: ShortText


class Revocations(Message, frozen=True):
    """All who are revoked, by rising id."""

    version: Version
    issued_unix_s: U63
    entries: Annotated[list[Revocation], Meta(max_length=REVOCATIONS_MAX)]


class Release(Message, frozen=True):
    """One software that nodes may run, by its measured hash; `until_unix_s` 0 = without an end."""

    software: Id32
    name: ShortText
    until_unix_s: U63


class Releases(Message, frozen=True):
    """All software that is accepted, by rising hash. An empty list accepts everything."""

    version: Version
    issued_unix_s: U63
    entries: Annotated[list[Release], Meta(max_length=RELEASES_MAX)]


class Place(Message, frozen=True):
    """One region: its name, and its coordinates in millionths of a degree, north and east positive."""

    name: RegionName
    latitude: Latitude
    longitude: Longitude


class Regions(Message, frozen=True):
    """The region table, by rising name. Where no region is known nothing can be placed, so there is one at least."""

    version: Version
    issued_unix_s: U63
    entries: Annotated[list[Place], Meta(min_length=1, max_length=REGIONS_MAX)]


class Setting(Message, frozen=True):
    """One value of the policy, as text."""

    key: ShortText
    value: ShortText


class Policy(Message, frozen=True):
    """What the network asks of its nodes, by rising key."""

    version: Version
    issued_unix_s: U63
    entries: Annotated[list[Setting], Meta(max_length=SETTINGS_MAX)]


Document = Revocations | Releases | Regions | Policy

CLASSES: dict[Kind, type[Document]] = {
    Kind.REVOCATIONS: Revocations,
    Kind.RELEASES: Releases,
    Kind.REGIONS: Regions,
    Kind.POLICY: Policy,
}
KINDS: dict[type[Document], Kind] = {document: kind for kind, document in CLASSES.items()}
DOMAINS: dict[Kind, bytes] = {kind: f"lockbox/1 {kind.name.lower()}\0".encode() for kind in Kind}

_encoder = msgspec.msgpack.Encoder()


def sign_document(document: Document, key: ec.EllipticCurvePrivateKey) -> SignedDocument:
    """Encode and sign. The signature is deterministic (RFC 6979). LocalProtocolError when limits are broken."""
    kind = KINDS[type(document)]
    try:
        body = _encoder.encode(document)
        _check(msgspec.msgpack.decode(body, type=CLASSES[kind]), body)
    except (TypeError, ValueError, OverflowError, RemoteProtocolError) as error:
        raise LocalProtocolError(f"cannot sign this {type(document).__name__}: {error}") from None
    signature = key.sign(DOMAINS[kind] + body, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    return SignedDocument(int(kind), body, r.to_bytes(_HALF_BYTES, "big") + s.to_bytes(_HALF_BYTES, "big"))


def open_document(signed: SignedDocument, root: Certificate) -> Document:
    """Check the root's signature, decode strictly, check the order. RemoteProtocolError otherwise.

    UNSUPPORTED for a kind that is not known here, TOO_LARGE above DOCUMENT_BYTES_MAX, else PROOF_INVALID.
    """
    if len(signed.body) > DOCUMENT_BYTES_MAX:
        raise RemoteProtocolError("a document above the limit", ErrorCode.TOO_LARGE)
    try:
        kind = Kind(signed.kind)
    except ValueError:
        raise RemoteProtocolError("a document of a kind not known here", ErrorCode.UNSUPPORTED) from None
    public_key = root.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey), "NetworkRoot checked it"
    r, s = (int.from_bytes(half, "big") for half in (signed.signature[:_HALF_BYTES], signed.signature[_HALF_BYTES:]))
    try:
        public_key.verify(encode_dss_signature(r, s), DOMAINS[kind] + signed.body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise RemoteProtocolError("a document that the network's authority did not sign") from None
    try:
        document: Document = msgspec.msgpack.decode(signed.body, type=CLASSES[kind])
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"a document that does not decode: {error}") from None
    _check(document, signed.body)
    return document


def version_of(signed: SignedDocument, document: Document) -> DocumentVersion:
    """How a document is named to others."""
    return DocumentVersion(signed.kind, document.version, hashlib.sha256(signed.body).digest())


def _check(document: Document, body: bytes) -> None:
    if len(body) > DOCUMENT_BYTES_MAX:
        raise RemoteProtocolError("a document above the limit", ErrorCode.TOO_LARGE)
    if _encoder.encode(document) != body:
        raise RemoteProtocolError("a document in another encoding than ours")
    keys = [getattr(entry, entry.__struct_fields__[0]) for entry in document.entries]
    if any(before >= after for before, after in itertools.pairwise(keys)):
        raise RemoteProtocolError("a document whose entries do not rise")
