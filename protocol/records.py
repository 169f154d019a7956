"""What is signed: node records, descriptors, renewals, access claims, tombstones, grants, possession.

The raw bytes are signed, with a domain in front; a body that does not re-encode to the same bytes is refused, so
each statement has one encoding only. Layouts: SPEC.md, Signed records.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Protocol, TypeVar

import msgspec
import nacl.bindings
import nacl.exceptions
from msgspec import Meta

from protocol.drains import DrainReceipt
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.grants import Grant, GrantRequest
from protocol.ids import Address, DescriptorHash, NodeId, ShardId, address_of
from protocol.messages import (
    GROUPS_MAX,
    SHARD_BYTES_MAX,
    SHARDS_MAX,
    SIBLINGS_MAX,
    SLOTS_MAX,
    U8,
    U32,
    U63,
    UNDECODABLE,
    Chain,
    Id32,
    LongText,
    Message,
    Nonce16,
    ShortText,
    Signed,
)
from protocol.possession import AuditRequest, Seal, Statement
from protocol.vantage import Vantage

T = TypeVar("T", bound=Message)

CODE_CAUCHY = 1  # systematic Cauchy Reed-Solomon over GF(2^8), polynomial 0x11d (SPEC.md, Erasure)
HASH_SHA256 = 1
LEAF_SMALL_BYTES = 4 * 1024  # of shards up to SMALL_SHARD_BYTES
LEAF_LARGE_BYTES = 16 * 1024
SMALL_SHARD_BYTES = 64 * 1024


class NodeRecord(Message, frozen=True):
    """What a node says of itself. The higher sequence wins; it is the node's incarnation too.

    Of two processes that speak as one node the lower (epoch, instance) stops: SPEC.md, Clones.
    Signed by the operational key of `chain` (leaf first, then the identity certificate).
    """

    node: Id32
    sequence: U63  # unix ms at signing, strictly rising
    expires_unix_s: U63
    addresses: Annotated[list[ShortText], Meta(min_length=1, max_length=4)]  # "host:port"
    region: ShortText
    operator: ShortText
    capacity_class: U8  # log2 of GiB of capacity
    free_class: U8  # tenths free, 0 = full
    versions: Annotated[list[U8], Meta(min_length=1, max_length=16)]
    software: Id32
    state: Annotated[int, Meta(ge=0, le=3)]  # 0 joining, 1 active, 2 draining, 3 leaving
    location_level: Annotated[int, Meta(ge=0, le=2)]  # 0 claimed, 1 measured, 2 attested
    epoch: U63  # rises at every start and restore of the node's store
    instance: Nonce16  # drawn anew by every process that speaks as this node
    chain: Chain


class Group(Message, frozen=True):
    """The shard ids of one group, by index; n of them."""

    shard_ids: Annotated[list[Id32], Meta(min_length=1, max_length=SHARDS_MAX)]


class Descriptor(Message, frozen=True):
    """What the owner signs once per stripe. Its hash (over the body) is part of the slot identity."""

    public_key: Id32  # raw Ed25519; SHA-256 of it is the address
    version: U63
    tier: Annotated[int, Meta(ge=0, le=3)]  # 0 basic, 1 standard, 2 premium, 3 elite
    code: U8
    k: Annotated[int, Meta(ge=1, le=SHARDS_MAX)]
    n: Annotated[int, Meta(ge=1, le=SHARDS_MAX)]
    hash: U8
    leaf_bytes: U32
    shard_bytes: Annotated[int, Meta(ge=0, le=SHARD_BYTES_MAX)]  # of every shard of every group; 0 without groups
    groups: Annotated[list[Group], Meta(max_length=GROUPS_MAX)]
    slot_hashes: Annotated[list[Id32], Meta(min_length=1, max_length=SLOTS_MAX)]  # SHA-256, in order
    created_unix_s: U63
    lease_until_unix_s: U63
    replaces: Annotated[list[Id32], Meta(max_length=SIBLINGS_MAX)]  # descriptor hashes of what this version updates


class Renewal(Message, frozen=True):
    """One slot identity is to be kept until `lease_until_unix_s`. Signed by the asset key; never shortens a lease."""

    public_key: Id32
    version: U63
    descriptor_hash: Id32
    lease_until_unix_s: U63
    time_unix_s: U63


class AccessClaim(Message, frozen=True):
    """Leave to read, signed by the asset key: for one requester, one operation, one moment."""

    public_key: Id32
    operation: U8  # the number of the request type on the wire
    requester: Id32  # node or client id of the TLS peer that asks
    nonce: Nonce16
    time_unix_s: U63


class Tombstone(Message, frozen=True):
    """Everything at the address up to `version` is deleted and stays deleted. Signed by the asset key."""

    public_key: Id32
    version: U63
    time_unix_s: U63
    lease_until_unix_s: U63  # the longest that the owner ever signed at this address: how long it can come back
    reason: LongText = ""


DOMAINS: dict[type[Message], bytes] = {
    NodeRecord: b"lockbox/1 node record\0",
    Descriptor: b"lockbox/1 descriptor\0",
    Renewal: b"lockbox/1 renewal\0",
    AccessClaim: b"lockbox/1 access\0",
    Tombstone: b"lockbox/1 tombstone\0",
    Vantage: b"lockbox/1 vantage\0",
    GrantRequest: b"lockbox/1 grant request\0",
    Grant: b"lockbox/1 grant\0",
    AuditRequest: b"lockbox/1 audit request\0",
    Statement: b"lockbox/1 possession\0",
    Seal: b"lockbox/1 certificate seal\0",
    DrainReceipt: b"lockbox/1 drain receipt\0",
}


class Signer(Protocol):
    """Signs with Ed25519: `cryptography`'s private key or PyNaCl's through a thin wrapper."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte signature of `data`."""
        ...


