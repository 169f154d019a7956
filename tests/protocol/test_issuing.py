"""Certificates that are built pass our own rules and OpenSSL's; requests are read strictly."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.certificates import NetworkRoot, Role, verify_chain
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.ids import SALT_BYTES, node_id_of
from protocol.issuing import (
    REQUEST_BYTES_MAX,
    Terms,
    assemble,
    build_identity,
    build_operational_leaf,
    build_request,
    build_role_leaf,
    build_root,
    network_id_of_key,
    operational_leaf_to_sign,
    read_csr,
    request_pem,
    request_to_sign,
)
from tests.protocol import samples
from tests.protocol.samples import OPERATOR, TERMS, ed, p256, raw

if TYPE_CHECKING:
    from pathlib import Path

SPKI = p256("node").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: times are ours to judge
CSR = read_csr(build_request(p256("node"), OPERATOR))


def signed_elsewhere(to_sign: bytes) -> bytes:
    """What a token does."""
    return p256("node").sign(to_sign, ec.ECDSA(hashes.SHA256()))


def test_the_same_inputs_build_the_same_bytes() -> None:
    assert build_root(p256("root"), "LockBox vectors", TERMS) == samples.network().der
    assert build_identity(samples.network(), p256("root"), CSR, samples.digest("node salt")[:16], TERMS) == (
        samples.identity()
    )


def test_a_network_is_named_by_its_roots_key() -> None:
    assert network_id_of_key(p256("root").public_key()) == samples.network().network_id


def test_terms_end_up_in_the_certificate() -> None:
    terms = Terms(serial=12345, not_before_unix_s=86400, not_after_unix_s=4_102_444_800 + 100 * 365 * 86400)
    root = NetworkRoot(build_root(p256("root"), "old and long", terms))
    assert root.certificate.serial_number == 12345
    assert root.certificate.not_valid_before_utc.timestamp() == terms.not_before_unix_s
    assert root.certificate.not_valid_after_utc.timestamp() == terms.not_after_unix_s


def test_a_renewed_identity_is_the_same_node() -> None:
    later = Terms(8, TERMS.not_before_unix_s + 86400, TERMS.not_after_unix_s + 86400)
    renewed = build_identity(samples.network(), p256("root"), CSR, samples.digest("node salt")[:16], later)
    leaf = build_operational_leaf(renewed, p256("node"), raw("new leaf"), later)
    peer = verify_chain(samples.network(), [leaf, renewed])
    assert (
        peer.id
        == verify_chain(samples.network(), samples.node_chain()).id
        == node_id_of(SPKI, samples.digest("node salt")[:16])
    )
    assert peer.leaf_public_key == raw("new leaf")


def test_a_key_that_stays_in_its_token_signs_the_same_leaf() -> None:
    to_sign = operational_leaf_to_sign(samples.identity(), raw("node leaf"), TERMS)
    leaf = assemble(to_sign, signed_elsewhere(to_sign))
    built = x509.load_der_x509_certificate(samples.node_chain()[0])
    assert x509.load_der_x509_certificate(leaf).tbs_certificate_bytes == built.tbs_certificate_bytes == to_sign
    assert verify_chain(samples.network(), [leaf, samples.identity()]).role is Role.NODE


@pytest.mark.parametrize("operator", [OPERATOR, "", "x" * 64])
def test_a_key_that_stays_in_its_token_signs_its_request(operator: str) -> None:
    to_sign = request_to_sign(SPKI, operator)
    info = read_csr(request_pem(assemble(to_sign, signed_elsewhere(to_sign))))
    assert info == read_csr(build_request(p256("node"), operator))
    assert (info.spki, info.operator) == (SPKI, operator)


def test_a_request_of_a_client_has_an_ed25519_key() -> None:
    info = read_csr(build_request(ed("client"), "").encode())
    assert isinstance(info.public_key, ed25519.Ed25519PublicKey)
    assert info.public_key.public_bytes_raw() == raw("client")


def test_a_nodes_request_needs_a_p256_key_and_an_operator() -> None:
    for csr in (read_csr(build_request(ed("client"), OPERATOR)), read_csr(build_request(p256("node"), ""))):
        with pytest.raises(LocalProtocolError):
            build_identity(samples.network(), p256("root"), csr, bytes(SALT_BYTES), TERMS)


def test_no_node_leaf_comes_from_the_root() -> None:
    with pytest.raises(AssertionError):
        build_role_leaf(samples.network(), p256("root"), Role.NODE, raw("x"), TERMS)


def other_requests() -> dict[str, str | bytes]:
    """Requests that nobody may sign."""
    to_sign = request_to_sign(SPKI, OPERATOR)
    good = build_request(p256("node"), OPERATOR)
    two = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, operator) for operator in "ab"])
    builder = x509.CertificateSigningRequestBuilder()
    nobody = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    p384 = ec.derive_private_key(7, ec.SECP384R1())
    return {
        "nothing": "",
        "no PEM": b"\xff\xfe",
        "text outside UTF-8": "\ud800",
        "a certificate": ssl.DER_cert_to_PEM_cert(samples.identity()),
        "another's signature": request_pem(assemble(to_sign, p256("other").sign(to_sign, ec.ECDSA(hashes.SHA256())))),
        "no signature": request_pem(assemble(to_sign, b"")),
        "cut": good[:200] + good[204:],
        "two operators": builder.subject_name(two).sign(p256("node"), hashes.SHA256()).public_bytes(Encoding.PEM),
        "another subject": builder.subject_name(nobody).sign(p256("node"), hashes.SHA256()).public_bytes(Encoding.PEM),
        "P-384": build_request(p384, OPERATOR),
    }


@pytest.mark.parametrize("name", other_requests())
def test_another_request_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_csr(other_requests()[name])
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


def test_a_request_above_the_limit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_csr(b"x" * (REQUEST_BYTES_MAX + 1))
    assert caught.value.code is ErrorCode.TOO_LARGE


@given(st.binary(max_size=200))
def test_garbage_as_a_request_is_refused(garbage: bytes) -> None:
    for request in (garbage, request_pem(garbage)):
        with pytest.raises(RemoteProtocolError):
            read_csr(request)


def context(folder: Path, side: int, chain: list[bytes], key: str) -> ssl.SSLContext:
    """A TLS context as strict as the standard library can be: both certificates, RFC 5280 to the letter."""
    tls = ssl.SSLContext(side)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_verify_locations(cadata=samples.network().der)
    pem = ed(key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path = folder / f"{key}.pem"
    path.write_text(pem + "".join(map(ssl.DER_cert_to_PEM_cert, chain)))
    tls.load_cert_chain(path)
    return tls


@pytest.mark.parametrize("key", ["node leaf", "client"])
def test_openssl_accepts_the_chains_at_both_ends(tmp_path: Path, key: str) -> None:
    chain = samples.node_chain() if key == "node leaf" else [samples.role_leaf(Role.CLIENT)]
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, samples.node_chain(), "node leaf").wrap_bio(
        to_server, to_client, server_side=True
    )
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, chain, key).wrap_bio(to_client, to_server)
    unfinished = {client, server}
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
                unfinished.discard(end)
            except ssl.SSLWantReadError:
                continue
    assert not unfinished
    assert server.getpeercert(True) == chain[0]
    assert client.getpeercert(True) == samples.node_chain()[0]
