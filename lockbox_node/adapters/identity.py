"""Who we are: certificates and keys from files, the operational key in memory, the TLS contexts made of them.

A node's identity key (any KeyStore) signs a leaf for an Ed25519 key that is made in memory and renewed every day; that
leaf does TLS and signs records. Clients and the guest have an Ed25519 key whose leaf the root issued. Contexts: TLS 1.3
only, both certificates required, the network root as the only trust, no times (they are judged in Hello, so that
no paperwork makes data unreadable). `ssl` wants a file name for the key: it gets a memfd that is wiped at once.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nacl.bindings
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lockbox_node.adapters.keystores import load_private_key
from lockbox_node.adapters.tcp import ALPN
from lockbox_node.errors import ConfigError
from protocol.certificates import NetworkRoot, PeerIdentity, Role, san_of, spki_of, verify_chain
from protocol.errors import RemoteProtocolError
from protocol.ids import ClientId, NodeId
from protocol.issuing import Terms, assemble, operational_leaf_to_sign

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lockbox_node.ports import Entropy, KeyStore, WallClock

CERTIFICATE_NAME = "node.pem"
LEAF_LIFE_S = 24 * 3600
LEAF_BACKDATED_S = 300  # a peer whose clock is behind by what Hello tolerates must not find it too young
PEM_BYTES_MAX = 64 * 1024
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, without a name in `ssl`

log = structlog.get_logger(__name__)


class Credential:
    """A leaf key with its chain: signs, and gives TLS contexts. Never changes."""

    def __init__(self, root: NetworkRoot, chain: Sequence[bytes], key: ed25519.Ed25519PrivateKey) -> None:
        """RemoteProtocolError when the chain is not of this network; ConfigError when the key is another's."""
        self.peer = verify_chain(root, chain)
        self.chain = tuple(chain)
        public_key = key.public_key().public_bytes_raw()
        if public_key != self.peer.leaf_public_key:
            raise ConfigError("the certificate is of another key than this one", "give the pair that belongs together")
        self._signing_key = key.private_bytes_raw() + public_key
        self.client_context = _context(ssl.PROTOCOL_TLS_CLIENT, root, chain, key)
        self.server_context = _context(ssl.PROTOCOL_TLS_SERVER, root, chain, key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature."""
        return nacl.bindings.crypto_sign(data, self._signing_key)[: nacl.bindings.crypto_sign_BYTES]


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """network.pem: the root certificate, and the guest's certificate with its key, which is no secret."""

    root: NetworkRoot
    guest_certificate: bytes  # DER
    guest_key: ed25519.Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> NetworkFile:
        """Read and check network.pem. ConfigError says what is wrong with it."""
        hint = "get network.pem from the network's authority again"
        pem = _read_pem(path)
        try:
            certificates = x509.load_pem_x509_certificates(pem)
            key = serialization.load_pem_private_key(pem, password=None)
            root_certificate, guest = (_der(certificate) for certificate in certificates)
            root = NetworkRoot(root_certificate)
            peer = verify_chain(root, [guest])
        except (ValueError, TypeError, UnsupportedAlgorithm, RemoteProtocolError):
            raise ConfigError(f"{path} does not hold a root, a guest and the guest's key", hint) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey) or peer.role is not Role.GUEST:
            raise ConfigError(f"the second certificate in {path} is not the guest's", hint)
        if key.public_key().public_bytes_raw() != peer.leaf_public_key:
            raise ConfigError(f"the key in {path} is not the guest's", hint)
        return cls(root, guest, key)

    def to_pem(self) -> bytes:
        """The bytes of network.pem."""
        key = self.guest_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem_of(self.root.der) + pem_of(self.guest_certificate) + key


class ClientIdentity:
    """A client, an operator, or the guest."""

    def __init__(self, root: NetworkRoot, credential: Credential) -> None:
        self.root = root
        self._credential = credential

    @classmethod
    def load(cls, network: NetworkFile, certificate: Path, key: Path, clock: WallClock) -> ClientIdentity:
        """From the certificate that the authority issued and the key of its request. ConfigError; warns of expiry."""
        chain = _load_chain(certificate)
        private_key = load_private_key(key)
        if not isinstance(private_key, ed25519.Ed25519PrivateKey):
            raise ConfigError(f"{key} does not hold an Ed25519 key", "give the key that `lockbox csr` made")
        credential = _credential(network.root, chain, private_key, certificate)
        if credential.peer.role is Role.NODE:
            raise ConfigError(f"{certificate} is a node's certificate", "give a client's")
        _warn_of_expiry(credential.peer, clock)
        return cls(network.root, credential)

    @classmethod
    def guest(cls, network: NetworkFile) -> ClientIdentity:
        """The guest of the network, whom everybody may be."""
        return cls(network.root, Credential(network.root, [network.guest_certificate], network.guest_key))

    @property
    def role(self) -> Role:
        """CLIENT, OPERATOR or GUEST."""
        return self._credential.peer.role

    @property
    def client_id(self) -> ClientId:
        """What nodes know us by."""
        return ClientId(self._credential.peer.id)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first, without the root."""
        return self._credential.chain

    @property
    def not_after_unix_s(self) -> float:
        """When the certificate expires."""
        return self._credential.peer.not_after_unix_s

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data` by the leaf key."""
        return self._credential.sign(data)

    def client_context(self) -> ssl.SSLContext:
        """For connections that we dial."""
        return self._credential.client_context

    def server_context(self) -> ssl.SSLContext:
        """For connections that come to us: a client serves nobody, tests do."""
        return self._credential.server_context


