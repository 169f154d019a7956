"""Building what protocol.certificates verifies: the root, identities, leaves, certificate requests.

All is pure: keys, times (unix seconds), salts and serials are given, and signatures are deterministic (RFC 6979). A key
that cannot leave its token signs elsewhere: `operational_leaf_to_sign` or `request_to_sign`, then `assemble` with its
signature (ECDSA P-256 SHA-256, DER).
Every extension is what OpenSSL 3 asks of a chain, and no more. Source: SPEC.md, Certificates; RFC 5280; RFC 2986.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.certificates import (
    OID_SALT,
    NetworkRoot,
    Role,
    operator_of,
    san_of,
    spki_of_ed25519,
    uri_of,
)
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.ids import SALT_BYTES, client_id_of, network_id_of, node_id_of

REQUEST_BYTES_MAX = 64 * 1024
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # AlgorithmIdentifier, RFC 5758 section 3.2
_PLACEHOLDER_KEY = 1  # a private key that everybody knows: its signature is thrown away

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Terms:
    """What every certificate is given by its issuer."""

    serial: int  # 1 to 2^159 - 1, drawn by the caller
    not_before_unix_s: int
    not_after_unix_s: int


@dataclass(frozen=True, slots=True)
class CsrInfo:
    """A certificate request whose own signature holds."""

    spki: bytes
    operator: str  # O of its subject, empty when it has none
    public_key: PublicKey  # P-256 of a node, Ed25519 of a client or operator


def build_root(key: ec.EllipticCurvePrivateKey, name: str, terms: Terms) -> bytes:
    """The self-signed root of a new network, DER. `name` is for people to read."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _started(subject, subject, key.public_key(), terms)
    return _signed(_as_authority(builder, path_length=1), key)


def build_identity(
    root: NetworkRoot, root_key: ec.EllipticCurvePrivateKey, csr: CsrInfo, salt: bytes, terms: Terms
) -> bytes:
    """The identity certificate of a node, DER. The salt is drawn at the first issue and repeated at renewal.

    LocalProtocolError when the request's key is not P-256 or it names no operator.
    """
    assert len(salt) == SALT_BYTES
    if not _is_p256(csr.public_key) or not csr.operator:
        raise LocalProtocolError("a node's request needs a P-256 key and an operator (O)")
    node = node_id_of(csr.spki, salt)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, csr.operator),
            x509.NameAttribute(NameOID.COMMON_NAME, node.hex()),
        ]
    )
    builder = _issued_by(root.certificate, _started(subject, root.certificate.subject, csr.public_key, terms))
    builder = _with_san(_as_authority(builder, path_length=0), uri_of(root.network_id, Role.NODE, node))
    salt_der = bytes([0x04, SALT_BYTES]) + salt
    return _signed(builder.add_extension(x509.UnrecognizedExtension(OID_SALT, salt_der), critical=False), root_key)


def build_role_leaf(
    root: NetworkRoot, root_key: ec.EllipticCurvePrivateKey, role: Role, public_key: bytes, terms: Terms
) -> bytes:
    """The leaf of a client, an operator or the guest, issued by the root, DER. `public_key` is raw Ed25519."""
    assert role is not Role.NODE
    uri = uri_of(root.network_id, role, client_id_of(spki_of_ed25519(public_key)))
    return _signed(_leaf(root.certificate, public_key, uri, str(role), terms), root_key)


def build_operational_leaf(
    identity_der: bytes, identity_key: ec.EllipticCurvePrivateKey, public_key: bytes, terms: Terms
) -> bytes:
    """A node's operational leaf, issued by its identity certificate with a key at hand, DER."""
    identity = x509.load_der_x509_certificate(identity_der)
    return _signed(_leaf(identity, public_key, san_of(identity), "node", terms), identity_key)


