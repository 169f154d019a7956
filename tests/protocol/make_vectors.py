"""Makes protocol/vectors/*.json: what a second implementation checks itself with.

Run `python -m tests.protocol.make_vectors` after a change on the wire; test_vectors.py compares the files with what
this makes and checks both with other implementations. Bytes are {"hex": ...}, so that text stays text.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509

from lockbox_node.isal import coefficient, product
from protocol import documents as network_documents
from protocol.certificates import Role, spki_of, spki_of_ed25519, uri_of, verify_chain
from protocol.codec import encode_call, encode_refusal, encode_reply
from protocol.framing import FRAME_BYTES_MAX, encode_frame
from protocol.held import bucket_of, held_digest, sum_bytes
from protocol.ids import address_of, client_id_of, distance, node_id_of
from protocol.issuing import build_operational_leaf, build_role_leaf
from protocol.merkle import drawn_leaves, prove, root
from protocol.messages import NUMBERS, Message, Signed, SignedDocument
from protocol.possession_file import sealed, unsealed
from protocol.records import DOMAINS, Descriptor, descriptor_hash, sign
from tests.protocol import possession_samples, samples

FOLDER = Path(__file__).parent.parent.parent / "protocol" / "vectors"
CALL_ID = 2**32 - 1


def plain(value: object) -> object:
    """A message as nested lists, bytes as {"hex": ...}."""
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def framing() -> object:
    """Chunks as they come from the stream, and the bodies that they complete."""
    bodies = [b"", b"\xc0", bytes(range(256))]
    stream = b"".join(encode_frame(body) for body in bodies)
    splits = {"at once": [len(stream)], "byte by byte": [1] * len(stream), "inside header and body": [2, 5, 100]}
    cases = []
    for name, sizes in splits.items():
        chunks, at = [], 0
        for size in [*sizes, len(stream)]:
            chunks.append(stream[at : at + size])
            at += size
        cases.append(
            {"name": name, "feed": [plain(chunk) for chunk in chunks if chunk], "bodies": [plain(b) for b in bodies]}
        )
    return {
        "frame_bytes_max": FRAME_BYTES_MAX,
        "streams": cases,
        "refused_headers": [plain((FRAME_BYTES_MAX + 1).to_bytes(4, "big")), plain(b"\xff\xff\xff\xff")],
        "accepted_headers": [plain(FRAME_BYTES_MAX.to_bytes(4, "big"))],
    }


def codec() -> object:
    """Every message in its frame, and bodies that must be refused."""
    cases = []
    for name, request in samples.requests().items():
        cases.append(_message(name, 0, NUMBERS[type(request)], request, encode_call(CALL_ID, request)))
    for name, (kind, reply) in samples.replies().items():
        number = NUMBERS[kind]
        cases.append(_message(name, 1, number, reply, encode_reply(CALL_ID, reply, number)))
    for name, refusal in samples.refusals().items():
        cases.append(_message(name, 2, 9, refusal, encode_refusal(CALL_ID, 9, refusal)))
    return {"messages": cases, "refused": [{"why": why, "body": plain(body)} for why, body in BAD_BODIES.items()]}


def _message(name: str, kind: int, number: int, message: Message, frame: bytes) -> dict[str, Any]:
    parts = {"name": name, "kind": kind, "call": CALL_ID, "type": number}
    return parts | {"struct": type(message).__name__, "fields": plain(message), "frame": plain(frame)}


BAD_BODIES = {
    "empty": b"",
    "not an array": b"\x01",
    "an envelope of three": b"\x93\x00\x01\x02",
    "an envelope of five": b"\x95\x00\x01\x02\x91\x05\xc0",
    "kind 3": b"\x94\x03\x01\x02\x91\x05",
    "a call id above u32": b"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\x02\x91\x05",
    "a number above u8": b"\x94\x00\x01\xcd\x01\x00\x91\x05",
    "a byte behind the envelope": b"\x94\x00\x01\x02\x91\x05\xc0",
    "ping without its field": b"\x94\x00\x01\x02\x90",
    "ping with two fields": b"\x94\x00\x01\x02\x92\x05\x05",
    "ping as a map": b"\x94\x00\x01\x02\x81\xa5nonce\x05",
    "a bool for an int": b"\x94\x00\x01\x02\x91\xc3",
    "a float for an int": b"\x94\x00\x01\x02\x91\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    "text for an int": b"\x94\x00\x01\x02\x91\xa15",
    "a negative int": b"\x94\x00\x01\x02\x91\xff",
    "an int of 2^63": b"\x94\x00\x01\x02\x91\xcf\x80\x00\x00\x00\x00\x00\x00\x00",
    "an id of 31 bytes": b"\x94\x00\x01\x06\x91\xc4\x1f" + bytes(31),
    "an id of 33 bytes": b"\x94\x00\x01\x06\x91\xc4\x21" + bytes(33),
    "an id as text": b"\x94\x00\x01\x06\x91\xd9\x20" + b"a" * 32,
    "find_node for 129": b"\x94\x00\x01\x05\x92\xc4\x20" + bytes(32) + b"\xcc\x81",
    "a list that claims 2^32 - 1 entries": b"\x94\x00\x01\x03\x92\xdd\xff\xff\xff\xff\xc4\x00",
    "a refusal that is not UTF-8": b"\x94\x02\x01\x02\x92\xa1\xff\xa1x",
    "nesting of 5000": b"\x94\x00\x01\x02" + b"\x91" * 5000 + b"\xc0",
}


def merkle() -> object:
    """Shards (SHAKE-256 of their name), ids, proofs of some leaves, leaves drawn by a nonce."""
    trees = []
    sizes = [(1, 4096), (4096, 4096), (4097, 4096), (20481, 4096), (65536, 4096), (65537, 16384), (262144, 16384)]
    for size, leaf_bytes in sizes:
        shard = samples.stretched(f"merkle {size}", size)
        last = -(-size // leaf_bytes) - 1
        paths = {str(index): plain(prove(shard, leaf_bytes, [index])[0].path) for index in sorted({0, last // 2, last})}
        trees.append(
            {
                "shard_is_shake256_of": f"merkle {size}",
                "shard_bytes": size,
                "leaf_bytes": leaf_bytes,
                "shard_id": plain(root(shard, leaf_bytes)),
                "paths": paths,
            }
        )
    nonce = samples.stretched("nonce", 16)
    draws = [
        {"group": group, "shard_bytes": size, "leaf_bytes": leaf, "leaves": drawn_leaves(nonce, group, size, leaf)}
        for group, size, leaf in [(0, 65536, 4096), (0, 262144, 16384), (1, 262144, 16384), (7, 200000, 16384)]
    ]
    return {"trees": trees, "nonce": plain(nonce), "drawn": draws}


def records() -> object:
    """Every signed record with the Ed25519 seed that signed it."""
    signers = {
        "NodeRecord": (samples.node_record(), samples.signed_record(), "node leaf"),
        "Descriptor": (samples.descriptor(), samples.signed_descriptor(), "asset"),
        "AccessClaim": (samples.access_claim(), samples.signed_claim(), "asset"),
        "GrantRequest": (samples.grant_request(), samples.signed_wish(), "asset"),
        "Grant": (samples.grant(), samples.signed_grant(), "node leaf"),
        "DrainReceipt": (samples.drain_receipt(), samples.signed_drain(), "node leaf"),
        "Renewal": (samples.renewal(), samples.signed_renewal(), "asset"),
        "Tombstone": (samples.tombstone(), samples.signed_tombstone(), "asset"),
        "Vantage": (samples.vantage(), samples.signed_vantage(), "node leaf"),
    }
    descriptor, chain = samples.signed_descriptor(), samples.node_chain()
    request, statement = possession_samples.audit_request(descriptor), possession_samples.statement(descriptor, chain)
    signers["AuditRequest"] = request, sign(request, samples.ed("asset")), "asset"
    signers["Statement"] = statement, sign(statement, samples.ed("node leaf")), "node leaf"
    cases = []
    for name, (record, signed, key) in signers.items():
        case = {"record": name, "domain": plain(DOMAINS[type(record)]), "seed": plain(samples.digest(key))}
        case |= {"public_key": plain(samples.raw(key)), "fields": plain(record)}
        case |= {"body": plain(signed.body), "signature": plain(signed.signature)}
        if isinstance(record, Descriptor):
            case["descriptor_hash"] = plain(descriptor_hash(signed))
        cases.append(case)
    body = samples.signed_claim().body
    long_form = body[:35] + b"\xcc" + body[35:]  # operation 8 as uint8 where a fixint would do
    bad = Signed(long_form, samples.ed("asset").sign(DOMAINS[type(samples.access_claim())] + long_form))
    return {"records": cases, "refused": [{"why": "an int not in its shortest form", "access": plain(bad)}]}


def documents() -> object:
    """Every kind of document, signed by the root; and some that must be refused."""
    cases = []
    for name, document in samples.documents().items():
        signed = samples.signed_document(name)
        kind = network_documents.Kind(signed.kind)
        case = {
            "document": type(document).__name__,
            "kind": int(kind),
            "domain": plain(network_documents.DOMAINS[kind]),
        }
        case |= {"fields": plain(document), "body": plain(signed.body), "signature": plain(signed.signature)}
        cases.append(case | {"digest": plain(samples.document_version(name).digest)})
    policy, revocations = samples.signed_document("policy"), samples.signed_document()
    refused = {
        "signed for another kind": SignedDocument(1, policy.body, policy.signature),
        "cut short": SignedDocument(1, revocations.body[:-1], revocations.signature),
        "signed by another key": network_documents.sign_document(samples.documents()["policy"], samples.p256("node")),
        "of an unknown kind": SignedDocument(9, policy.body, policy.signature),
    }
    bad = [{"why": why, "document": plain(signed)} for why, signed in refused.items()]
    return {"root": plain(samples.network().der), "documents": cases, "refused": bad}


def possession() -> object:
    """A certificate file, and files that must be refused."""
    file = possession_samples.certificate_file(samples.signed_descriptor(), samples.node_chain())
    certificate, public_key = unsealed(file)
    refused = {
        "a byte too many": file + b"\0",
        "cut short": file[:-1],
        "another first line": b"L" + file[1:],
        "sealed by another key": sealed(certificate, samples.raw("node leaf"), samples.ed("asset")),
    }
    return {
        "root": plain(samples.network().der),
        "public_key": plain(public_key),
        "file": plain(file),
        "digest": plain(hashlib.sha256(file).digest()),
        "fields": plain(certificate),
        "refused": [{"why": why, "file": plain(spoilt)} for why, spoilt in refused.items()],
    }


def held() -> object:
    """What slot identities add to the sums of their buckets, and the buckets that they make."""
    slots = [(samples.digest(f"address {number}"), number, samples.digest(f"hash {number}")) for number in range(3)]
    slots.append((slots[0][0], 2**63 - 1, samples.digest("hash 3")))  # the same bucket as the first
    buckets: dict[int, list[int]] = {}
    cases = []
    for address, version, descriptor in slots:
        added = held_digest(address, version, descriptor)
        buckets.setdefault(bucket_of(address), []).append(added)
        case = {"address": plain(address), "version": version, "descriptor_hash": plain(descriptor)}
        cases.append(case | {"bucket": bucket_of(address), "digest": plain(sum_bytes(added))})
    sums = [
        {"bucket": bucket, "count": len(added), "digest": plain(sum_bytes(sum(added)))}
        for bucket, added in sorted(buckets.items())
    ]
    return {"slots": cases, "buckets": sums}


def ids() -> object:
    """How each id comes about, and distances."""
    spki, salt = spki_of(x509.load_der_x509_certificate(samples.identity())), samples.digest("node salt")[:16]
    leaf = spki_of_ed25519(samples.raw("client"))
    a, b = samples.digest("a"), samples.digest("b")
    node = node_id_of(spki, salt)
    return {
        "node_id": {"spki": plain(spki), "salt": plain(salt), "id": plain(node)},
        "client_id": {"spki": plain(leaf), "id": plain(client_id_of(leaf))},
        "network_id": {
            "spki": plain(spki_of(samples.network().certificate)),
            "id": plain(samples.network().network_id),
        },
        "address": {"public_key": plain(samples.raw("asset")), "id": plain(address_of(samples.raw("asset")))},
        "node_uri": uri_of(samples.network().network_id, Role.NODE, node),
        "distance": {"a": plain(a), "b": plain(b), "xor": plain(distance(a, b).to_bytes(32, "big"))},
    }


def certificates() -> object:
    """Chains of one network: who they are, or that they are refused."""
    network = samples.network()
    chains = {"node": samples.node_chain()}
    chains |= {str(role): [samples.role_leaf(role)] for role in (Role.CLIENT, Role.OPERATOR, Role.GUEST)}
    accepted = []
    for name, chain in chains.items():
        peer = verify_chain(network, chain)
        says = {"role": str(peer.role), "id": plain(peer.id), "operator": peer.operator}
        says |= {"leaf_public_key": plain(peer.leaf_public_key), "not_before_unix_s": int(peer.not_before_unix_s)}
        accepted.append({"name": name, "chain": plain(chain)} | says | {"not_after_unix_s": int(peer.not_after_unix_s)})
    node, other = samples.node_chain(), samples.node_chain("other")
    foreign = build_role_leaf(network, samples.p256("other root"), Role.CLIENT, samples.raw("client"), samples.TERMS)
    forged = build_operational_leaf(samples.identity("other"), samples.p256("node"), samples.raw("x"), samples.TERMS)
    refused = {
        "a leaf without its identity": node[:1],
        "an identity as a leaf": node[1:],
        "the identity of another node": [node[0], other[1]],
        "identity first": node[::-1],
        "the root in the chain": [*node, network.der],
        "a client with an identity behind it": [samples.role_leaf(Role.CLIENT), node[1]],
        "a client signed by another key": [foreign],
        "a leaf that another identity's key signed": [forged, other[1]],
    }
    bad = [{"why": why, "chain": plain(chain)} for why, chain in refused.items()]
    return {"root": plain(network.der), "network_id": plain(network.network_id), "accepted": accepted, "refused": bad}


def erasure() -> object:
    """Small groups and their shards, from the definition of the code alone."""
    cases = []
    for k, n, size in [(3, 5, 16), (5, 10, 7), (8, 20, 1)]:
        data = samples.stretched(f"erasure {k} {n}", k * size)
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        for row in range(k, n):
            factors = [coefficient(row, column) for column in range(k)]
            shard = bytes(size)
            for factor, part in zip(factors, parts[:k], strict=True):
                shard = bytes(total ^ product(factor, value) for total, value in zip(shard, part, strict=True))
            parts.append(shard)
        cases.append({"k": k, "n": n, "data": plain(data), "shards": [plain(part) for part in parts]})
    return {"code": 1, "groups": cases}


def texts() -> dict[str, str]:
    """File name -> its whole text."""
    makers = (framing, codec, merkle, records, documents, possession, held, ids, certificates, erasure)
    return {f"{maker.__name__}.json": json.dumps(maker(), indent=1, ensure_ascii=False) + "\n" for maker in makers}


def main() -> None:
    """Write the files."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(name, len(text), hashlib.sha256(text.encode()).hexdigest()[:16])


if __name__ == "__main__":
    main()
