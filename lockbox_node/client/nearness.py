"""How soon each node answers, as far as this client has seen: whom to ask first where several would do.

What was seen last counts at once when it is quicker, and slowly when it is slower: a busy moment does not move a node
to the other end of the world. A node that was never asked is taken to be as near as others that claim its region. This
decides about waiting only, never about believing: a node that answers soon is as little trusted as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from protocol.records import NodeRecord

Key = TypeVar("Key", bytes, str)

KNOWN_MAX = 4096  # nodes, and regions
COLD_TRIPS = 4  # TCP, TLS, Hello, and the question
SHARE_OF_SLOWER = 1 / 8
GRAIN_S = 1 / 128  # less makes no difference: within one place other reasons decide, and the load is spread by them
NEVER = float("inf")


class Nearness:
    """Seconds to an answer over an open connection, by node and by region."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, float] = {}
        self._regions: dict[str, float] = {}

    def heard(self, record: NodeRecord, took_s: float) -> None:
        """A node answered so long after it was asked, its dial not counted."""
        _take(self._nodes, record.node, took_s)
        _take(self._regions, record.region, took_s)

    def late(self, record: NodeRecord, waited_s: float) -> None:
        """A node has not answered for so long: others first, until it is heard again."""
        _keep(self._nodes, record.node, max(waited_s, self._nodes.pop(record.node, 0.0)))

    def expected_s(self, record: NodeRecord, *, warm: bool) -> float:
        """When its answer will come, in steps; not `warm` = it has to be dialled first.

        Infinite when nothing is known of it or its region.
        """
        trip_s = self._nodes.get(record.node, self._regions.get(record.region, NEVER))
        if trip_s == NEVER:
            return NEVER
        return (trip_s if warm else COLD_TRIPS * trip_s) // GRAIN_S * GRAIN_S


def _take(known: dict[Key, float], key: Key, took_s: float) -> None:
    before_s = known.pop(key, took_s)
    _keep(known, key, took_s if took_s < before_s else before_s + (took_s - before_s) * SHARE_OF_SLOWER)


def _keep(known: dict[Key, float], key: Key, seconds: float) -> None:
    if len(known) >= KNOWN_MAX:
        del known[next(iter(known))]
    known[key] = seconds
