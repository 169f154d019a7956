"""Whether a stripe that misses shards can be completed by the rules: the one question of invariants and of scenarios.

What is missing counts as harm only where the network could do something about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.placement import Candidate, place
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.tiers import Tier


class Place(Protocol):
    """What may keep a shard: a host, or what was seen of one."""

    @property
    def id(self) -> bytes:
        """Its node id."""
        ...

    @property
    def region(self) -> str:
        """Where it stands."""
        ...

    @property
    def operator(self) -> str:
        """Who runs it."""
        ...


def can_heal(
    tier: Tier,
    address: bytes,
    live: Mapping[int, Place],
    kept: Iterable[tuple[int, Place]],
    free: Iterable[Place],
    regions: RegionTable = BUILT_IN,
) -> bool:
    """Whether nodes of `free` can complete the set of those of `live`, which serve a shard each.

    `kept` = (index, node) of every part on any disk: what a node keeps that cannot serve it counts in its region, since
    it may come back.
    """
    serving = {node.id for node in live.values()}
    taken = {index: _candidate(node) for index, node in live.items()}
    besides = [(index, _candidate(node)) for index, node in kept if node.id not in serving]
    try:
        place(tier, address, [_candidate(node) for node in free], taken, besides, regions)
    except LockboxError:
        return False
    return True


def _candidate(node: Place) -> Candidate:
    return Candidate(node.id, node.region, node.operator)
