"""The vantage reports that a node keeps: the newest of each judge, of the judges nearest to itself.

What does not count is told apart before a signature is checked: it costs nothing to send. A report of a judge that is
no member, that is too old, from the future, or hardly newer than what stands is left out; so replays are. Others get
what they lack, the nearest to them first, since they keep those. Source: SPEC.md, Vantage reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lockbox_node.core.location import Sighting
from protocol.ids import NodeId, distance
from protocol.vantage import VANTAGES_KNOWN_MAX, VANTAGES_MAX, KnownVantage

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from protocol.messages import Signed
    from protocol.vantage import Vantage

HELD_MAX = VANTAGES_KNOWN_MAX
LIFE_S = 86_400  # of a report, and of what was measured
AHEAD_S = 300  # clocks differ
APART_S = 10  # between two reports of one judge


class Objection(StrEnum):
    """Why a report is left out."""

    STALE = "stale"
    EXPIRED = "expired"
    FUTURE = "future"
    STRANGER = "stranger"
    FAR = "far"


@dataclass(frozen=True, slots=True)
class _Held:
    signed: Signed
    vantage: Vantage
    number: int  # how far its judge is from us


class VantageTable:
    """Reports by judge. What is kept was verified."""

    def __init__(self, own: NodeId) -> None:
        self._own = own
        self._held: dict[NodeId, _Held] = {}
        self.version = 0  # rises at every change

    def __len__(self) -> int:
        return len(self._held)

    def objection(self, vantage: Vantage, now_unix_s: float, members: Container[NodeId]) -> Objection | None:
        """Why this report, verified or not, does not count; None when it does."""
        judge = NodeId(vantage.judge)
        if judge not in members:
            return Objection.STRANGER
        return self._objection(judge, vantage.signed_unix_s, now_unix_s, self._reach())

    def keep(self, signed: Signed, vantage: Vantage) -> None:
        """Keep a report that was verified and has no objection; the farthest makes room."""
        judge = NodeId(vantage.judge)
        self._held[judge] = _Held(signed, vantage, distance(judge, self._own))
        if len(self._held) > HELD_MAX:
            del self._held[max(self._held, key=lambda node: self._held[node].number)]
        self.version += 1

    def expire(self, now_unix_s: float, members: Container[NodeId]) -> None:
        """Forget what is too old, and who is no member any more."""
        for judge, held in list(self._held.items()):
            if judge not in members or held.vantage.signed_unix_s < now_unix_s - LIFE_S:
                del self._held[judge]
                self.version += 1

    def sightings(self, now_unix_s: float, without: NodeId | None = None) -> list[Sighting]:
        """Everything that the reports say and that is not too old; nothing of the judge `without`."""
        return [
            sighting
            for judge, held in sorted(self._held.items())
            if judge != without
            for sighting in sightings_of(held.vantage, now_unix_s)
        ]

    def known(self) -> list[KnownVantage]:
        """What is held: for others to compare."""
        return [KnownVantage(judge, held.vantage.signed_unix_s) for judge, held in sorted(self._held.items())]

    def newer_than(self, known: Iterable[KnownVantage], asker: NodeId) -> tuple[list[Signed], bool]:
        """What `asker`, who has these, lacks: VANTAGES_MAX at most, the nearest to it; and whether there is more."""
        theirs = {NodeId(one.judge): one.signed_unix_s for one in known}
        full = len(theirs) >= HELD_MAX
        reach = max((distance(node, asker) for node in theirs), default=0)
        found = [
            judge
            for judge, held in self._held.items()
            if judge != asker
            and held.vantage.signed_unix_s >= theirs.get(judge, -APART_S) + APART_S
            and not (full and distance(judge, asker) > reach)
        ]
        found.sort(key=lambda judge: distance(judge, asker))
        return [self._held[judge].signed for judge in found[:VANTAGES_MAX]], len(found) > VANTAGES_MAX

    def wanted(self, known: Iterable[KnownVantage], now_unix_s: float, members: Container[NodeId]) -> list[bytes]:
        """The judges whose report we lack, or have older, and would keep; VANTAGES_MAX at most."""
        reach = self._reach()
        wanted = [
            one.judge
            for one in known
            if NodeId(one.judge) in members
            and one.judge != self._own
            and self._objection(NodeId(one.judge), one.signed_unix_s, now_unix_s, reach) is None
        ]
        return wanted[:VANTAGES_MAX]

    def of(self, judges: Iterable[bytes]) -> list[Signed]:
        """The reports of those judges that are held."""
        return [self._held[NodeId(judge)].signed for judge in judges if NodeId(judge) in self._held][:VANTAGES_MAX]

    def _reach(self) -> float:
        """How near a new judge must be."""
        full = len(self._held) >= HELD_MAX
        return max(other.number for other in self._held.values()) if full else math.inf

    def _objection(self, judge: NodeId, signed_unix_s: int, now_unix_s: float, reach: float) -> Objection | None:
        held = self._held.get(judge)
        if signed_unix_s > now_unix_s + AHEAD_S:
            return Objection.FUTURE
        if signed_unix_s < now_unix_s - LIFE_S:
            return Objection.EXPIRED
        if held is not None:
            return None if signed_unix_s >= held.vantage.signed_unix_s + APART_S else Objection.STALE
        return Objection.FAR if distance(judge, self._own) >= reach else None


def sightings_of(vantage: Vantage, now_unix_s: float) -> list[Sighting]:
    """What one report says, as far as it is not too old."""
    return [
        Sighting(NodeId(vantage.judge), vantage.region, NodeId(trip.subject), trip.region, trip.rtt_us)
        for trip in vantage.round_trips
        if trip.measured_unix_s >= now_unix_s - LIFE_S
    ]
