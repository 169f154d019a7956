"""Leave to fetch shards: what an asset key asks of verifiers, and what one of them signs.

The asset key signs one GrantRequest; verifiers answer it with a Grant each, and it travels with those grants to the
holders, who judge all of them again. Nothing here names more than an address: no label, no content, no real or decoy.
How they are judged: SPEC.md, Grants.
"""

from __future__ import annotations

from protocol.messages import U8, U63, Chain, Id32, Message


class GrantRequest(Message, frozen=True):
    """The asset key wants `requester` to do one operation now, once. Signed by the asset key."""

    public_key: Id32  # its SHA-256 is the address
    operation: U8  # the number of the request type on the wire that this is for
    requester: Id32  # client id of the TLS peer that asks
    nonce: Id32
    time_unix_s: U63


class Grant(Message, frozen=True):
    """One verifier has checked that request. Signed by the operational key of `chain` (leaf, then identity)."""

    address: Id32
    requester: Id32
    operation: U8
    nonce: Id32
    expires_unix_s: U63
    chain: Chain
