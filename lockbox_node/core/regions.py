"""The regions a node may stand in, and which of them are far enough apart to count as two.

Distance is the haversine of city coordinates on a sphere of the mean radius 6371.0088 km (IUGG). 999.999 km is too
near, 1000.0 km is far enough: distances are rounded to a millimetre, so that the last bit of a float decides nothing.
The table of near pairs is computed once, at import: placement asks it for every candidate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lockbox_node.errors import ConfigError

EARTH_RADIUS_KM = 6371.0088
MIN_KM = 1000.0
_MILLIMETRE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Region:
    """A place by its city; latitude and longitude in degrees, north and east positive."""

    name: str
    city: str
    latitude: float
    longitude: float


REGIONS: dict[str, Region] = {
    region.name: region
    for region in (
        Region("us-east-1", "Ashburn", 39.04, -77.49),
        Region("us-east-2", "Columbus", 39.96, -83.00),
        Region("us-west-1", "San Jose", 37.34, -121.89),
        Region("us-west-2", "Boardman", 45.84, -119.70),
        Region("ca-central-1", "Montreal", 45.50, -73.57),
        Region("sa-east-1", "São Paulo", -23.55, -46.63),
        Region("eu-west-1", "Dublin", 53.35, -6.26),
        Region("eu-west-2", "London", 51.51, -0.13),
        Region("eu-west-3", "Paris", 48.86, 2.35),
        Region("eu-central-1", "Frankfurt", 50.11, 8.68),
        Region("eu-north-1", "Stockholm", 59.33, 18.07),
        Region("eu-south-1", "Milan", 45.46, 9.19),
        Region("af-south-1", "Cape Town", -33.92, 18.42),
        Region("me-south-1", "Bahrain", 26.07, 50.56),
        Region("ap-south-1", "Mumbai", 19.08, 72.88),
        Region("ap-southeast-1", "Singapore", 1.35, 103.82),
        Region("ap-southeast-2", "Sydney", -33.87, 151.21),
        Region("ap-southeast-3", "Jakarta", -6.21, 106.85),
        Region("ap-east-1", "Hong Kong", 22.32, 114.17),
        Region("ap-northeast-1", "Tokyo", 35.68, 139.69),
        Region("ap-northeast-2", "Seoul", 37.57, 126.98),
        Region("ap-northeast-3", "Osaka", 34.69, 135.50),
    )
}

# The largest set of regions that are pairwise far enough, the seven widest spread first.
_SPREAD = (
    "us-east-1",
    "us-west-1",
    "sa-east-1",
    "eu-west-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-southeast-2",
    "af-south-1",
    "ap-southeast-1",
    "eu-north-1",
    "me-south-1",
    "ap-east-1",
    "eu-central-1",
    "ap-northeast-2",
)
SPREAD_MAX = len(_SPREAD)


def region_named(name: str) -> Region:
    """The region of that name; ConfigError when there is none."""
    region = REGIONS.get(name)
    if region is None:
        raise ConfigError(f"there is no region {name!r}", hint=f"regions: {', '.join(sorted(REGIONS))}")
    return region


def distance_km(a: Region, b: Region) -> float:
    """Great-circle distance in km by the haversine formula, rounded to a millimetre."""
    latitude_a, latitude_b = math.radians(a.latitude), math.radians(b.latitude)
    half_latitude = math.sin((latitude_b - latitude_a) / 2)
    half_longitude = math.sin(math.radians(b.longitude - a.longitude) / 2)
    chord = half_latitude**2 + math.cos(latitude_a) * math.cos(latitude_b) * half_longitude**2
    return round(2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord))), _MILLIMETRE_DIGITS)


def far_enough(a: Region, b: Region) -> bool:
    """Whether holders in both may count as two regions: at least 1000.0 km."""
    return distance_km(a, b) >= MIN_KM


NEAR: dict[str, frozenset[str]] = {
    name: frozenset(other for other, there in REGIONS.items() if other != name and not far_enough(here, there))
    for name, here in REGIONS.items()
}
"""Region name -> the other regions that are too near to be used together with it."""


def spread_regions(count: int = 7) -> list[str]:
    """Names of `count` regions pairwise at least 1000 km apart, always the same; ConfigError above `SPREAD_MAX`."""
    if not 0 < count <= SPREAD_MAX:
        raise ConfigError(
            f"{count} regions pairwise {MIN_KM:.0f} km apart cannot be had", hint=f"use 1 to {SPREAD_MAX}"
        )
    return list(_SPREAD[:count])
