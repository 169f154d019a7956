"""What a holder must show before it is believed that our address is in use: signed by the same key, and about it.

Only we hold the key of our addresses; what stands there under another descriptor was put by another machine with the
same words. A claim without such a proof is a failed holder and nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Signed
from protocol.records import descriptor_hash, open_descriptor, open_tombstone

if TYPE_CHECKING:
    from lockbox_node.client.stripes import Stripe
    from lockbox_node.errors import RequestRefused


def sibling_of(stripe: Stripe, other: Signed) -> bool:
    """Whether `other` is another descriptor of the same address and version."""
    if descriptor_hash(other) == stripe.descriptor_hash:
        return False
    try:
        descriptor = open_descriptor(other)
    except RemoteProtocolError:
        return False
    return descriptor.public_key == stripe.key.public_key and descriptor.version == stripe.version


def taken_by(stripe: Stripe, refusal: RequestRefused) -> bool:
    """Whether a refusal proves that a tombstone or a descriptor of this version or a higher one stands here."""
    proof = refusal.proof
    if refusal.code not in (ErrorCode.STALE, ErrorCode.CONFLICT) or not isinstance(proof, Signed):
        return False
    for opened in (open_descriptor, open_tombstone):
        try:
            record = opened(proof)
        except RemoteProtocolError:
            continue
        return (
            record.public_key == stripe.key.public_key
            and record.version >= stripe.version
            and descriptor_hash(proof) != stripe.descriptor_hash
        )
    return False
