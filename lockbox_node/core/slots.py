"""What may stand at an address: the ruling on a put, and the merge of holder tables.

A slot identity is (address, version, descriptor hash). Two descriptors of one version are siblings: both stay. Older
versions never win, what was deleted stays deleted, and a holder keeps one shard index per identity. A refusal names
what proves it. Merging is commutative, associative and idempotent. Source: DESIGN, Addresses and neighbourhoods.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import QuotaExceeded, RequestRefused, ShardCorrupt, StoreFull
from protocol.errors import ErrorCode
from protocol.messages import ENTRIES_MAX, SIBLINGS_MAX, HolderEntry, Signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from protocol.records import Tombstone


TOMBSTONE_MARGIN_S = 14 * 86_400  # beyond the longest lease: 7 days of trash, 7 days for clocks and late comers


@dataclass(frozen=True, slots=True)
class Standing:
    """One part that stands at the address."""

    version: int
    descriptor_hash: bytes
    index: int
    corrupt: bool


class Verdict(Enum):
    """What becomes of a put."""

    NEW = "stored beside what stands, or instead of what it replaces"
    MEND = "a corrupt part of the same identity is replaced in place"
    HELD = "the same part stands already"
    BURIED = "a tombstone covers the version"
    STALE = "a higher version stands"
    OTHER_INDEX = "another shard of the same identity stands here"
    CROWDED = "as many slot identities stand at the address as may"


_REFUSED = {
    Verdict.BURIED: (ErrorCode.STALE, "what stood here was deleted", "take a higher version"),
    Verdict.STALE: (ErrorCode.STALE, "a higher version stands here", "update from that version"),
    Verdict.OTHER_INDEX: (ErrorCode.CONFLICT, "another shard of this stripe stands here", "take another holder"),
    Verdict.CROWDED: (ErrorCode.CONFLICT, f"{SIBLINGS_MAX} slots stand here already", "replace or delete them"),
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """`removes` = descriptor hashes that go in the same transaction; `proof` = hash of the slot behind a refusal."""

    verdict: Verdict
    removes: tuple[bytes, ...] = ()
    proof: bytes | None = None

    @property
    def writes(self) -> bool:
        """Whether the part is to be written."""
        return self.verdict in (Verdict.NEW, Verdict.MEND)


def judge_put(
    standing: Sequence[Standing],
    tombstone_version: int | None,
    version: int,
    descriptor_hash: bytes,
    index: int,
    replaces: Iterable[bytes],
) -> Ruling:
    """Rule on a put of (version, descriptor hash, index) at an address where `standing` and a tombstone stand.

    Only lower versions that `replaces` names are removed; a descriptor cannot replace a higher version.
    """
    if tombstone_version is not None and version <= tombstone_version:
        return Ruling(Verdict.BURIED)
    for part in standing:
        if part.descriptor_hash == descriptor_hash:
            if part.corrupt:
                return Ruling(Verdict.MEND, (descriptor_hash,))
            if part.index == index:
                return Ruling(Verdict.HELD)
            return Ruling(Verdict.OTHER_INDEX, proof=descriptor_hash)
    highest = max(standing, key=lambda part: (part.version, part.descriptor_hash), default=None)
    if highest is not None and highest.version > version:
        return Ruling(Verdict.STALE, proof=highest.descriptor_hash)
    named = frozenset(replaces)
    removes = tuple(
        part.descriptor_hash for part in standing if part.version < version and part.descriptor_hash in named
    )
    if highest is not None and len(standing) - len(removes) >= SIBLINGS_MAX:
        return Ruling(Verdict.CROWDED, proof=highest.descriptor_hash)
    return Ruling(Verdict.NEW, removes)


def tombstone_until(tombstone: Tombstone, now_unix_s: float) -> int:
    """How long a tombstone stays: beyond the longest lease that its owner signed, within what any tier allows."""
    longest = now_unix_s + max(tier.lease_max_s for tier in TIERS)
    return int(min(max(tombstone.lease_until_unix_s, now_unix_s), longest)) + TOMBSTONE_MARGIN_S


def refusal_of(ruling: Ruling, proof: Signed | None) -> RequestRefused:
    """The refusal that a ruling which stores nothing becomes; `proof` is the signed slot or tombstone behind it."""
    code, message, hint = _REFUSED[ruling.verdict]
    refusal = RequestRefused(message, hint, code)
    refusal.proof = proof
    return refusal


def store_full() -> StoreFull:
    """The answer when there is no room."""
    return StoreFull("this store has no room; nothing was written", "take another node, or give this one more disk")


def quota_exceeded(quota_bytes: int) -> QuotaExceeded:
    """The answer to an owner who keeps here what it may."""
    return QuotaExceeded(
        f"you may keep {quota_bytes:,} bytes at this node; nothing was written",
        "delete something, or take another node",
    )


def corrupt_part() -> ShardCorrupt:
    """The answer for a part that was found damaged."""
    return ShardCorrupt("this part was found damaged and is in quarantine", "ask the other holders")


def merge_entries(*tables: Iterable[HolderEntry]) -> tuple[HolderEntry, ...]:
    """One table of several, sorted by (index, node): the higher sequence wins per (index, node).

    At most ENTRIES_MAX lines stay, those of earlier tables first: what is told later, with whatever sequence, never
    drives out what stands. Give the table that stands first.
    """
    newest: dict[tuple[int, bytes], HolderEntry] = {}
    if len(tables) == 1 and (only := tuple(tables[0])) and _is_merged(only):
        return only
    for table in tables:
        for entry in table:
            key = (entry.index, entry.node)
            known = newest.get(key)
            if known is None or known.sequence < entry.sequence:
                newest[key] = entry
    return tuple(sorted(list(newest.values())[:ENTRIES_MAX], key=_place))


def _is_merged(entries: Sequence[HolderEntry]) -> bool:
    """Whether the lines are in order, each place once, and not too many: as nearly all tables come."""
    places = list(map(_place, entries))
    return len(entries) <= ENTRIES_MAX and all(map(operator.lt, places, places[1:]))


def _place(entry: HolderEntry) -> tuple[int, bytes]:
    return (entry.index, entry.node)
