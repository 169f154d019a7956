"""The vectors are what this version makes, and other implementations agree with them: msgpack, the definitions of RFC
9162 and of the erasure code, OpenSSL's Ed25519. Nothing here decodes with the code under test alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgpack
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from lockbox_node.core.erasure import code
from protocol.certificates import NetworkRoot, verify_chain
from protocol.codec import decode_envelope, decode_reply, decode_request
from protocol.documents import open_document
from protocol.errors import RemoteProtocolError
from protocol.framing import FrameDecoder
from protocol.merkle import check, drawn_leaves
from protocol.messages import TYPES, LeafProof, Message, Signed, SignedDocument
from protocol.possession_file import unsealed
from protocol.records import open_access
from tests.protocol.make_vectors import FOLDER, texts
from tests.protocol.samples import stretched
from tests.protocol.test_merkle import defined, leaves_of

TEXTS = texts()


def read(name: str) -> dict[str, Any]:
    """A vector file, its {"hex": ...} as bytes."""
    vectors = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"), object_hook=as_bytes)
    assert isinstance(vectors, dict)
    return vectors


def as_bytes(value: dict[str, str]) -> object:
    """Bytes of {"hex": ...}, all else as it is."""
    return bytes.fromhex(value["hex"]) if set(value) == {"hex"} else value


@pytest.mark.parametrize("name", TEXTS)
def test_the_files_are_what_this_version_makes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == TEXTS[name], "run python -m tests.protocol.make_vectors"


def test_no_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(TEXTS)


def test_streams_are_cut_as_the_vectors_say() -> None:
    vectors = read("framing")
    for stream in vectors["streams"]:
        decoder = FrameDecoder()
        assert [bytes(body) for chunk in stream["feed"] for body in decoder.feed(chunk)] == stream["bodies"]
    for header in vectors["refused_headers"]:
        with pytest.raises(RemoteProtocolError):
            FrameDecoder().feed(header)
    for header in vectors["accepted_headers"]:
        assert FrameDecoder().feed(header) == []


def test_the_independent_codec_makes_every_frame() -> None:
    for case in read("codec")["messages"]:
        body = msgpack.packb([case["kind"], case["call"], case["type"], case["fields"]])
        assert case["frame"] == len(body).to_bytes(4, "big") + body, case["name"]


def test_every_frame_decodes_to_its_message() -> None:
    seen = set()
    for case in read("codec")["messages"]:
        message = decoded(case["frame"][4:])
        assert type(message).__name__ == case["struct"]
        seen.add((case["kind"], case["type"]))
    assert {(kind, number) for kind in (0, 1) for number in TYPES} <= seen


def test_every_bad_body_is_refused() -> None:
    for case in read("codec")["refused"]:
        with pytest.raises(RemoteProtocolError):
            decoded(case["body"])


def decoded(body: bytes) -> Message:
    """A body as the envelope says."""
    envelope = decode_envelope(body)
    return decode_request(envelope) if envelope.kind == 0 else decode_reply(envelope, TYPES[envelope.type][0])


def test_trees_follow_the_definition() -> None:
    vectors = read("merkle")
    for tree in vectors["trees"]:
        shard, leaf_bytes = stretched(tree["shard_is_shake256_of"], tree["shard_bytes"]), tree["leaf_bytes"]
        leaves = leaves_of(shard, leaf_bytes)
        assert tree["shard_id"] == defined(leaves)
        for index, path in tree["paths"].items():
            assert check(tree["shard_id"], len(shard), leaf_bytes, LeafProof(int(index), leaves[int(index)], path))
    for draw in vectors["drawn"]:
        size, leaf_bytes = draw["shard_bytes"], draw["leaf_bytes"]
        assert drawn_leaves(vectors["nonce"], draw["group"], size, leaf_bytes) == draw["leaves"]


def test_another_library_signs_the_records_to_the_same_bytes() -> None:
    vectors = read("records")
    for case in vectors["records"]:
        assert msgpack.packb(case["fields"]) == case["body"]
        key = Ed25519PrivateKey.from_private_bytes(case["seed"])
        assert key.public_key().public_bytes_raw() == case["public_key"]
        assert key.sign(case["domain"] + case["body"]) == case["signature"]
        with pytest.raises(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(case["public_key"]).verify(case["signature"], case["body"])
        if case["record"] == "Descriptor":
            assert hashlib.sha256(case["body"]).digest() == case["descriptor_hash"]
    for case in vectors["refused"]:
        assert msgpack.unpackb(case["access"][0])[1] == 8
        with pytest.raises(RemoteProtocolError, match="another encoding"):
            open_access(Signed(*case["access"]))


def test_openssl_alone_verifies_the_documents() -> None:
    vectors = read("documents")
    root = x509.load_der_x509_certificate(vectors["root"])
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for case in vectors["documents"]:
        assert msgpack.packb(case["fields"]) == case["body"]
        assert hashlib.sha256(case["body"]).digest() == case["digest"]
        assert case["domain"] == b"lockbox/1 " + case["document"].lower().encode() + b"\0"
        r, s = (int.from_bytes(case["signature"][at : at + 32], "big") for at in (0, 32))
        key.verify(encode_dss_signature(r, s), case["domain"] + case["body"], ec.ECDSA(hashes.SHA256()))
        signed = SignedDocument(case["kind"], case["body"], case["signature"])
        assert type(open_document(signed, root)).__name__ == case["document"]
    for case in vectors["refused"]:
        with pytest.raises(RemoteProtocolError):
            open_document(SignedDocument(*case["document"]), root)


def test_held_digests_are_sums_of_plain_hashes() -> None:
    vectors = read("held")
    sums: dict[int, list[int]] = {}
    for slot in vectors["slots"]:
        hashed = hashlib.sha256(
            b"lockbox held" + slot["address"] + slot["version"].to_bytes(8, "big") + slot["descriptor_hash"]
        ).digest()
        assert hashed == slot["digest"]
        assert int(slot["address"].hex()[:3], 16) == slot["bucket"]
        sums.setdefault(slot["bucket"], []).append(int.from_bytes(hashed, "big"))
    assert [(one["bucket"], one["count"], one["digest"]) for one in vectors["buckets"]] == [
        (bucket, len(added), (sum(added) % 2**256).to_bytes(32, "big")) for bucket, added in sorted(sums.items())
    ]


def test_another_library_seals_the_certificate_to_the_same_bytes() -> None:
    vectors = read("possession")
    magic, body = b"lockbox possession certificate 1\n", msgpack.packb(vectors["fields"])
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"asset").digest())
    assert key.public_key().public_bytes_raw() == vectors["public_key"]
    seal = msgpack.packb([vectors["public_key"], hashlib.sha256(magic + body).digest()])
    signature = key.sign(b"lockbox/1 certificate seal\0" + seal)
    assert magic + msgpack.packb([body, [seal, signature]]) == vectors["file"]
    assert hashlib.sha256(vectors["file"]).digest() == vectors["digest"]
    for case in vectors["refused"]:
        with pytest.raises(RemoteProtocolError):
            unsealed(case["file"])


def test_ids_are_plain_hashes() -> None:
    ids = read("ids")
    node, client, network, address = (ids[name] for name in ("node_id", "client_id", "network_id", "address"))
    assert hashlib.sha256(b"lockbox node" + node["spki"] + node["salt"]).digest() == node["id"]
    assert hashlib.sha256(b"lockbox client" + client["spki"]).digest() == client["id"]
    assert hashlib.sha256(network["spki"]).digest() == network["id"]
    assert hashlib.sha256(address["public_key"]).digest() == address["id"]
    assert ids["node_uri"] == f"lockbox://{network['id'].hex()}/node/{node['id'].hex()}"
    xor = bytes(a ^ b for a, b in zip(ids["distance"]["a"], ids["distance"]["b"], strict=True))
    assert xor == ids["distance"]["xor"]


def test_chains_are_who_the_vectors_say() -> None:
    vectors = read("certificates")
    root = NetworkRoot(vectors["root"])
    assert root.network_id == vectors["network_id"]
    for case in vectors["accepted"]:
        peer = verify_chain(root, case["chain"])
        assert (peer.role, peer.id, peer.operator) == (case["role"], case["id"], case["operator"])
        assert peer.leaf_public_key == case["leaf_public_key"]
        assert (peer.not_before_unix_s, peer.not_after_unix_s) == (case["not_before_unix_s"], case["not_after_unix_s"])
    for case in vectors["refused"]:
        with pytest.raises(RemoteProtocolError):
            verify_chain(root, case["chain"])


def test_the_product_codes_groups_as_the_definition_does() -> None:
    for group in read("erasure")["groups"]:
        assert [bytes(shard) for shard in code(group["k"], group["n"]).encode(group["data"])] == group["shards"]
