"""What this node says of itself: its signed record, and the Hello that opens every connection.

The record is signed anew when it grows old, when what it says has changed (state, leaf, free space) and when a rumour
must be refuted; its sequence is the wall clock in milliseconds, always above the last one, and the node's incarnation.
Source: DESIGN, Identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from protocol.certificates import NetworkRoot, Role
from protocol.messages import Hello, Signed
from protocol.records import NodeRecord, sign
from protocol.vantage import RoundTrip, Vantage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.ports import ShardStore, WallClock
    from protocol.ids import NodeId

PROTOCOL_VERSIONS = [1]
RECORD_LIFE_S = 24 * 3600
RENEW_SHARE = 0.5  # of a record's life
GIB = 1 << 30


class NodeState(IntEnum):
    """The states of a NodeRecord."""

    JOINING = 0
    ACTIVE = 1
    DRAINING = 2
    LEAVING = 3


class Operational(Protocol):
    """The operational identity of a node: the adapters own the keys."""

    @property
    def node_id(self) -> NodeId:
        """The id that the chain proves."""
        ...

    @property
    def operator(self) -> str:
        """The organisation of the identity certificate."""
        ...

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first, without the root."""
        ...

    def sign(self, data: bytes, /) -> bytes:
        """Ed25519 by the operational key of that leaf."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What stays the same while the daemon runs; `epoch` and `instance` tell its life from others of the same node."""

    addresses: tuple[str, ...]
    region: str
    capacity_bytes: int
    software: bytes
    epoch: int
    instance: bytes


def free_tenths(store: ShardStore, capacity_bytes: int) -> int:
    """Tenths of the capacity that are free; 0 when nothing more should come: full, or the store is broken."""
    if store.broken:
        return 0
    free_bytes = max(0, capacity_bytes - store.figures().logical_bytes)
    return min(10, 10 * free_bytes // max(1, capacity_bytes))


class Announcer:
    """Signs our records and speaks our Hello. It is the local identity of pool and server."""

    role = Role.NODE

    def __init__(
        self,
        identity: Operational,
        root: NetworkRoot,
        standing: Standing,
        clock: WallClock,
        free_tenths: Callable[[], int],
    ) -> None:
        """`free_tenths` says how much room there is now: 10 = all free, 0 = full, give me nothing more."""
        self._identity = identity
        self._standing = standing
        self._clock = clock
        self.root = root
        self.state = NodeState.JOINING
        self._free_tenths = free_tenths
        self._sequence = 0
        self.signed, self.record = self.renew()

    @property
    def id(self) -> NodeId:
        """Our node id."""
        return self._identity.node_id

    def outdated(self) -> bool:
        """Whether the record is half-way to its expiry, or no longer says how much room there is."""
        left_s = self.record.expires_unix_s - self._clock.now_unix_s()
        # Beyond its whole life: the clock was set back, and others may believe that the record never expires.
        aged = not RECORD_LIFE_S * RENEW_SHARE < left_s <= RECORD_LIFE_S + 1
        return aged or self.record.free_class != self._free_tenths()

    def renew(self, sequence_min: int = 0) -> tuple[Signed, NodeRecord]:
        """Sign a new record with a sequence of at least `sequence_min`, above every earlier one."""
        now = self._clock.now_unix_s()
        self._sequence = max(int(now * 1000), self._sequence + 1, sequence_min)
        standing = self._standing
        self.record = NodeRecord(
            node=self._identity.node_id,
            sequence=self._sequence,
            expires_unix_s=int(now) + RECORD_LIFE_S,
            addresses=list(standing.addresses),
            region=standing.region,
            operator=self._identity.operator,
            capacity_class=int(math.log2(max(1, standing.capacity_bytes // GIB))),
            free_class=self._free_tenths(),
            versions=PROTOCOL_VERSIONS,
            software=standing.software,
            state=int(self.state),
            location_level=0,
            epoch=standing.epoch,
            instance=standing.instance,
            chain=list(self._identity.chain),
        )
        self.signed = sign(self.record, self._identity)
        return self.signed, self.record

    def vantage(self, round_trips: Sequence[RoundTrip], signed_unix_s: int) -> tuple[Signed, Vantage]:
        """Sign what we have measured of others, by rising subject."""
        own, chain = self._identity.node_id, list(self._identity.chain)
        vantage = Vantage(own, self._standing.region, signed_unix_s, list(round_trips), chain)
        return sign(vantage, self._identity), vantage

    def hello(self) -> Hello:
        """What opens a connection."""
        return Hello(
            chain=list(self._identity.chain),
            versions=PROTOCOL_VERSIONS,
            network=self.root.network_id,
            record=self.signed,
            software=self._standing.software,
            clock_unix_ms=int(self._clock.now_unix_s() * 1000),
        )
