"""How far apart the nodes of a test network are: `up --latency world`.

Two places are one round trip apart: the great circle at two thirds of the speed of light, 1.4 times as long as cables
run, and NEAR_MS for what lies within a place. Here are the words of the command line and the file that the daemons read
(adapters.delayed_network). A node stands in the region that it was dealt and claims, unless it was made a liar: that
one claims it and stands elsewhere. Whoever is no node, a client, stands in one region for all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.regions import BUILT_IN, distance_km
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lockbox_node.core.regions import RegionTable

FIBRE_KM_PER_MS = 299.792458 * 2 / 3
DETOUR = 1.4
NEAR_MS = 1.0


@dataclass(frozen=True, slots=True)
class Delays:
    """Where clients stand, and which nodes stand elsewhere than they claim: name -> region."""

    client: str
    liars: Mapping[str, str]

    @classmethod
    def of(cls, client: str, liars: Iterable[str], regions: Sequence[str]) -> Delays:
        """The words of `--client-region` and of each `--liar NODE=REGION`; `regions` are those in use. UsageError."""
        lying = dict(_liar(word) for word in liars)
        return cls(_known(client or regions[0]), lying)

    def place_of(self, name: str, claimed: str) -> str:
        """Where a node stands."""
        return self.liars.get(name, claimed)

    def save(self, path: Path, places: Mapping[str, str], regions: RegionTable = BUILT_IN) -> None:
        """Write the file for the daemons; `places`: host -> region. In one step: they may read at any time."""
        names = regions.regions
        said = {
            "places": dict(places),
            "elsewhere": self.client,
            "round_trip_ms": {here: {there: round_trip_ms(here, there, regions) for there in names} for here in names},
        }
        written = path.with_suffix(".new")
        written.write_text(json.dumps(said, indent=1), encoding="utf-8")
        written.replace(path)


def round_trip_ms(here: str, there: str, regions: RegionTable = BUILT_IN) -> float:
    """Between two regions by name. ConfigError when there is none such."""
    way_km = distance_km(regions.named(here), regions.named(there)) * DETOUR
    return round(NEAR_MS + 2 * way_km / FIBRE_KM_PER_MS, 3)


def _liar(word: str) -> tuple[str, str]:
    name, _, region = word.partition("=")
    if re.fullmatch(r"n\d{2,3}", name) is None or not region:
        raise UsageError(f"{word!r} says not who lies and from where", "give --liar NODE=REGION, as n05=eu-central-1")
    return name, _known(region)


def _known(region: str) -> str:
    if region not in BUILT_IN:
        raise UsageError(f"{region!r} is not a region", f"known: {', '.join(BUILT_IN.regions)}")
    return region
