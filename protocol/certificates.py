"""Who a peer is, by its certificate chain: the X.509 contract of a network. No clock, no chance, no I/O.

The role follows the shape of the chain: a leaf issued by the root is a client, an operator or the guest, by its SAN; a
leaf issued by an identity certificate is that node and carries its SAN byte for byte, so that no node can mint another
role. TLS has verified the same chain, but every rule is checked here again, with every signature; times are reported,
never judged. Building certificates: protocol.issuing. Source: SPEC.md, Certificates; RFC 5280; RFC 8410.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from protocol.drains import DrainReceipt
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.grants import Grant
from protocol.ids import SALT_BYTES, client_id_of, network_id_of, node_id_of
from protocol.possession import Statement
from protocol.records import NodeRecord, check_signature, parse
from protocol.vantage import Vantage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocol.messages import Signed

OID_SALT = x509.ObjectIdentifier("1.3.6.1.4.1.59999.1.1")  # an OCTET STRING of SALT_BYTES; identity certificates only
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: this, then the raw key
CACHED_CHAINS_MAX = 4096
CLOCKS_APART_S = 300  # a leaf made a moment ago may start in our future
_SALT_DER = bytes([0x04, SALT_BYTES])
_CRITICAL_KNOWN = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
)

T = TypeVar("T")


class Role(StrEnum):
    """What a peer is, and so what it may ask."""

    NODE = "node"
    CLIENT = "client"
    OPERATOR = "operator"
    GUEST = "guest"


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a verified chain says. The times are the tightest of the chain, the root left out."""

    role: Role
    id: bytes  # node id, else the id of the leaf's key
    operator: str  # O of the identity certificate; empty for all but nodes
    leaf_public_key: bytes  # raw Ed25519, 32 bytes
    not_before_unix_s: float
    not_after_unix_s: float


def uri_of(network: bytes, role: Role, peer: bytes) -> str:
    """The one SAN of a certificate: `lockbox://<network hex>/<role>/<id hex>`; the guest's has no id."""
    place = f"lockbox://{network.hex()}/{role}"
    return place if role is Role.GUEST else f"{place}/{peer.hex()}"


def spki_of_ed25519(raw: bytes) -> bytes:
    """SPKI DER of a raw Ed25519 public key."""
    assert len(raw) == 32
    return ED25519_SPKI + raw


class NetworkRoot:
    """The trust anchor of one network, and the chains that were verified against it lately."""

    def __init__(self, root_der: bytes) -> None:
        """RemoteProtocolError(NOT_A_MEMBER) unless it is a self-signed P-256 CA with pathlen 1."""
        self.der = bytes(root_der)
        self.certificate = _guarded(lambda: x509.load_der_x509_certificate(self.der))
        self._chains: OrderedDict[bytes, PeerIdentity] = OrderedDict()
        _guarded(self._check)
        self.network_id = network_id_of(spki_of(self.certificate))

    def _check(self) -> None:
        _check_authority(self.certificate, path_length=1)
        _check_issued(self.certificate, self.certificate)

    def cached(self, key: bytes) -> PeerIdentity | None:
        """The identity of a chain verified before; it is then the last to be dropped."""
        identity = self._chains.get(key)
        if identity is not None:
            self._chains.move_to_end(key)
        return identity

    def keep(self, key: bytes, identity: PeerIdentity) -> None:
        """Keep a verified chain; above CACHED_CHAINS_MAX the least recently used one goes."""
        self._chains[key] = identity
        if len(self._chains) > CACHED_CHAINS_MAX:
            self._chains.popitem(last=False)


def verify_chain(root: NetworkRoot, chain: Sequence[bytes]) -> PeerIdentity:
    """Who presents `chain` (DER, leaf first, without the root): RemoteProtocolError(NOT_A_MEMBER) on any wrong shape.

    One certificate: a leaf issued by the root. Two: a leaf and the identity certificate that issued it. Only good
    chains are cached.
    """
    if len(chain) not in (1, 2):
        raise _refused(f"a chain of {len(chain)} certificates; it has 1 or 2 without the root")
    digests = hashlib.sha256(bytes([len(chain)]))
    for der in chain:
        digests.update(hashlib.sha256(der).digest())
    key = digests.digest()
    identity = root.cached(key)
    if identity is None:
        identity = _guarded(lambda: _identity_of(root, chain))
        root.keep(key, identity)
    return identity


