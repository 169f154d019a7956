"""Network documents: one signer, one encoding, one order; and nothing else passes."""

from __future__ import annotations

import msgpack
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from protocol.documents import (
    DOMAINS,
    REVOCATIONS_MAX,
    Document,
    Kind,
    Place,
    Policy,
    Regions,
    Revocation,
    Revocations,
    Setting,
    open_document,
    sign_document,
    version_of,
)
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.messages import DOCUMENT_BYTES_MAX, DocumentVersion, SignedDocument
from tests.protocol import samples

ROOT = samples.network().certificate
KEY = samples.p256("root")
NAMES = list(samples.documents())


def signed_raw(body: bytes, kind: Kind = Kind.REVOCATIONS) -> SignedDocument:
    """Any bytes as a body, with a signature of the root that holds."""
    r, s = decode_dss_signature(KEY.sign(DOMAINS[kind] + body, ec.ECDSA(hashes.SHA256())))
    return SignedDocument(int(kind), body, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def refused(signed: SignedDocument) -> ErrorCode:
    """Why it does not open."""
    with pytest.raises(RemoteProtocolError) as caught:
        open_document(signed, ROOT)
    return caught.value.code


@pytest.mark.parametrize("name", NAMES)
def test_a_signed_document_opens_as_it_was(name: str) -> None:
    document = samples.documents()[name]
    signed = sign_document(document, KEY)
    assert open_document(signed, ROOT) == document
    assert signed == sign_document(document, KEY)
    assert version_of(signed, document) == DocumentVersion(signed.kind, document.version, samples.hashed(signed.body))


@pytest.mark.parametrize("name", NAMES)
def test_another_signer_another_kind_and_changed_bytes_are_refused(name: str) -> None:
    document, good = samples.documents()[name], samples.signed_document(name)
    other_kind = good.kind % len(Kind) + 1
    for bad in (
        sign_document(document, samples.p256("node")),
        SignedDocument(other_kind, good.body, good.signature),
        SignedDocument(good.kind, good.body[:-1], good.signature),
        SignedDocument(good.kind, good.body + b"\0", good.signature),
        SignedDocument(good.kind, good.body, bytes(64)),
        SignedDocument(good.kind, good.body, b"\xff" * 64),
        SignedDocument(good.kind, good.body, good.signature[32:] + good.signature[:32]),
    ):
        assert refused(bad) is ErrorCode.PROOF_INVALID


def test_an_unknown_kind_is_told_from_a_bad_document() -> None:
    good = samples.signed_document()
    assert refused(SignedDocument(5, good.body, good.signature)) is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    "fields",
    [
        [1, 0, [], None],  # a field that is not known here
        [1, 0, [[bytes(32), 0, "", 0]]],
        [1, 0],
        [1, 0, [[bytes(32), 0]]],
        [0, 0, []],
        [1, 0, [[bytes(31), 0, ""]]],
        [1, 0, [[bytes(32), 0, ""], [bytes(32), 1, ""]]],  # twice
        [1, 0, [[b"b" * 32, 0, ""], [b"a" * 32, 0, ""]]],  # falling
        {"version": 1},
    ],
    ids=repr,
)
def test_what_the_authority_signed_by_mistake_is_refused(fields: object) -> None:
    assert refused(signed_raw(msgpack.packb(fields))) is ErrorCode.PROOF_INVALID


def test_a_body_cut_anywhere_is_refused_even_when_it_is_signed() -> None:
    body = samples.signed_document().body
    for size in range(1, len(body)):
        assert refused(signed_raw(body[:size])) is ErrorCode.PROOF_INVALID


def test_a_longer_form_of_an_integer_is_refused() -> None:
    assert refused(signed_raw(b"\x93\xcc\x01\x00\x90")) is ErrorCode.PROOF_INVALID
    assert open_document(signed_raw(b"\x93\x01\x00\x90"), ROOT) == Revocations(1, 0, [])


def test_above_the_limit_nothing_is_signed_nor_verified() -> None:
    assert refused(signed_raw(bytes(DOCUMENT_BYTES_MAX + 1))) is ErrorCode.TOO_LARGE
    many = [Revocation(number.to_bytes(32, "big"), 2**63 - 1, "ä" * 64) for number in range(REVOCATIONS_MAX + 1)]
    with pytest.raises(LocalProtocolError):
        sign_document(Revocations(1, 0, many), KEY)
    with pytest.raises(LocalProtocolError, match="above the limit"):
        sign_document(Revocations(1, 0, many[:-1]), KEY)
    short = [Revocation(number.to_bytes(32, "big"), 2**63 - 1, "x" * 64) for number in range(REVOCATIONS_MAX)]
    assert open_document(sign_document(Revocations(1, 0, short), KEY), ROOT) == Revocations(1, 0, short)


@pytest.mark.parametrize(
    "document", [Policy(0, 0, []), Policy(1, 0, [Setting("b", ""), Setting("a", "")]), Revocations(1, -1, [])], ids=repr
)
def test_what_others_would_refuse_is_not_signed(document: Document) -> None:
    with pytest.raises(LocalProtocolError):
        sign_document(document, KEY)


@given(st.integers(0, 255), st.binary(min_size=1, max_size=200), st.binary(min_size=64, max_size=64))
def test_garbage_is_refused(kind: int, body: bytes, signature: bytes) -> None:
    assert refused(SignedDocument(kind, body, signature)) in (ErrorCode.PROOF_INVALID, ErrorCode.UNSUPPORTED)


@given(st.binary(min_size=1, max_size=200))
def test_signed_garbage_is_a_document_or_refused(body: bytes) -> None:
    try:
        document = open_document(signed_raw(body), ROOT)
    except RemoteProtocolError:
        return
    assert sign_document(document, KEY).body == body


BAD_PLACES = {
    "latitude": ["a", 90_000_001, 0],
    "longitude": ["a", 0, -180_000_001],
    "nan": ["a", float("nan"), 0],
    "fraction": ["a", 0.5, 0],
    "name": ["A b", 0, 0],
    "no name": ["", 0, 0],
    "line": ["a\n", 0, 0],
}


@pytest.mark.parametrize("place", BAD_PLACES.values(), ids=BAD_PLACES)
def test_a_region_that_cannot_be_is_refused_by_who_signs_and_by_who_reads(place: list[object]) -> None:
    with pytest.raises(LocalProtocolError, match="cannot sign this Regions"):
        sign_document(Regions(1, 0, [Place(*place)]), KEY)  # type: ignore[arg-type]
    assert refused(signed_raw(msgpack.packb([1, 0, [place]]), Kind.REGIONS)) is ErrorCode.PROOF_INVALID


def test_a_region_table_is_neither_empty_nor_above_its_limit_nor_names_one_twice() -> None:
    many = [[f"r{number:03}", 0, 0] for number in range(513)]
    open_document(signed_raw(msgpack.packb([1, 0, many[:512]]), Kind.REGIONS), ROOT)
    for bad in ([], many, [many[0], many[0]], [many[1], many[0]]):
        assert refused(signed_raw(msgpack.packb([1, 0, bad]), Kind.REGIONS)) is ErrorCode.PROOF_INVALID
