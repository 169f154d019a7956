"""The file of a certificate: it opens as it was sealed, and no other bytes do."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.fields import Signed
from protocol.possession import MAGIC, Certificate, SealedCertificate
from protocol.possession_file import file_digest, sealed, unsealed
from tests.protocol import possession_samples, samples

DESCRIPTOR, CHAIN = samples.signed_descriptor(), samples.node_chain()
CERTIFICATE = possession_samples.certificate(DESCRIPTOR, CHAIN)
FILE = possession_samples.certificate_file(DESCRIPTOR, CHAIN)


def refused(file: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unsealed(file)


def test_a_file_opens_as_it_was_sealed() -> None:
    assert unsealed(FILE) == (CERTIFICATE, samples.raw("asset"))
    assert file_digest(FILE) == hashlib.sha256(FILE).digest()


def test_every_byte_of_the_file_is_covered() -> None:
    for at in range(len(FILE)):
        refused(FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :])


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_whatever_a_byte_becomes_is_found(at: int, change: int) -> None:
    refused(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :])


def test_a_file_that_is_cut_short_anywhere_is_refused() -> None:
    for length in range(len(FILE)):
        refused(FILE[:length])


@given(st.binary(min_size=1, max_size=64))
def test_bytes_behind_the_end_are_refused(more: bytes) -> None:
    refused(FILE + more)


@given(st.binary(max_size=300))
def test_whatever_else_is_no_certificate(noise: bytes) -> None:
    refused(noise)
    refused(MAGIC + noise)


def test_another_encoding_of_the_same_is_refused() -> None:
    body = msgspec.msgpack.encode(CERTIFICATE)
    assert body[0] == 0x92
    spread = b"\xdc\x00\x02" + body[1:]  # an array of two in three bytes
    again = sealed(CERTIFICATE, samples.raw("asset"), samples.ed("asset"))
    assert again == FILE
    outer = msgspec.msgpack.decode(FILE[len(MAGIC) :], type=SealedCertificate)
    refused(MAGIC + msgspec.msgpack.encode(SealedCertificate(spread, outer.seal)))
    refused(MAGIC + b"\xdc\x00\x02" + FILE[len(MAGIC) + 1 :])


def test_what_was_taken_out_is_missed() -> None:
    evidence = CERTIFICATE.stripes[0]
    longer = msgspec.structs.replace(evidence, statements=[*evidence.statements, Signed(b"x", bytes(64))])
    body = msgspec.msgpack.encode(Certificate(CERTIFICATE.network, [longer]))
    outer = msgspec.msgpack.decode(FILE[len(MAGIC) :], type=SealedCertificate)
    refused(MAGIC + msgspec.msgpack.encode(SealedCertificate(body, outer.seal)))


def test_what_is_above_the_limits_cannot_be_sealed() -> None:
    evidence = msgspec.structs.replace(CERTIFICATE.stripes[0], statements=[])
    with pytest.raises(LocalProtocolError):
        sealed(Certificate(CERTIFICATE.network, [evidence]), samples.raw("asset"), samples.ed("asset"))