def operational_leaf_to_sign(identity_der: bytes, public_key: bytes, terms: Terms) -> bytes:
    """The same leaf without its signature: what the identity key must sign, then `assemble`."""
    identity = x509.load_der_x509_certificate(identity_der)
    builder = _leaf(identity, public_key, san_of(identity), "node", terms)
    placeholder = ec.derive_private_key(_PLACEHOLDER_KEY, ec.SECP256R1())
    return builder.sign(placeholder, hashes.SHA256()).tbs_certificate_bytes


def request_to_sign(spki: bytes, operator: str) -> bytes:
    """A node's certificate request (PKCS #10) without its signature; `spki` is the identity key's, DER."""
    return _der(0x30, b"\x02\x01\x00" + _request_name(operator).public_bytes() + spki + b"\xa0\x00")


def assemble(to_sign: bytes, signature: bytes) -> bytes:
    """The DER of a certificate or request from its signed part and the ECDSA P-256 SHA-256 signature (DER)."""
    return _der(0x30, to_sign + _ECDSA_WITH_SHA256 + _der(0x03, b"\x00" + signature))


def build_request(key: PrivateKey, operator: str) -> str:
    """A certificate request signed by a key at hand (P-256 for a node, Ed25519 for a client or operator), PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_request_name(operator))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def request_pem(der: bytes) -> str:
    """An assembled request as PEM."""
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n"


def read_csr(pem: bytes | str) -> CsrInfo:
    """A certificate request, its own signature checked. RemoteProtocolError(NOT_A_MEMBER) on anything else."""
    raw = pem.encode(errors="replace") if isinstance(pem, str) else pem
    if len(raw) > REQUEST_BYTES_MAX:
        raise RemoteProtocolError("a certificate request above 64 KiB", ErrorCode.TOO_LARGE)
    try:
        request = x509.load_pem_x509_csr(raw)
        public_key = request.public_key()
        if not request.is_signature_valid:
            raise InvalidSignature
        operator = operator_of(request.subject) if len(list(request.subject)) else ""
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RemoteProtocolError(
            f"a certificate request that cannot be used: {type(error).__name__}", ErrorCode.NOT_A_MEMBER
        ) from None
    if not isinstance(public_key, ed25519.Ed25519PublicKey) and not _is_p256(public_key):
        raise RemoteProtocolError(
            "a certificate request whose key is neither P-256 nor Ed25519", ErrorCode.NOT_A_MEMBER
        )
    assert isinstance(public_key, PublicKey)
    return CsrInfo(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), operator, public_key)


def network_id_of_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """The network id that a root with this key gives."""
    return network_id_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _is_p256(key: object) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _request_name(operator: str) -> x509.Name:
    """O alone, or the empty name."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, operator)] if operator else [])


def _started(subject: x509.Name, issuer: x509.Name, public_key: PublicKey, terms: Terms) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(terms.serial)
        .not_valid_before(datetime.fromtimestamp(terms.not_before_unix_s, UTC))
        .not_valid_after(datetime.fromtimestamp(terms.not_after_unix_s, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issued_by(issuer: x509.Certificate, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """With the authority key id by which OpenSSL finds the issuer."""
    theirs = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(theirs), critical=False)


def _as_authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(True, path_length), critical=True).add_extension(
        _usage(certify=True), critical=True
    )


def _leaf(issuer: x509.Certificate, public_key: bytes, uri: str, name: str, terms: Terms) -> x509.CertificateBuilder:
    """A leaf for both ends of TLS and for signing records."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ed25519.Ed25519PublicKey.from_public_bytes(public_key)
    builder = _issued_by(issuer, _started(subject, issuer.subject, key, terms))
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return _with_san(
        builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(certify=False), critical=True)
        .add_extension(both_ends, critical=False),
        uri,
    )


def _with_san(builder: x509.CertificateBuilder, uri: str) -> x509.CertificateBuilder:
    return builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)


def _usage(*, certify: bool) -> x509.KeyUsage:
    """An authority certifies and signs revocation lists, a leaf signs; nothing else."""
    return x509.KeyUsage(
        digital_signature=not certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def _der(tag: int, content: bytes) -> bytes:
    """One DER element with a definite, minimal length."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
