"""Ids: 32 bytes each, one newtype per meaning, and the XOR metric between them.

Node ids, addresses and client ids share one 256-bit space; distance is XOR read as a big-endian number (Maymounkov and
Mazieres, Kademlia, 2002, section 2). How each id comes about: SPEC.md, Ids.
"""

from __future__ import annotations

import hashlib
from typing import NewType

from protocol.errors import RemoteProtocolError

ID_BYTES = 32
SALT_BYTES = 16

NodeId = NewType("NodeId", bytes)
ClientId = NewType("ClientId", bytes)
NetworkId = NewType("NetworkId", bytes)
Address = NewType("Address", bytes)
ShardId = NewType("ShardId", bytes)
DescriptorHash = NewType("DescriptorHash", bytes)


def checked(raw: bytes) -> bytes:
    """`raw` itself when it has the length of an id; RemoteProtocolError otherwise."""
    if len(raw) != ID_BYTES:
        raise RemoteProtocolError(f"an id has {ID_BYTES} bytes, this one has {len(raw)}")
    return raw


def node_id_of(spki: bytes, salt: bytes) -> NodeId:
    """SHA-256("lockbox node" || SPKI DER || salt): the salt is the authority's, so an id cannot be ground."""
    assert len(salt) == SALT_BYTES
    return NodeId(hashlib.sha256(b"lockbox node" + spki + salt).digest())


def client_id_of(spki: bytes) -> ClientId:
    """SHA-256("lockbox client" || SPKI DER)."""
    return ClientId(hashlib.sha256(b"lockbox client" + spki).digest())


def network_id_of(spki: bytes) -> NetworkId:
    """SHA-256 of the root certificate's SPKI DER."""
    return NetworkId(hashlib.sha256(spki).digest())


def address_of(public_key: bytes) -> Address:
    """SHA-256 of an asset's raw Ed25519 public key (32 bytes)."""
    assert len(public_key) == ID_BYTES
    return Address(hashlib.sha256(public_key).digest())


def distance(a: bytes, b: bytes) -> int:
    """The XOR distance of two ids, 0 to 2^256 - 1."""
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


def bucket_index(own: bytes, other: bytes) -> int:
    """The bit length of the distance: 1 to 256, and 0 for the id itself."""
    return distance(own, other).bit_length()
