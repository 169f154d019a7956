"""A network's authority in memory, with identities made the way the product makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile, NodeIdentity, drawn_serial, pem_of
from lockbox_node.adapters.keystores import FileKeyStore, save_private_key
from protocol.certificates import NetworkRoot, Role
from protocol.issuing import Terms, build_identity, build_request, build_role_leaf, build_root, read_csr

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86400


@dataclass(frozen=True)
class FixedClock:
    """A wall clock that stands still."""

    unix_s: float

    def now_unix_s(self) -> float:
        return self.unix_s


class Authority:
    """Root, guest, and whatever they sign; all files go below `home`."""

    def __init__(self, home: Path, entropy: OsEntropy) -> None:
        self.home, self.entropy, self.clock = home, entropy, SystemClock()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.root = NetworkRoot(build_root(self.key, "test", self.terms()))
        self.made = 0
        guest = ed25519.Ed25519PrivateKey.generate()
        self.network = NetworkFile(self.root, self.leaf(Role.GUEST, guest), guest)
        home.mkdir()
        self.network_path = home / "network.pem"
        self.network_path.write_bytes(self.network.to_pem())

    def terms(self, from_days: float = -1, to_days: float = 30) -> Terms:
        now = self.clock.now_unix_s()
        return Terms(drawn_serial(self.entropy), int(now + from_days * DAY_S), int(now + to_days * DAY_S))

    def leaf(self, role: Role, key: ed25519.Ed25519PrivateKey, terms: Terms | None = None) -> bytes:
        return build_role_leaf(self.root, self.key, role, key.public_key().public_bytes_raw(), terms or self.terms())

    def client_files(self, role: Role = Role.CLIENT, terms: Terms | None = None) -> tuple[Path, Path]:
        """(certificate, key) of a new client."""
        self.made += 1
        key = ed25519.Ed25519PrivateKey.generate()
        certificate, private = self.home / f"client{self.made}.pem", self.home / f"client{self.made}.key"
        certificate.write_bytes(pem_of(self.leaf(role, key, terms)))
        save_private_key(private, key)
        return certificate, private

    def client(self, role: Role = Role.CLIENT) -> ClientIdentity:
        return ClientIdentity.load(self.network, *self.client_files(role), self.clock)

    def node_files(self, operator: str = "op1", terms: Terms | None = None, salt: bytes = bytes(16)) -> Path:
        """The identity directory of a new node."""
        self.made += 1
        directory = self.home / f"node{self.made}"
        key = ec.generate_private_key(ec.SECP256R1())
        save_private_key(directory / "key.pem", key)
        self.sign_node(directory, operator, terms, salt)
        return directory

    def sign_node(
        self, directory: Path, operator: str = "op1", terms: Terms | None = None, salt: bytes = bytes(16)
    ) -> None:
        """Write, or renew, the identity certificate of the key in `directory`."""
        request = build_request(FileKeyStore.load(directory / "key.pem")._key, operator)
        der = build_identity(self.root, self.key, read_csr(request), salt, terms or self.terms())
        (directory / "node.pem").write_bytes(pem_of(der))

    async def load_node(self, directory: Path) -> NodeIdentity:
        keystore = FileKeyStore.load(directory / "key.pem")
        return await NodeIdentity.load(directory, self.root, keystore, self.clock, self.entropy)

    async def node(self) -> NodeIdentity:
        return await self.load_node(self.node_files())


@pytest.fixture
def entropy() -> OsEntropy:
    return OsEntropy()


@pytest.fixture
def authority(tmp_path: Path, entropy: OsEntropy) -> Authority:
    return Authority(tmp_path / "ours", entropy)


@pytest.fixture
def foreign(tmp_path: Path, entropy: OsEntropy) -> Authority:
    """The authority of another network."""
    return Authority(tmp_path / "theirs", entropy)


@pytest.fixture
async def node(authority: Authority) -> NodeIdentity:
    return await authority.node()


@pytest.fixture
def client(authority: Authority) -> ClientIdentity:
    return authority.client()