def verify_record(root: NetworkRoot, signed: Signed) -> NodeRecord:
    """A node's record, when its chain is a node's of this network, names the same id and operator, and signed it.

    RemoteProtocolError otherwise. Expiry, of the record and of its chain, is the caller's to judge.
    """
    record = parse(signed, NodeRecord)
    identity = verify_chain(root, record.chain)
    if identity.role is not Role.NODE or identity.id != record.node or identity.operator != record.operator:
        raise _refused("a node record that its own chain does not bear out")
    check_signature(signed, NodeRecord, identity.leaf_public_key)
    return record


def verify_vantage(root: NetworkRoot, signed: Signed) -> Vantage:
    """A vantage report, when its chain is its judge's, was good at that time, and signed it.

    RemoteProtocolError otherwise, and when its round trips do not rise by subject, or name the judge.
    """
    vantage = parse(signed, Vantage)
    identity = verify_chain(root, vantage.chain)
    if identity.role is not Role.NODE or identity.id != vantage.judge:
        raise _refused("a vantage report that its own chain does not bear out")
    if not identity.not_before_unix_s - CLOCKS_APART_S <= vantage.signed_unix_s <= identity.not_after_unix_s:
        raise _refused("a vantage report from a time at which its chain was not valid")
    subjects = [round_trip.subject for round_trip in vantage.round_trips]
    if vantage.judge in subjects or any(one >= other for one, other in itertools.pairwise(subjects)):
        raise RemoteProtocolError("a vantage report of the judge itself, or out of order")
    check_signature(signed, Vantage, identity.leaf_public_key)
    return vantage


def verify_grant(root: NetworkRoot, signed: Signed) -> tuple[Grant, PeerIdentity]:
    """A grant and the node that signed it: RemoteProtocolError unless its chain is a node's of this network.

    What it grants, to whom and until when, and whether that node may, is the caller's to judge.
    """
    grant = parse(signed, Grant)
    identity = verify_chain(root, grant.chain)
    if identity.role is not Role.NODE:
        raise _refused("a grant by somebody who is no node")
    check_signature(signed, Grant, identity.leaf_public_key)
    return grant, identity


def verify_statement(root: NetworkRoot, signed: Signed) -> tuple[Statement, PeerIdentity]:
    """A statement of possession and the node that signed it, while its chain was good at that time.

    RemoteProtocolError otherwise. Which request it answers, and what it says, is the caller's to judge.
    """
    statement = parse(signed, Statement)
    identity = verify_chain(root, statement.chain)
    if identity.role is not Role.NODE:
        raise _refused("a statement of possession by somebody who is no node")
    if not identity.not_before_unix_s - CLOCKS_APART_S <= statement.time_unix_s <= identity.not_after_unix_s:
        raise _refused("a statement of possession from a time at which its chain was not valid")
    check_signature(signed, Statement, identity.leaf_public_key)
    return statement, identity


def verify_drain(root: NetworkRoot, signed: Signed) -> DrainReceipt:
    """A drain receipt, when its chain is its node's, was good at its end, and signed it. RemoteProtocolError."""
    receipt = parse(signed, DrainReceipt)
    identity = verify_chain(root, receipt.chain)
    if identity.role is not Role.NODE or identity.id != receipt.node:
        raise _refused("a drain receipt that its own chain does not bear out")
    if not identity.not_before_unix_s - CLOCKS_APART_S <= receipt.ended_unix_s <= identity.not_after_unix_s:
        raise _refused("a drain receipt from a time at which its chain was not valid")
    if receipt.began_unix_s > receipt.ended_unix_s:
        raise RemoteProtocolError("a drain receipt that ends before it begins")
    check_signature(signed, DrainReceipt, identity.leaf_public_key)
    return receipt


def spki_of(certificate: x509.Certificate) -> bytes:
    """SPKI DER of its public key."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def san_of(certificate: x509.Certificate) -> str:
    """Its one SAN, a URI; RemoteProtocolError when there are more or others."""
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise _refused("a certificate whose SAN is not exactly one URI")
    return names[0].value


def operator_of(name: x509.Name) -> str:
    """The one O of a subject; RemoteProtocolError when there is none, an empty one, or several."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0]:
        raise _refused("a subject without exactly one operator (O)")
    return values[0]


def _refused(why: str) -> RemoteProtocolError:
    return RemoteProtocolError(why, ErrorCode.NOT_A_MEMBER)


