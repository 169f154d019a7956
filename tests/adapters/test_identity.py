"""Who we are, from files: good ones, wrong ones, old ones, those of another network."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import nacl.bindings
import pytest
import structlog.testing
import trio
from cryptography.hazmat.primitives.asymmetric import ed25519

from lockbox_node.adapters.identity import ClientIdentity, NetworkFile, NodeIdentity, drawn_serial, pem_of
from lockbox_node.adapters.keystores import FileKeyStore
from lockbox_node.errors import ConfigError, ExitCode, KeyStoreError
from protocol.certificates import Role, verify_chain
from protocol.ids import node_id_of
from tests.adapters.conftest import DAY_S, FixedClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.adapters.clock import OsEntropy
    from tests.adapters.conftest import Authority

pytestmark = pytest.mark.real


def verifies(signature: bytes, data: bytes, public_key: bytes) -> bool:
    return nacl.bindings.crypto_sign_open(signature + data, public_key) == data


async def test_a_node_is_who_its_certificate_and_salt_say(authority: Authority) -> None:
    directory = authority.node_files("acme", salt=b"s" * 16)
    node = await authority.load_node(directory)
    spki = await FileKeyStore.load(directory / "key.pem").public_key()
    assert node.node_id == node_id_of(spki, b"s" * 16)
    assert (node.operator, node.role, len(node.chain)) == ("acme", Role.NODE, 2)


async def test_the_chain_of_a_node_verifies_and_its_leaf_signed_what_it_signed(authority: Authority) -> None:
    node = await authority.node()
    peer = verify_chain(authority.root, node.chain)
    assert peer.id == node.node_id
    assert verifies(node.sign(b"record"), b"record", peer.leaf_public_key)


async def test_the_operational_leaf_lives_a_day_and_tolerates_slow_clocks(authority: Authority) -> None:
    now = authority.clock.now_unix_s()
    node = await authority.node()
    assert now + DAY_S - 5 <= node.leaf_not_after_unix_s <= now + DAY_S + 5
    assert verify_chain(authority.root, node.chain).not_before_unix_s <= now - 299
    assert node.identity_not_after_unix_s > now + 29 * DAY_S


async def test_renewal_changes_leaf_key_and_contexts_but_not_the_id(authority: Authority) -> None:
    node = await authority.node()
    node_id, chain, context, signature = node.node_id, node.chain, node.client_context(), node.sign(b"x")
    assert node.client_context() is context
    await node.renew()
    assert node.node_id == node_id
    assert node.chain[0] != chain[0]
    assert node.chain[1] == chain[1]
    assert node.sign(b"x") != signature
    assert node.client_context() is not context
    assert node.server_context() is not context


async def test_renewal_takes_up_a_renewed_identity_certificate(authority: Authority) -> None:
    directory = authority.node_files()
    node = await authority.load_node(directory)
    before = node.identity_not_after_unix_s
    authority.sign_node(directory, terms=authority.terms(-1, 300))
    await node.renew()
    assert node.identity_not_after_unix_s > before + 200 * DAY_S


async def test_after_a_failed_renewal_the_old_leaf_stays_in_use(authority: Authority) -> None:
    directory = authority.node_files()
    node = await authority.load_node(directory)
    chain = node.chain
    (directory / "node.pem").write_bytes(b"half a certificate")
    with pytest.raises(ConfigError, match="does not hold a certificate"):
        await node.renew()
    assert node.chain == chain
    node.sign(b"still")


async def test_a_renewal_may_not_make_another_node_of_us(authority: Authority) -> None:
    directory = authority.node_files(salt=b"a" * 16)
    node = await authority.load_node(directory)
    authority.sign_node(directory, salt=b"b" * 16)
    with pytest.raises(ConfigError, match="names another node than before"):
        await node.renew()


async def test_a_node_certificate_of_another_network_is_refused_in_clear_words(
    authority: Authority, foreign: Authority
) -> None:
    directory = foreign.node_files()
    keystore = FileKeyStore.load(directory / "key.pem")
    with pytest.raises(ConfigError, match="is a certificate of another network") as caught:
        await NodeIdentity.load(directory, authority.root, keystore, authority.clock, authority.entropy)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert "one network" in caught.value.hint


async def test_a_certificate_of_another_key_is_refused(authority: Authority) -> None:
    directory, other = authority.node_files(), authority.node_files()
    (directory / "node.pem").write_bytes((other / "node.pem").read_bytes())
    with pytest.raises(ConfigError, match="of another key than the identity key"):
        await authority.load_node(directory)


async def test_a_node_without_its_certificate_says_where_it_belongs(authority: Authority) -> None:
    directory = authority.node_files()
    (directory / "node.pem").unlink()
    with pytest.raises(ConfigError, match=r"node\.pem is missing") as caught:
        await authority.load_node(directory)
    assert "authority" in caught.value.hint


async def test_an_expired_node_certificate_loads_with_a_warning(authority: Authority) -> None:
    directory = authority.node_files(terms=authority.terms(-40, -2))
    with structlog.testing.capture_logs() as logs:
        node = await authority.load_node(directory)
    assert [(line["event"], line["days_ago"]) for line in logs] == [("certificate_expired", 2.0)]
    assert node.sign(b"x")


async def test_a_keystore_that_fails_is_a_keystore_error_and_changes_nothing(authority: Authority) -> None:
    directory = authority.node_files()

    class Token(FileKeyStore):
        """A key that can be pulled out."""

        pulled = False

        async def sign(self, message: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            if self.pulled:
                raise KeyStoreError("the token is gone", "put it back")
            return await super().sign(message)

    token = Token(FileKeyStore.load(directory / "key.pem")._key)
    node = await NodeIdentity.load(directory, authority.root, token, authority.clock, authority.entropy)
    chain = node.chain
    token.pulled = True
    with pytest.raises(KeyStoreError, match="the token is gone"):
        await node.renew()
    assert node.chain == chain


async def test_contexts_demand_tls_1_3_and_a_certificate_of_this_network(authority: Authority) -> None:
    node = await authority.node()
    for context in (node.client_context(), node.server_context()):
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags & 0x200000
        assert context.get_ca_certs(binary_form=True) == [authority.root.der]
        assert not context.check_hostname
    assert node.server_context().num_tickets == 0


async def test_making_contexts_leaves_no_descriptor_open(authority: Authority) -> None:
    node = await authority.node()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await node.renew()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OPERATOR])
def test_a_client_is_who_its_leaf_says(authority: Authority, role: Role) -> None:
    client = authority.client(role)
    peer = verify_chain(authority.root, client.chain)
    assert (client.role, client.client_id) == (role, peer.id)
    assert client.not_after_unix_s == peer.not_after_unix_s
    assert verifies(client.sign(b"claim"), b"claim", peer.leaf_public_key)


def test_the_guest_needs_network_pem_alone(authority: Authority) -> None:
    guest = ClientIdentity.guest(NetworkFile.load(authority.network_path))
    assert guest.role is Role.GUEST
    assert verify_chain(authority.root, guest.chain).role is Role.GUEST


def test_a_client_certificate_of_another_network_is_refused(authority: Authority, foreign: Authority) -> None:
    with pytest.raises(ConfigError, match="is a certificate of another network"):
        ClientIdentity.load(authority.network, *foreign.client_files(), authority.clock)


def test_a_client_certificate_with_the_key_of_another_is_refused(authority: Authority) -> None:
    (certificate, _), (_, key) = authority.client_files(), authority.client_files()
    with pytest.raises(ConfigError, match="of another key"):
        ClientIdentity.load(authority.network, certificate, key, authority.clock)


def test_an_expired_client_certificate_loads_with_a_warning(authority: Authority) -> None:
    files = authority.client_files()
    with structlog.testing.capture_logs() as logs:
        client = ClientIdentity.load(authority.network, *files, FixedClock(authority.clock.now_unix_s() + 31 * DAY_S))
    assert [line["event"] for line in logs] == ["certificate_expired"]
    assert client.client_id.hex() not in str(logs)


async def test_a_nodes_files_make_no_client(authority: Authority) -> None:
    directory = authority.node_files()
    with pytest.raises(ConfigError, match="does not hold an Ed25519 key"):
        ClientIdentity.load(authority.network, directory / "node.pem", directory / "key.pem", authority.clock)


def test_network_pem_survives_a_round_trip(authority: Authority) -> None:
    loaded = NetworkFile.load(authority.network_path)
    assert loaded.to_pem() == authority.network.to_pem()
    assert loaded.root.network_id == authority.root.network_id


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ours, theirs: b"", "does not hold a root"),
        (lambda ours, theirs: ours.to_pem()[:200], "does not hold a root"),
        (lambda ours, theirs: pem_of(ours.root.der), "does not hold a root"),
        (lambda ours, theirs: ours.to_pem() + pem_of(ours.root.der), "does not hold a root"),
        (lambda ours, theirs: pem_of(theirs.root.der) + ours.to_pem(), "does not hold a root"),
        (lambda ours, theirs: NetworkFile(ours.root, theirs.guest_certificate, theirs.guest_key).to_pem(), "a root"),
        (lambda ours, theirs: NetworkFile(ours.root, ours.guest_certificate, theirs.guest_key).to_pem(), "the guest's"),
    ],
)
def test_a_wrong_network_pem_is_refused(
    authority: Authority,
    foreign: Authority,
    tmp_path: Path,
    spoil: Callable[[NetworkFile, NetworkFile], bytes],
    words: str,
) -> None:
    path = tmp_path / "network.pem"
    path.write_bytes(spoil(authority.network, foreign.network))
    with pytest.raises(ConfigError, match=words):
        NetworkFile.load(path)


def test_a_clients_certificate_cannot_stand_in_for_the_guests(authority: Authority, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "network.pem"
    path.write_bytes(NetworkFile(authority.root, authority.leaf(Role.CLIENT, key), key).to_pem())
    with pytest.raises(ConfigError, match="not the guest's"):
        NetworkFile.load(path)


def test_serials_are_positive_and_fit_rfc_5280(entropy: OsEntropy) -> None:
    serials = {drawn_serial(entropy) for _ in range(100)}
    assert len(serials) == 100
    assert all(1 <= serial < 2**159 for serial in serials)