_encoder = msgspec.msgpack.Encoder()


def sign(record: Message, key: Signer) -> Signed:
    """Encode `record` and sign its domain and bytes with `key`. LocalProtocolError when limits are broken."""
    domain = DOMAINS[type(record)]
    try:
        body = _encoder.encode(record)
        msgspec.msgpack.decode(body, type=type(record))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"cannot sign this {type(record).__name__}: {error}") from None
    return Signed(body, key.sign(domain + body))


def parse(signed: Signed, kind: type[T]) -> T:
    """Decode the body strictly and demand that it re-encodes to the same bytes; no signature is checked."""
    try:
        record = msgspec.msgpack.decode(signed.body, type=kind)
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"a {kind.__name__} that does not decode: {error}") from None
    if _encoder.encode(record) != signed.body:
        raise RemoteProtocolError(f"a {kind.__name__} in another encoding than ours")
    return record


def check_signature(signed: Signed, kind: type[Message], public_key: bytes) -> None:
    """RemoteProtocolError unless the signature is `public_key`'s (raw Ed25519, 32 bytes) over domain and body."""
    try:
        nacl.bindings.crypto_sign_open(signed.signature + DOMAINS[kind] + signed.body, public_key)
    except nacl.exceptions.CryptoError:
        raise RemoteProtocolError(f"the signature of this {kind.__name__} does not verify") from None


def open_descriptor(signed: Signed) -> Descriptor:
    """Parse, check signature and inner consistency of a descriptor; RemoteProtocolError otherwise."""
    descriptor = parse(signed, Descriptor)
    if descriptor.k >= descriptor.n or any(len(group.shard_ids) != descriptor.n for group in descriptor.groups):
        raise RemoteProtocolError("a descriptor whose groups do not have n shards each, or without parity")
    if descriptor.code != CODE_CAUCHY or descriptor.hash != HASH_SHA256:
        raise RemoteProtocolError("a descriptor with a code or hash that is not known here")
    if bool(descriptor.groups) != (descriptor.shard_bytes > 0) or descriptor.leaf_bytes != leaf_bytes(
        descriptor.shard_bytes
    ):
        raise RemoteProtocolError("a descriptor whose shard and leaf sizes do not fit")
    check_signature(signed, Descriptor, descriptor.public_key)
    return descriptor


def open_access(signed: Signed) -> AccessClaim:
    """Parse and check an access claim; freshness and requester are the caller's to judge."""
    claim = parse(signed, AccessClaim)
    check_signature(signed, AccessClaim, claim.public_key)
    return claim


def open_grant_request(signed: Signed) -> GrantRequest:
    """Parse and check a grant request; freshness, requester and operation are the caller's to judge."""
    request = parse(signed, GrantRequest)
    check_signature(signed, GrantRequest, request.public_key)
    return request


def open_audit_request(signed: Signed) -> AuditRequest:
    """Parse and check a request for statements; freshness, requester and what it names are the caller's to judge."""
    request = parse(signed, AuditRequest)
    check_signature(signed, AuditRequest, request.public_key)
    return request


def open_renewal(signed: Signed) -> Renewal:
    """Parse and check a renewal; whether its slot is held and its lease allowed is the caller's to judge."""
    renewal = parse(signed, Renewal)
    check_signature(signed, Renewal, renewal.public_key)
    return renewal


def open_tombstone(signed: Signed) -> Tombstone:
    """Parse and check a tombstone."""
    tombstone = parse(signed, Tombstone)
    check_signature(signed, Tombstone, tombstone.public_key)
    return tombstone


def leaf_bytes(shard_bytes: int) -> int:
    """Leaf size of the Merkle tree over a shard of `shard_bytes`."""
    return LEAF_SMALL_BYTES if shard_bytes <= SMALL_SHARD_BYTES else LEAF_LARGE_BYTES


def descriptor_hash(signed: Signed) -> DescriptorHash:
    """SHA-256 of the descriptor's raw body: names a slot together with address and version."""
    return DescriptorHash(hashlib.sha256(signed.body).digest())


def address_of_descriptor(descriptor: Descriptor) -> Address:
    """Where the stripe stands."""
    return address_of(descriptor.public_key)


def shard_ids_at(descriptor: Descriptor, index: int) -> list[ShardId]:
    """The shard id of `index` in every group."""
    return [ShardId(group.shard_ids[index]) for group in descriptor.groups]


def node_of(record: NodeRecord) -> NodeId:
    """The id that the record claims; it holds only after its chain was verified."""
    return NodeId(record.node)
