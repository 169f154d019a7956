"""What an audit of possession finds: whether a holder showed the leaves that a fresh nonce drew, and how soon it must.

Four outcomes, told apart everywhere: held; missing, it says that it has no such part; corrupt, what it shows is not
what the owner signed, or it says so itself; silent, it said nothing in time. A shard of at most 64 KiB is shown whole,
of a larger one the leaves that the nonce draws, each with its Merkle path. Source: DESIGN, Verify / audit; SPEC.md,
Merkle.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from lockbox_node.errors import LockboxError
from protocol import merkle
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from protocol.messages import Proof
    from protocol.records import Descriptor

NONCE_BYTES = 16
DEADLINE_S = 1.0  # of any challenge, beside what the way and the size take
ROUND_TRIPS = 4.0  # a warm connection takes one; the rest is for queues on the way
BYTES_PER_S = 2**20  # of the slowest link that a holder may have


class Verdict(StrEnum):
    """What one holder showed."""

    HELD = "held"
    MISSING = "missing"
    CORRUPT = "corrupt"
    SILENT = "silent"


_SAID = {  # by a refusal; any other one shows nothing
    ErrorCode.NOT_FOUND: Verdict.MISSING,
    ErrorCode.SHARD_UNAVAILABLE: Verdict.MISSING,
    ErrorCode.SHARD_CORRUPT: Verdict.CORRUPT,
    ErrorCode.PROOF_INVALID: Verdict.CORRUPT,
}


def judged(descriptor: Descriptor, index: int, nonce: bytes, outcome: Proof | LockboxError) -> Verdict:
    """What the answer of the holder of `index` to a challenge with `nonce` means."""
    if isinstance(outcome, LockboxError):
        return _SAID.get(outcome.code, Verdict.SILENT)
    if outcome.index != index:
        return Verdict.MISSING
    return Verdict.HELD if shows(descriptor, nonce, outcome) else Verdict.CORRUPT


def shows(descriptor: Descriptor, nonce: bytes, proof: Proof) -> bool:
    """Whether a proof has every leaf that the nonce draws, of every group, on its path to the signed id."""
    size, leaf_bytes = descriptor.shard_bytes, descriptor.leaf_bytes
    if len(proof.groups) != len(descriptor.groups) or proof.index >= descriptor.n:
        return False
    for number, (group, leaves) in enumerate(zip(descriptor.groups, proof.groups, strict=True)):
        if [leaf.leaf_index for leaf in leaves] != merkle.drawn_leaves(nonce, number, size, leaf_bytes):
            return False
        shard_id = group.shard_ids[proof.index]
        if not all(merkle.check(shard_id, size, leaf_bytes, leaf) for leaf in leaves):
            return False
    return True


def proof_bytes(descriptor: Descriptor) -> int:
    """How many bytes of leaves a proof shows, of all groups; paths and framing are not counted."""
    size = descriptor.shard_bytes
    shown = size if size <= merkle.WHOLE_SHARD_BYTES else min(size, merkle.LEAVES_DRAWN * descriptor.leaf_bytes)
    return shown * len(descriptor.groups)


def proof_leaves(descriptor: Descriptor) -> int:
    """How many leaves a proof shows, of all groups."""
    size, leaf_bytes = descriptor.shard_bytes, descriptor.leaf_bytes
    return len(merkle.drawn_leaves(bytes(NONCE_BYTES), 0, size, leaf_bytes)) * len(descriptor.groups)


def deadline_s(descriptor: Descriptor, round_trip_s: float) -> float:
    """How long a holder at that round trip has, from the challenge to its answer."""
    return DEADLINE_S + ROUND_TRIPS * round_trip_s + proof_bytes(descriptor) / BYTES_PER_S