class NodeIdentity:
    """A node: the id that its identity certificate gives, and the operational key of the day."""

    def __init__(
        self, directory: Path, root: NetworkRoot, keystore: KeyStore, clock: WallClock, entropy: Entropy
    ) -> None:
        """Use `load`; this one has no certificate yet."""
        self.root = root
        self._certificate = directory / CERTIFICATE_NAME
        self._keystore, self._clock, self._entropy = keystore, clock, entropy
        self._current: Credential | None = None

    @classmethod
    async def load(
        cls, directory: Path, root: NetworkRoot, keystore: KeyStore, clock: WallClock, entropy: Entropy
    ) -> NodeIdentity:
        """From `directory`/node.pem (the identity directory) and the keystore. ConfigError, KeyStoreError."""
        identity = cls(directory, root, keystore, clock, entropy)
        await identity.renew()
        _warn_of_expiry(identity._credential.peer, clock)
        return identity

    async def renew(self) -> None:
        """Read the identity certificate again and make a new operational key and leaf. ConfigError, KeyStoreError.

        After an error, or a cut, the old ones stay in use. The node id may not change. 2 ms.
        """
        identity = _load_chain(self._certificate)[0]
        if spki_of(x509.load_der_x509_certificate(identity)) != await self._keystore.public_key():
            raise ConfigError(
                f"{self._certificate} is of another key than the identity key", "issue it from this node's node.csr"
            )
        seed = bytearray(32)
        self._entropy.fill(seed)
        key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        seed[:] = bytes(32)
        try:
            to_sign = operational_leaf_to_sign(identity, key.public_key().public_bytes_raw(), self._terms())
        except RemoteProtocolError:
            raise ConfigError(f"{self._certificate} is not a node's certificate", "issue it with --role node") from None
        leaf = assemble(to_sign, await self._keystore.sign(to_sign))
        fresh = _credential(self.root, [leaf, identity], key, self._certificate)
        if self._current is not None and fresh.peer.id != self._current.peer.id:
            raise ConfigError(f"{self._certificate} names another node than before", "restore it, or start anew")
        self._current = fresh

    @property
    def _credential(self) -> Credential:
        assert self._current is not None, "load() makes one"
        return self._current

    @property
    def node_id(self) -> NodeId:
        """The id in our identity certificate."""
        return NodeId(self._credential.peer.id)

    @property
    def operator(self) -> str:
        """The O of our identity certificate."""
        return self._credential.peer.operator

    @property
    def role(self) -> Role:
        """Always NODE."""
        return self._credential.peer.role

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER: the operational leaf, then the identity certificate."""
        return self._credential.chain

    @property
    def leaf_not_after_unix_s(self) -> float:
        """When the operational leaf expires."""
        return x509.load_der_x509_certificate(self.chain[0]).not_valid_after_utc.timestamp()

    @property
    def identity_not_after_unix_s(self) -> float:
        """When the identity certificate expires."""
        return x509.load_der_x509_certificate(self.chain[1]).not_valid_after_utc.timestamp()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data` by the operational key."""
        return self._credential.sign(data)

    def client_context(self) -> ssl.SSLContext:
        """For connections that we dial."""
        return self._credential.client_context

    def server_context(self) -> ssl.SSLContext:
        """For connections that come to us."""
        return self._credential.server_context

    def _terms(self) -> Terms:
        now = int(self._clock.now_unix_s())
        return Terms(drawn_serial(self._entropy), now - LEAF_BACKDATED_S, now + LEAF_LIFE_S)


def drawn_serial(entropy: Entropy) -> int:
    """A certificate's serial: 1 to 2^159 - 1 (RFC 5280, section 4.1.2.2)."""
    buffer = bytearray(20)
    entropy.fill(buffer)
    return max(1, int.from_bytes(buffer, "big") >> 1)


def pem_of(der: bytes) -> bytes:
    """A certificate as PEM."""
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _context(side: int, root: NetworkRoot, chain: Sequence[bytes], key: ed25519.Ed25519PrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # identities are ids in certificates, not names
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=root.der)
    context.set_alpn_protocols([ALPN])
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # connections are kept, not resumed
    pem = b"".join(pem_of(der) for der in chain) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.pwrite(descriptor, bytes(len(pem)), 0)
        os.close(descriptor)
    return context


def _credential(root: NetworkRoot, chain: Sequence[bytes], key: ed25519.Ed25519PrivateKey, path: Path) -> Credential:
    try:
        return Credential(root, chain, key)
    except RemoteProtocolError as error:
        network = _network_in(chain[0])
        if network and network != root.network_id.hex():
            raise ConfigError(
                f"{path} is a certificate of another network ({network[:8]}, this one is {root.network_id.hex()[:8]})",
                "give the certificate and the network.pem of one network",
            ) from None
        raise ConfigError(f"{path} is not a certificate of this network: {error}", "have it issued again") from None


def _network_in(certificate: bytes) -> str:
    try:
        return san_of(x509.load_der_x509_certificate(certificate)).removeprefix("lockbox://").partition("/")[0]
    except (RemoteProtocolError, ValueError, x509.ExtensionNotFound):
        return ""


def _load_chain(path: Path) -> list[bytes]:
    try:
        return [_der(certificate) for certificate in x509.load_pem_x509_certificates(_read_pem(path))]
    except ValueError:
        raise ConfigError(f"{path} does not hold a certificate in PEM", "have it issued again") from None


def _read_pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(PEM_BYTES_MAX)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing", "get it from the network's authority and put it there") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check the path and its owner") from None


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _warn_of_expiry(peer: PeerIdentity, clock: WallClock) -> None:
    days = (peer.not_after_unix_s - clock.now_unix_s()) / 86400
    if days < 0:
        log.warning("certificate_expired", role=peer.role.value, days_ago=round(-days, 1), still_allowed="reads")
