"""One digest of what all nodes should agree on, so that whether they do is one comparison.

It covers who is alive, in which life, and what each says of itself; and which network documents are in force. Equal on
every node of a settled network, it is another one after any join, death, restart or document. What changes by itself is
left out (sequence, expiry, free room, certificates), and so is what is believed of the dead. It says nothing of the
stored parts: each node holds others, which siblings compare in pairs (services.reconciling).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol.messages import DocumentVersion
    from protocol.records import NodeRecord

_DOMAIN = b"lockbox state 1"


def state_root(alive: Iterable[NodeRecord], documents: Iterable[DocumentVersion]) -> bytes:
    """SHA-256 over both, each in its order: ours must be among the records."""
    members = [
        (
            record.node, record.epoch, record.instance, record.state, record.addresses, record.region,
            record.operator, record.capacity_class, record.software,
        )
        for record in sorted(alive, key=lambda record: record.node)
    ]  # fmt: skip
    papers = [(one.kind, one.version, one.digest) for one in sorted(documents, key=lambda one: one.kind)]
    return hashlib.sha256(_DOMAIN + msgspec.msgpack.encode((members, papers))).digest()
