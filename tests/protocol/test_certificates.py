"""Who a chain makes its bearer; and every way in which a chain is refused, one broken rule at a time."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocol import certificates
from protocol.certificates import NetworkRoot, Role, spki_of, spki_of_ed25519, uri_of, verify_chain, verify_record
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import client_id_of, network_id_of, node_id_of
from protocol.issuing import build_operational_leaf, build_role_leaf
from protocol.messages import Signed
from protocol.records import sign
from tests.protocol import forge, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.protocol.forge import Forgery

NETWORK = samples.network()
NODE, OTHER = samples.node_chain(), samples.node_chain("other")
IDENTITY = NODE[1]
P384 = ec.derive_private_key(7, ec.SECP384R1())


def refused(chain: Sequence[bytes]) -> None:
    """Assert that nobody may present this chain."""
    with pytest.raises(RemoteProtocolError) as caught:
        verify_chain(NETWORK, chain)
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


def test_a_node_is_its_identity() -> None:
    peer = verify_chain(NETWORK, NODE)
    spki = spki_of(x509.load_der_x509_certificate(IDENTITY))
    assert peer.role is Role.NODE
    assert peer.id == node_id_of(spki, samples.digest("node salt")[:16])
    assert peer.operator == samples.OPERATOR
    assert peer.leaf_public_key == samples.raw("node leaf")


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OPERATOR, Role.GUEST])
def test_a_leaf_of_the_root_is_what_its_san_says(role: Role) -> None:
    peer = verify_chain(NETWORK, [samples.role_leaf(role)])
    assert (peer.role, peer.operator, peer.leaf_public_key) == (role, "", samples.raw(str(role)))
    assert peer.id == client_id_of(spki_of_ed25519(samples.raw(str(role))))


def test_the_network_is_named_by_its_key() -> None:
    assert NETWORK.network_id == network_id_of(spki_of(NETWORK.certificate))
    assert uri_of(bytes(32), Role.GUEST, b"") == f"lockbox://{'00' * 32}/guest"
    assert uri_of(bytes(32), Role.NODE, b"\xab" * 32) == f"lockbox://{'00' * 32}/node/{'ab' * 32}"


def test_the_times_are_the_tightest_of_the_chain_and_not_judged() -> None:
    leaf = dataclasses.replace(forge.operational(), not_before_unix_s=5, not_after_unix_s=10)
    peer = verify_chain(NETWORK, [leaf.der(), IDENTITY])
    assert peer.not_before_unix_s == samples.TERMS.not_before_unix_s
    assert peer.not_after_unix_s == 10
    with_old_identity = [NODE[0], dataclasses.replace(forge.identity(), not_after_unix_s=2_000_000_000).der()]
    assert verify_chain(NETWORK, with_old_identity).not_after_unix_s == samples.TERMS.not_after_unix_s


def test_the_forgeries_are_sound_until_a_rule_is_broken() -> None:
    assert verify_chain(NETWORK, [forge.operational().der(), forge.identity().der()]).role is Role.NODE
    assert verify_chain(NETWORK, [forge.client().der()]).role is Role.CLIENT
    assert NetworkRoot(forge.root().der()).network_id == NETWORK.network_id


@pytest.mark.parametrize(
    "chain",
    [
        [],
        NODE[:1],
        NODE[1:],
        NODE[::-1],
        [NODE[0], NODE[0]],
        [NODE[1], NODE[1]],
        [*NODE, NETWORK.der],
        [NODE[0], NETWORK.der],
        [NETWORK.der],
        [NODE[0], OTHER[1]],
        [samples.role_leaf(Role.CLIENT), IDENTITY],
        [samples.role_leaf(Role.CLIENT), NETWORK.der],
        [samples.role_leaf(Role.CLIENT)] * 2,
    ],
    ids=range(13),
)
def test_a_chain_of_another_shape_is_refused(chain: list[bytes]) -> None:
    refused(chain)


def test_a_node_cannot_mint_another_role() -> None:
    for names in (
        [forge.uri(uri_of(NETWORK.network_id, role, client_id_of(spki_of_ed25519(samples.raw("node leaf")))))]
        for role in (Role.CLIENT, Role.OPERATOR, Role.GUEST)
    ):
        minted = dataclasses.replace(forge.operational(), names=names).der()
        refused([minted, IDENTITY])
        refused([minted])


def test_a_node_cannot_mint_a_leaf_of_another_node() -> None:
    names = [forge.uri(certificates.san_of(x509.load_der_x509_certificate(OTHER[1])))]
    refused([dataclasses.replace(forge.operational(), names=names).der(), IDENTITY])
    refused([build_operational_leaf(OTHER[1], samples.p256("node"), samples.raw("x"), samples.TERMS), OTHER[1]])


def test_a_leaf_signed_by_another_key_than_the_roots_is_refused() -> None:
    refused([build_role_leaf(NETWORK, samples.p256("other"), Role.CLIENT, samples.raw("client"), samples.TERMS)])


def test_a_role_leaf_names_its_own_key_and_network() -> None:
    own = client_id_of(spki_of_ed25519(samples.raw("client")))
    for text in (
        uri_of(NETWORK.network_id, Role.CLIENT, samples.digest("another")),
        uri_of(samples.digest("another network"), Role.CLIENT, own),
        uri_of(NETWORK.network_id, Role.NODE, own),
        uri_of(NETWORK.network_id, Role.CLIENT, own).upper(),
        uri_of(NETWORK.network_id, Role.GUEST, own) + "/",
        "",
    ):
        refused([dataclasses.replace(forge.client(), names=[forge.uri(text)]).der()])


LEAF_RULES: dict[str, Callable[[Forgery], Forgery]] = {
    "a CA": lambda leaf: dataclasses.replace(leaf, constraints=x509.BasicConstraints(True, 0)),
    "no constraints": lambda leaf: dataclasses.replace(leaf, constraints=None),
    "no usage": lambda leaf: dataclasses.replace(leaf, usage=None),
    "may certify": lambda leaf: dataclasses.replace(leaf, usage=forge.usage(sign=True, certify=True)),
    "may not sign": lambda leaf: dataclasses.replace(leaf, usage=forge.usage(sign=False, certify=False)),
    "not critical": lambda leaf: dataclasses.replace(leaf, critical=False),
    "unknown critical": lambda leaf: dataclasses.replace(leaf, unknown_critical=True),
    "a P-256 key": lambda leaf: dataclasses.replace(leaf, key=samples.p256("node leaf")),
    "no SAN": lambda leaf: dataclasses.replace(leaf, names=None),
    "two SANs": lambda leaf: dataclasses.replace(leaf, names=[*(leaf.names or []), forge.uri("lockbox://x")]),
    "a twofold SAN": lambda leaf: dataclasses.replace(leaf, names=(leaf.names or []) * 2),
    "a DNS name": lambda leaf: dataclasses.replace(leaf, names=[x509.DNSName("node.example")]),
    "its URI as a DNS name": lambda leaf: dataclasses.replace(
        leaf, names=[x509.DNSName(name.value) for name in leaf.names or []]
    ),
    "an address": lambda leaf: dataclasses.replace(leaf, names=[x509.IPAddress(ipaddress.ip_address("::1"))]),
    "another issuer": lambda leaf: dataclasses.replace(leaf, issuer=forge.name((NameOID.COMMON_NAME, "other"))),
    "another signer": lambda leaf: dataclasses.replace(leaf, signer=samples.p256("other")),
    "SHA-384": lambda leaf: dataclasses.replace(leaf, digest=hashes.SHA384()),
    "signed by itself": lambda leaf: dataclasses.replace(leaf, signer=samples.ed("node leaf"), digest=None),
}


@pytest.mark.parametrize("rule", LEAF_RULES)
def test_a_leaf_that_breaks_a_rule_is_refused(rule: str) -> None:
    refused([LEAF_RULES[rule](forge.operational()).der(), IDENTITY])
    refused([LEAF_RULES[rule](forge.client()).der()])


SALT_DER = b"\x04\x10" + forge.SALT
IDENTITY_RULES: dict[str, Callable[[Forgery], Forgery]] = {
    "no CA": lambda own: dataclasses.replace(own, constraints=x509.BasicConstraints(False, None)),
    "no path length": lambda own: dataclasses.replace(own, constraints=x509.BasicConstraints(True, None)),
    "path length 1": lambda own: dataclasses.replace(own, constraints=x509.BasicConstraints(True, 1)),
    "may not certify": lambda own: dataclasses.replace(own, usage=forge.usage(sign=True, certify=False)),
    "not critical": lambda own: dataclasses.replace(own, critical=False),
    "unknown critical": lambda own: dataclasses.replace(own, unknown_critical=True),
    "no salt": lambda own: dataclasses.replace(own, salt=None),
    "another salt": lambda own: dataclasses.replace(own, salt=b"\x04\x10" + bytes(16)),
    "a short salt": lambda own: dataclasses.replace(own, salt=SALT_DER[:-1]),
    "a long salt": lambda own: dataclasses.replace(own, salt=SALT_DER + b"\x00"),
    "a salt of another type": lambda own: dataclasses.replace(own, salt=b"\x03" + SALT_DER[1:]),
    "no SAN": lambda own: dataclasses.replace(own, names=None),
    "another node": lambda own: dataclasses.replace(
        own, names=[forge.uri(uri_of(NETWORK.network_id, Role.NODE, bytes(32)))]
    ),
    "no operator": lambda own: dataclasses.replace(own, subject=forge.name((NameOID.COMMON_NAME, "x"))),
    "two operators": lambda own: dataclasses.replace(
        own, subject=forge.name((NameOID.ORGANIZATION_NAME, "a"), (NameOID.ORGANIZATION_NAME, "b"))
    ),
    "another signer": lambda own: dataclasses.replace(own, signer=samples.p256("other")),
    "signed by itself": lambda own: dataclasses.replace(own, signer=samples.p256("node")),
    "SHA-384": lambda own: dataclasses.replace(own, digest=hashes.SHA384()),
}


def chain_under(identity: Forgery) -> list[bytes]:
    """A leaf, sound in itself, under a forged identity."""
    leaf = dataclasses.replace(forge.operational(), issuer=identity.subject, signer=identity.key)
    if identity.names is not None:
        leaf = dataclasses.replace(leaf, names=identity.names)
    return [leaf.der(), identity.der()]


@pytest.mark.parametrize("rule", IDENTITY_RULES)
def test_an_identity_that_breaks_a_rule_is_refused(rule: str) -> None:
    refused(chain_under(IDENTITY_RULES[rule](forge.identity())))


@pytest.mark.parametrize("key", [P384, samples.ed("node")], ids=["P-384", "Ed25519"])
def test_an_identity_has_a_p256_key(key: forge.Key) -> None:
    own = forge.identity(key)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    leaf = dataclasses.replace(forge.operational(), issuer=own.subject, names=own.names, signer=key, digest=digest)
    refused([leaf.der(), own.der()])


def test_a_chain_that_shares_an_operator_differs_by_node() -> None:
    assert verify_chain(NETWORK, OTHER).operator == verify_chain(NETWORK, NODE).operator
    assert verify_chain(NETWORK, OTHER).id != verify_chain(NETWORK, NODE).id


@pytest.mark.parametrize(
    "root",
    [
        b"",
        b"garbage",
        IDENTITY,
        NODE[0],
        dataclasses.replace(forge.root(), constraints=x509.BasicConstraints(True, None)).der(),
        dataclasses.replace(forge.root(), constraints=x509.BasicConstraints(True, 0)).der(),
        dataclasses.replace(forge.root(), signer=samples.p256("other")).der(),
        dataclasses.replace(forge.root(), key=P384, signer=P384).der(),
        dataclasses.replace(forge.root(), key=samples.ed("root"), signer=samples.ed("root"), digest=None).der(),
    ],
    ids=range(9),
)
def test_a_root_that_breaks_a_rule_is_refused(root: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        NetworkRoot(root)
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


def test_a_chain_of_another_network_is_refused() -> None:
    other = NetworkRoot(
        dataclasses.replace(forge.root(), key=samples.p256("other root"), signer=samples.p256("other root")).der()
    )
    for chain in (NODE, [samples.role_leaf(Role.GUEST)]):
        with pytest.raises(RemoteProtocolError):
            verify_chain(other, chain)


def test_good_chains_are_remembered_and_bad_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    root = NetworkRoot(NETWORK.der)
    first = verify_chain(root, NODE)
    assert verify_chain(root, [bytes(part) for part in NODE]) is first
    refused([NODE[0], OTHER[1]])
    monkeypatch.setattr(certificates, "CACHED_CHAINS_MAX", 2)
    client, guest = [samples.role_leaf(Role.CLIENT)], [samples.role_leaf(Role.GUEST)]
    verify_chain(root, client)
    assert verify_chain(root, NODE) is first  # now the most recently used
    verify_chain(root, guest)
    assert verify_chain(root, NODE) is first
    assert len(root._chains) == 2
    assert verify_chain(root, client).role is Role.CLIENT


def test_a_cut_between_certificates_is_part_of_what_is_remembered() -> None:
    assert verify_chain(NETWORK, NODE).role is Role.NODE
    refused([NODE[0] + NODE[1]])
    refused([b"", NODE[0] + NODE[1]])


def test_a_record_of_a_node_verifies() -> None:
    assert verify_record(NETWORK, samples.signed_record()) == samples.node_record()


@pytest.mark.parametrize(
    "changes",
    [{"node": bytes(32)}, {"operator": "Other"}, {"chain": OTHER}, {"chain": [samples.role_leaf(Role.CLIENT)]}],
    ids=["node", "operator", "chain of another", "chain of a client"],
)
def test_a_record_that_its_chain_does_not_bear_out_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_record(NETWORK, sign(samples.node_record(**changes), samples.ed("node leaf")))
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


def test_a_client_has_no_record() -> None:
    chain = [samples.role_leaf(Role.CLIENT)]
    record = samples.node_record(node=verify_chain(NETWORK, chain).id, operator="", chain=chain)
    with pytest.raises(RemoteProtocolError) as caught:
        verify_record(NETWORK, sign(record, samples.ed("client")))
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


def test_a_record_signed_by_another_key_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="signature"):
        verify_record(NETWORK, sign(samples.node_record(), samples.ed("other leaf")))
    with pytest.raises(RemoteProtocolError):
        verify_record(NETWORK, Signed(b"\x90", bytes(64)))


@given(st.lists(st.binary(max_size=64), max_size=3))
def test_garbage_is_refused(chain: list[bytes]) -> None:
    refused(chain)


@given(st.sampled_from([NODE, [samples.role_leaf(Role.CLIENT)], [samples.role_leaf(Role.GUEST)]]), st.data())
def test_a_damaged_chain_is_the_same_peer_or_refused(chain: list[bytes], data: st.DataObject) -> None:
    damaged = [bytearray(der) for der in chain]
    der = damaged[data.draw(st.integers(0, len(chain) - 1))]
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert verify_chain(NetworkRoot(NETWORK.der), [bytes(der) for der in damaged]) == verify_chain(NETWORK, chain)
    except RemoteProtocolError:
        refused([bytes(der) for der in damaged])
