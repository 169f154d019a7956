"""What a node says of places: of its own, who contradicts it and why; of the others, what it makes of their claims.

The level of a claim is always that of the node that is asked: nothing that a node says of itself proves where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockbox_node.core.location import Judgement, Sighting
    from lockbox_node.services.discovery import Discovery
    from lockbox_node.services.measuring import Measuring
    from protocol.ids import NodeId


LEVELS = ("claimed", "measured", "attested", "refuted")


@dataclass(frozen=True, slots=True)
class LocationWork:
    """For metrics: what stands, and what was done since the start."""

    enforced: bool
    doubted: bool
    reports: int
    contradictions: int
    refuted: int
    measured: int
    pings: int
    discarded: int
    refused: dict[str, int]  # why -> reports


def location_work(measuring: Measuring) -> LocationWork:
    """The present values."""
    judgement = measuring.judgement
    return LocationWork(
        measuring.enforced,
        judgement.doubted,
        measuring.reports,
        len(judgement.contradictions),
        len(judgement.refuted),
        len(judgement.measured),
        measuring.pings,
        measuring.discarded,
        dict(measuring.refused),
    )


def level_word(judgement: Judgement, node: NodeId) -> str:
    """claimed, measured, attested or refuted."""
    return "refuted" if node in judgement.refuted else judgement.level(node).name.lower()


def location_said(measuring: Measuring, discovery: Discovery) -> dict[str, object]:
    """The part of `status`: our own claim, by whom and why it is contradicted, and how many others are refuted."""
    judgement, own = measuring.judgement, discovery.own
    return {
        "policy": "measured" if measuring.enforced else "claimed",
        "level": level_word(judgement, own),
        "contradicted_by": [_witness(one, discovery) for one in judgement.against(own)],
        "doubted": judgement.doubted,
        "reports": measuring.reports,
        "contradictions": len(judgement.contradictions),
        "refuted": sorted(node.hex() for node in judgement.refuted),
    }


def _witness(sighting: Sighting, discovery: Discovery) -> dict[str, object]:
    record = discovery.known(sighting.judge)
    return {
        "node": sighting.judge.hex(),
        "operator": "" if record is None else record.operator,
        "region": sighting.judge_region,
        "rtt_ms": sighting.rtt_us / 1000,
        "within_km": round(sighting.within_km),
    }
