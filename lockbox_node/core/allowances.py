"""What each peer may ask and move in a second: a bucket of requests, and where a policy says so one of bytes.

By peer, not by connection, so that nobody gains by more connections. A policy bounds clients, and guests by no more
than that; it holds at once, for those who are connected too. Bytes are charged when they have moved, whatever their
size, and then nothing is served until they are made up for. All times are passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakSet

from lockbox_node.core.admission import DEFAULTS, AdmissionParams, Bucket
from protocol.certificates import Role

if TYPE_CHECKING:
    from lockbox_node.core.policy import Governed

PEERS_MAX = 4096  # whose allowance is remembered
BURST_S = 2.0  # of a rate that a policy sets: what may come at once


class Allowance:
    """That of one peer."""

    __slots__ = ("__weakref__", "_moved", "_requests", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        self._requests: Bucket | None = None
        self._moved: Bucket | None = None

    def grant(self, requests: Bucket, moved: Bucket | None) -> None:
        """From now on these."""
        self._requests, self._moved = requests, moved

    def take(self, now: float) -> float:
        """0.0 when one more request is allowed; else the seconds to wait."""
        assert self._requests is not None
        if self._moved is not None and (wait_s := self._moved.take(now, 0.0)):
            return wait_s
        return self._requests.take(now)

    def charge(self, moved_bytes: int) -> None:
        """So many bytes came or went."""
        if self._moved is not None:
            self._moved.charge(moved_bytes)


class Allowances:
    """Those of all peers. Above PEERS_MAX the one that came longest ago is forgotten; a connection keeps its own."""

    def __init__(self, params: AdmissionParams = DEFAULTS) -> None:
        self._params = params
        self._requests: float | None = None  # of clients by the policy, a second
        self._bytes: float | None = None
        self._known: OrderedDict[bytes, Allowance] = OrderedDict()
        self._living: WeakSet[Allowance] = WeakSet()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, peer: bytes, role: Role, now: float) -> Allowance:
        """That of a newly connected `peer` (whatever tells it from others)."""
        allowance = self._known.get(peer)
        if allowance is None:
            allowance = self._known[peer] = Allowance(role)
            self._living.add(allowance)
            self._grant(allowance, now)
            if len(self._known) > PEERS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(peer)
        return allowance

    def obey(self, governed: Governed, now: float) -> None:
        """What the policy says of clients is in force when this returns."""
        before = self._requests, self._bytes
        self._requests, self._bytes = governed.client_requests, governed.client_bytes
        if before != (self._requests, self._bytes):
            for allowance in self._living:
                self._grant(allowance, now)

    def _grant(self, allowance: Allowance, now: float) -> None:
        rate, burst = self._params.of(allowance.role)
        moved = None
        if allowance.role in (Role.CLIENT, Role.GUEST):
            if self._requests is not None and (allowance.role is Role.CLIENT or self._requests < rate):
                rate, burst = self._requests, max(1.0, self._requests * BURST_S)
            if self._bytes is not None:
                moved = Bucket(self._bytes, self._bytes * BURST_S, now)
        allowance.grant(Bucket(rate, burst, now), moved)
