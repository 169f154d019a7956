"""A whole network on paper: root, nodes, clients, an operator and the guest, with real certificates.

Each is a LocalIdentity whose clock a test may set. Keys come from fixed numbers, so ids are the same in every run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from protocol.certificates import NetworkRoot, Role, verify_chain
from protocol.documents import Document, sign_document
from protocol.ids import NodeId
from protocol.issuing import (
    Terms,
    build_identity,
    build_operational_leaf,
    build_request,
    build_role_leaf,
    build_root,
    read_csr,
)
from protocol.messages import Hello, Signed, SignedDocument
from protocol.records import NodeRecord, sign

NOW_UNIX_S = 1_900_000_000.0
YEAR_S = 365 * 24 * 3600


@dataclass
class FakeIdentity:
    """A LocalIdentity: what it says in Hello can be bent by a test."""

    id: bytes
    role: Role
    root: NetworkRoot
    chain: list[bytes]
    key: ed25519.Ed25519PrivateKey
    operator: str = ""
    record: Signed | None = None
    software: bytes = b""
    now_unix_s: float = NOW_UNIX_S
    versions: list[int] = field(default_factory=lambda: [1])
    network: bytes = b""

    def hello(self) -> Hello:
        """What it says now."""
        network = self.network or self.root.network_id
        return Hello(self.chain, self.versions, network, self.record, self.software, int(self.now_unix_s * 1000))

    def leaf(self) -> bytes:
        """What TLS would show."""
        return self.chain[0]


class Papers:
    """The operational identity of a node; `identity` may be exchanged, as a renewal does."""

    def __init__(self, identity: FakeIdentity) -> None:
        self.identity = identity
        self.leaf_not_after_unix_s = self.identity_not_after_unix_s = NOW_UNIX_S + YEAR_S

    @property
    def node_id(self) -> NodeId:
        """See Operational."""
        return NodeId(self.identity.id)

    @property
    def operator(self) -> str:
        """See Operational."""
        return self.identity.operator

    @property
    def chain(self) -> tuple[bytes, ...]:
        """See Operational."""
        return tuple(self.identity.chain)

    def sign(self, data: bytes, /) -> bytes:
        """See Operational."""
        return self.identity.key.sign(data)

    def leaf(self) -> bytes:
        """What TLS would show."""
        return self.identity.leaf()


class FakeNetwork:
    """The authority of a test network. `number` tells one network from another."""

    def __init__(self, number: int = 1) -> None:
        self._key = ec.derive_private_key(1000 + number, ec.SECP256R1())
        self._serial = 0
        self.root = NetworkRoot(build_root(self._key, f"test {number}", self._terms()))

    def sign(self, document: Document) -> SignedDocument:
        """A network document."""
        return sign_document(document, self._key)

    def node(
        self, number: int, *, operator: str = "", region: str = "eu-central", days: float = 365, address: str = ""
    ) -> FakeIdentity:
        """Node `number`, with a record that names `address`."""
        operator = operator or f"operator {number}"
        identity_key = ec.derive_private_key(2000 + number, ec.SECP256R1())
        csr = read_csr(build_request(identity_key, operator))
        identity = build_identity(self.root, self._key, csr, number.to_bytes(16, "big"), self._terms())
        key = self._ed25519("node", number)
        terms = self._terms(days)
        leaf = build_operational_leaf(identity, identity_key, key.public_key().public_bytes_raw(), terms)
        chain = [leaf, identity]
        node = verify_chain(self.root, chain).id
        software = hashlib.sha256(b"test software").digest()
        record = NodeRecord(
            node,
            int(NOW_UNIX_S * 1000),
            int(NOW_UNIX_S) + YEAR_S,
            [address or f"node{number}:7420"],
            region,
            operator,
            4,
            10,
            [1],
            software,
            1,
            0,
            1,
            bytes(16),
            chain,
        )
        return FakeIdentity(node, Role.NODE, self.root, chain, key, operator, sign(record, key), software)

    def client(self, number: int, *, days: float = 365) -> FakeIdentity:
        """Client `number`."""
        return self._by_role(Role.CLIENT, number, days)

    def operator(self, number: int) -> FakeIdentity:
        """Operator `number`, as one who asks for status."""
        return self._by_role(Role.OPERATOR, number, 365)

    def guest(self) -> FakeIdentity:
        """The guest, whose key everybody has."""
        return self._by_role(Role.GUEST, 0, 365)

    def _by_role(self, role: Role, number: int, days: float) -> FakeIdentity:
        key = self._ed25519(role.value, number)
        leaf = build_role_leaf(self.root, self._key, role, key.public_key().public_bytes_raw(), self._terms(days))
        return FakeIdentity(verify_chain(self.root, [leaf]).id, role, self.root, [leaf], key)

    def _terms(self, days: float = 365) -> Terms:
        self._serial += 1
        return Terms(self._serial, int(NOW_UNIX_S) - 40 * 24 * 3600, int(NOW_UNIX_S + days * 24 * 3600))

    def _ed25519(self, kind: str, number: int) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{kind} {number}".encode()).digest())
