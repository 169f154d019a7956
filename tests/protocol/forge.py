"""Certificates that no authority of ours would issue: the builder of protocol.issuing with single rules broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from protocol.certificates import OID_SALT, Role, spki_of_ed25519, uri_of
from protocol.ids import client_id_of, node_id_of
from tests.protocol import samples

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.59999.9")
SALT = samples.digest("node salt")[:16]


def usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    """A key usage."""
    return x509.KeyUsage(sign, False, False, False, False, certify, False, False, False)


def uri(text: str) -> x509.GeneralName:
    """A URI."""
    return x509.UniformResourceIdentifier(text)


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name."""
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


@dataclass
class Forgery:
    """One certificate to be; None leaves an extension out."""

    key: Key
    signer: Key
    subject: x509.Name
    issuer: x509.Name
    constraints: x509.BasicConstraints | None
    usage: x509.KeyUsage | None
    names: list[x509.GeneralName] | None
    salt: bytes | None = None
    critical: bool = True
    digest: hashes.SHA256 | hashes.SHA384 | None = field(default_factory=hashes.SHA256)
    unknown_critical: bool = False
    not_before_unix_s: int = samples.TERMS.not_before_unix_s
    not_after_unix_s: int = samples.TERMS.not_after_unix_s

    def der(self) -> bytes:
        """The certificate."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.issuer)
            .public_key(self.key.public_key())
            .serial_number(9)
            .not_valid_before(datetime.fromtimestamp(self.not_before_unix_s, UTC))
            .not_valid_after(datetime.fromtimestamp(self.not_after_unix_s, UTC))
        )
        if self.constraints is not None:
            builder = builder.add_extension(self.constraints, self.critical)
        if self.usage is not None:
            builder = builder.add_extension(self.usage, self.critical)
        if self.names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), False)
        if self.salt is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(OID_SALT, self.salt), False)
        if self.unknown_critical:
            builder = builder.add_extension(x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)
        return builder.sign(self.signer, self.digest).public_bytes(Encoding.DER)


def root() -> Forgery:
    """A sound root with the key of the samples' network."""
    key, subject = samples.p256("root"), samples.network().certificate.subject
    return Forgery(key, key, subject, subject, x509.BasicConstraints(True, 1), usage(sign=False, certify=True), None)


def identity(key: Key | None = None) -> Forgery:
    """A sound identity of the node `node`."""
    own = key or samples.p256("node")
    spki = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    node = node_id_of(spki, SALT)
    return Forgery(
        own,
        samples.p256("root"),
        name((NameOID.ORGANIZATION_NAME, samples.OPERATOR), (NameOID.COMMON_NAME, node.hex())),
        samples.network().certificate.subject,
        x509.BasicConstraints(True, 0),
        usage(sign=False, certify=True),
        [uri(uri_of(samples.network().network_id, Role.NODE, node))],
        salt=b"\x04\x10" + SALT,
    )


def operational() -> Forgery:
    """A sound operational leaf of the node `node`."""
    issuer = x509.load_der_x509_certificate(samples.identity())
    names = list(issuer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    return Forgery(
        samples.ed("node leaf"),
        samples.p256("node"),
        name((NameOID.COMMON_NAME, "node")),
        issuer.subject,
        x509.BasicConstraints(False, None),
        usage(sign=True, certify=False),
        names,
    )


def client() -> Forgery:
    """A sound client leaf."""
    peer = client_id_of(spki_of_ed25519(samples.raw("client")))
    return Forgery(
        samples.ed("client"),
        samples.p256("root"),
        name((NameOID.COMMON_NAME, "client")),
        samples.network().certificate.subject,
        x509.BasicConstraints(False, None),
        usage(sign=True, certify=False),
        [uri(uri_of(samples.network().network_id, Role.CLIENT, peer))],
    )
