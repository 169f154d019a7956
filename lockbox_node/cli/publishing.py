"""Hands the authority's documents to a node, which tells the others.

The authority comes as an operator: its root key makes a leaf for this once, which is never written down. A node that
has newer documents gives them first, so that an old copy of the authority is found out before anything is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.asymmetric import ed25519

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.identity import ClientIdentity, Credential, drawn_serial
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.client.greeting import Greeter
from lockbox_node.errors import PeerUnreachable
from lockbox_node.rpc.pool import Pool
from protocol.certificates import Role
from protocol.issuing import Terms, build_role_leaf
from protocol.messages import Documents, GetDocuments, SignedDocument, TellDocuments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from protocol.certificates import NetworkRoot

TIMEOUT_S = 10.0
LEAF_LIFE_S = 3600


async def hand_over(
    root: NetworkRoot, key: ec.EllipticCurvePrivateKey, host: str, port: int, documents: Sequence[SignedDocument]
) -> None:
    """Give a node the documents. PeerUnreachable, RequestRefused (STALE when it has newer ones)."""
    await _with_node(root, key, host, port, documents)


async def fetch(root: NetworkRoot, key: ec.EllipticCurvePrivateKey, host: str, port: int) -> list[SignedDocument]:
    """All documents that a node has, unverified. PeerUnreachable, RequestRefused."""
    return await _with_node(root, key, host, port, [])


async def _with_node(
    root: NetworkRoot, key: ec.EllipticCurvePrivateKey, host: str, port: int, documents: Sequence[SignedDocument]
) -> list[SignedDocument]:
    clock = SystemClock()
    identity = _operator(root, key, int(clock.now_unix_s()))
    pool = Pool(TcpNetwork(identity), Greeter(identity, clock))
    found: list[SignedDocument] = []
    with trio.move_on_after(TIMEOUT_S) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            connection = await pool.connect_address(host, port)
            if documents:
                await connection.request(TellDocuments(list(documents)))
            else:
                reply = await connection.request(GetDocuments([]))
                assert isinstance(reply, Documents), "the codec checked the type of the reply"
                found = reply.documents
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise PeerUnreachable(f"{host}:{port} did not answer within {TIMEOUT_S:.0f} s", "is it running?")
    return found


def _operator(root: NetworkRoot, key: ec.EllipticCurvePrivateKey, now_unix_s: int) -> ClientIdentity:
    private = ed25519.Ed25519PrivateKey.generate()
    terms = Terms(drawn_serial(OsEntropy()), now_unix_s - LEAF_LIFE_S, now_unix_s + LEAF_LIFE_S)
    leaf = build_role_leaf(root, key, Role.OPERATOR, private.public_key().public_bytes_raw(), terms)
    return ClientIdentity(root, Credential(root, [leaf], private))
