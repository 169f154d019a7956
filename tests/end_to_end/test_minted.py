"""A node's identity that mints a client's leaf: TLS accepts the chain, Hello refuses it with its code."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from lockbox_node.adapters.identity import NetworkFile, pem_of
from protocol.certificates import Role, spki_of_ed25519, uri_of
from protocol.codec import decode_envelope, decode_reply, encode_call
from protocol.framing import FrameDecoder
from protocol.ids import client_id_of
from protocol.messages import Hello, Refusal

if TYPE_CHECKING:
    from benchmarks.local_network import LocalNetwork

WAIT_S = 10


def minted(network: LocalNetwork, home: Path) -> tuple[list[bytes], Path, Path]:
    """Chain (DER), certificate file and key file of a client leaf that n01's identity key signed."""
    identity = Path(network.nodes[0]["data"]) / "identity"
    issuer = x509.load_pem_x509_certificate((identity / "node.pem").read_bytes())
    issuer_key = serialization.load_pem_private_key((identity / "key.pem").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    root = NetworkFile.load(Path(network.summary["network"])).root
    key = ed25519.Ed25519PrivateKey.generate()
    uri = uri_of(root.network_id, Role.CLIENT, client_id_of(spki_of_ed25519(key.public_key().public_bytes_raw())))
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    chain = [certificate.public_bytes(serialization.Encoding.DER) for certificate in (leaf, issuer)]
    (home / "cert").write_bytes(b"".join(pem_of(der) for der in chain))
    (home / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, home / "cert", home / "key"


def test_a_client_leaf_minted_by_a_node_is_refused_as_no_member(network: LocalNetwork, tmp_path: Path) -> None:
    chain, certificate, key = minted(network, tmp_path)
    root = NetworkFile.load(Path(network.summary["network"])).root
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["lockbox/1"])
    context.load_cert_chain(certificate, key)
    host, port = network.nodes[1]["address"].split(":")
    hello = Hello(chain, [1], root.network_id, None, b"", int(time.time() * 1000))
    decoder = FrameDecoder()
    with (
        socket.create_connection((host, int(port)), timeout=WAIT_S) as plain,
        context.wrap_socket(plain) as stream,
    ):
        stream.sendall(encode_call(0, hello))
        bodies = decoder.feed(stream.recv(65536))
    answer = decode_reply(decode_envelope(bodies[0]), Hello)
    assert isinstance(answer, Refusal)
    assert answer.code == "NOT_A_MEMBER"
