"""What the invariants look at: one virtual second of a network, as plain values that say nothing about how they came.

The cluster fills it from outside, from disks, machines and what its people were told; a node has no part in it. A node
counts as `up` when it runs and its peers can reach it: one that hangs, or stands alone, does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from lockbox_node.core.regions import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.core.regions import RegionTable

StripeKey = tuple[bytes, bytes]
"""Address and descriptor hash."""


@dataclass(frozen=True, slots=True)
class PartSeen:
    """A part on a disk. `found` = ids that its bytes have now, `signed` = those that the owner signed."""

    address: bytes
    descriptor_hash: bytes
    version: int
    index: int
    found: tuple[bytes, ...]
    signed: tuple[bytes, ...]
    corrupt: bool = False  # in quarantine
    harmed: bool = False  # by the simulation: rot, or a torn write

    @property
    def key(self) -> StripeKey:
        """Which stripe."""
        return self.address, self.descriptor_hash

    @property
    def sound(self) -> bool:
        """Whether it can serve."""
        return not self.corrupt and self.found == self.signed


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that others can make grow, and its limit."""

    name: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A host, its disk and what its node believes. `view` = the ids that it holds alive, its own among them.

    `parts` and `tombstones` are those of the disk, whether its node runs or not, and the same objects as a second ago
    where nothing of them has changed. `tombstones` = address -> (version, until which virtual second).
    """

    id: bytes
    name: str
    region: str
    operator: str
    up: bool
    epoch: int
    parts: tuple[PartSeen, ...] = ()
    view: frozenset[bytes] = frozenset()
    trusted: bool = True  # its guard
    eligible: bool = True  # takes new shards: neither draining nor full nor broken
    repairs: int = 0  # begun in this life
    tombstones: Mapping[bytes, tuple[int, float]] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    disk: int = 0  # which medium it has: another number once an old image took its place


@dataclass(frozen=True, slots=True)
class StripeSeen:
    """A stripe of an asset that a person was told is locked, and which node acknowledged which index."""

    address: bytes
    descriptor_hash: bytes
    tier: int
    holders: Mapping[int, bytes]

    @property
    def key(self) -> StripeKey:
        """Which stripe."""
        return self.address, self.descriptor_hash


@dataclass(frozen=True)
class Snapshot:
    """All of it at `now`, seconds of virtual time. The order of nodes and stripes depends on the seed alone."""

    now: float
    nodes: tuple[NodeSeen, ...]
    stripes: tuple[StripeSeen, ...] = ()
    partitioned: bool = False  # some hosts that are up cannot reach one another
    wrong_reads: int = 0  # unlocks that gave other bytes than were locked
    wrong_served: int = 0  # parts that a store handed out with other bytes than their owner signed
    told: tuple[str, ...] = ()  # what log lines said that no log line may say
    regions: RegionTable = BUILT_IN  # in force with the first node that runs
    leftovers: tuple[str, ...] = ()  # at the end: what still runs, listens or is connected

    @cached_property
    def kept(self) -> dict[StripeKey, list[tuple[NodeSeen, PartSeen]]]:
        """Who keeps a part of a stripe, on whatever disk."""
        found: dict[StripeKey, list[tuple[NodeSeen, PartSeen]]] = {}
        for node in self.nodes:
            for part in node.parts:
                found.setdefault(part.key, []).append((node, part))
        return found

    def live(self, key: StripeKey) -> dict[int, NodeSeen]:
        """Index -> a node that is up and can serve it."""
        return {part.index: node for node, part in self.kept.get(key, ()) if node.up and part.sound}