def _guarded(work: Callable[[], T]) -> T:
    """Run `work` on foreign certificates: all that the parser may raise becomes one refusal.

    Under `-W error` the library raises as a warning what else it only warns of: refused as well.
    """
    try:
        return work()
    except (
        ValueError,
        TypeError,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.UnsupportedGeneralNameType,
        CryptographyDeprecationWarning,
    ) as error:
        raise _refused(f"a certificate that cannot be verified: {type(error).__name__}") from None


def _identity_of(root: NetworkRoot, chain: Sequence[bytes]) -> PeerIdentity:
    certificates = [x509.load_der_x509_certificate(der) for der in chain]
    leaf = certificates[0]
    public_key = _check_leaf(leaf)
    if len(certificates) == 1:
        _check_issued(leaf, root.certificate)
        role, peer, operator = _role_of(root, san_of(leaf), public_key)
    else:
        role, peer, operator = _node_of(root, certificates[1])
        _check_issued(leaf, certificates[1])
        if san_of(leaf) != san_of(certificates[1]):
            raise _refused("a leaf that names another than the identity that issued it")
    return PeerIdentity(
        role,
        peer,
        operator,
        public_key,
        max(certificate.not_valid_before_utc.timestamp() for certificate in certificates),
        min(certificate.not_valid_after_utc.timestamp() for certificate in certificates),
    )


def _role_of(root: NetworkRoot, san: str, public_key: bytes) -> tuple[Role, bytes, str]:
    """Client, operator or guest: the SAN must be the one that this network and key give the role."""
    peer = client_id_of(spki_of_ed25519(public_key))
    for role in (Role.CLIENT, Role.OPERATOR, Role.GUEST):
        if san == uri_of(root.network_id, role, peer):
            return role, peer, ""
    raise _refused("a leaf of the root whose SAN is no client, operator or guest of this network with this key")


def _node_of(root: NetworkRoot, identity: x509.Certificate) -> tuple[Role, bytes, str]:
    """The node of an identity certificate; its id is computed again from key and salt."""
    _check_authority(identity, path_length=0)
    _check_issued(identity, root.certificate)
    salt = identity.extensions.get_extension_for_oid(OID_SALT).value
    assert isinstance(salt, x509.UnrecognizedExtension)  # the library does not know our extension
    if not salt.value.startswith(_SALT_DER) or len(salt.value) != len(_SALT_DER) + SALT_BYTES:
        raise _refused("an identity certificate whose salt is not an OCTET STRING of 16 bytes")
    node = node_id_of(spki_of(identity), salt.value[len(_SALT_DER) :])
    if san_of(identity) != uri_of(root.network_id, Role.NODE, node):
        raise _refused("an identity certificate whose SAN is not the node of this network with this key and salt")
    return Role.NODE, node, operator_of(identity.subject)


def _check_leaf(leaf: x509.Certificate) -> bytes:
    """A leaf is CA:FALSE, may sign but not certify, and has an Ed25519 key: the raw key."""
    constraints, usage = _constraints_of(leaf)
    if constraints.ca or usage.key_cert_sign or not usage.digital_signature:
        raise _refused("a leaf that may certify, or may not sign")
    public_key = leaf.public_key()
    if not isinstance(public_key, ed25519.Ed25519PublicKey):
        raise _refused("a leaf whose key is not Ed25519")
    return public_key.public_bytes_raw()


def _check_authority(certificate: x509.Certificate, path_length: int) -> None:
    """The root (path length 1) or an identity (0): CA:TRUE, may certify, P-256."""
    constraints, usage = _constraints_of(certificate)
    if not constraints.ca or constraints.path_length != path_length or not usage.key_cert_sign:
        raise _refused(f"a certificate that is no CA with pathlen {path_length}")
    public_key = certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise _refused("a CA whose key is not P-256")


def _constraints_of(certificate: x509.Certificate) -> tuple[x509.BasicConstraints, x509.KeyUsage]:
    """Both must be there and critical; no other extension that we do not judge may be critical."""
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    if not (constraints.critical and usage.critical):
        raise _refused("a certificate whose basic constraints or key usage are not critical")
    if any(extension.critical and extension.oid not in _CRITICAL_KNOWN for extension in extensions):
        raise _refused("a certificate with a critical extension that is not known here")
    return constraints.value, usage.value


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Names match and the issuer's P-256 key signed it with SHA-256: InvalidSignature, ValueError, TypeError."""
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise _refused("a certificate signed otherwise than with ECDSA and SHA-256")
    certificate.verify_directly_issued_by(issuer)
