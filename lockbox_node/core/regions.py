"""The regions a node may stand in, and which of them are far enough apart to count as two.

A network's authority signs a table of them (protocol.documents); `BUILT_IN` is in force where none was learned, and
what every new network begins with. Distance is the haversine of coordinates on a sphere of the mean radius 6371.0088
km (IUGG). 999.999 km is too near, 1000.0 km is far enough: distances are rounded to a millimetre, so that the last bit
of a float decides nothing. A table never changes, and its near pairs are computed once: placement asks for every node.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError
from protocol.documents import REGION_NAME, REGIONS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.documents import Place

EARTH_RADIUS_KM = 6371.0088
MIN_KM = 1000.0
LATITUDE_MAX, LONGITUDE_MAX = 90.0, 180.0
MICRODEGREES = 1_000_000  # in a degree
NAME_MAX = 64  # characters
_MILLIMETRE_DIGITS = 6
_REACH = math.degrees(MIN_KM / EARTH_RADIUS_KM)  # no two places that are nearer differ more in latitude


@dataclass(frozen=True, slots=True)
class Region:
    """A place; latitude and longitude in degrees, north and east positive. ConfigError when it cannot be."""

    name: str
    city: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if len(self.name) > NAME_MAX or not REGION_NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} cannot name a region", "1 to 64 lower-case letters, digits and single hyphens"
            )
        for word, degrees, most in (
            ("latitude", self.latitude, LATITUDE_MAX),
            ("longitude", self.longitude, LONGITUDE_MAX),
        ):
            if not -most <= degrees <= most:  # nor is NaN
                raise ConfigError(f"{self.name}: {word} {degrees} is not on Earth", f"give {-most:.0f} to {most:.0f}")


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


@dataclass(frozen=True, slots=True)
class RegionTable:
    """Regions by name, and `near`: name -> the others that are too near to be used together with it.

    Tables of the same regions are equal. ConfigError when it is empty or above REGIONS_MAX.
    """

    regions: Mapping[str, Region]
    near: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.regions) <= REGIONS_MAX:
            raise ConfigError(f"a table of {len(self.regions)} regions", f"it may have 1 to {REGIONS_MAX}")
        object.__setattr__(self, "regions", MappingProxyType(dict(self.regions)))
        object.__setattr__(self, "near", MappingProxyType(_near(self.regions.values())))

    @classmethod
    def of(cls, regions: Iterable[Region]) -> RegionTable:
        """A table of these. ConfigError, also when two have one name."""
        found: dict[str, Region] = {}
        for region in regions:
            if region.name in found:
                raise ConfigError(f"region {region.name} is in the table twice", "name it once")
            found[region.name] = region
        return cls(found)

    @classmethod
    def of_places(cls, places: Iterable[Place]) -> RegionTable:
        """The table that a network's document lists, whose types keep every limit; cities are those known here."""
        return cls.of(
            Region(
                place.name,
                BUILT_IN.regions[place.name].city if place.name in BUILT_IN else place.name,
                place.latitude / MICRODEGREES,
                place.longitude / MICRODEGREES,
            )
            for place in places
        )

    def __contains__(self, name: str) -> bool:
        return name in self.regions

    def named(self, name: str) -> Region:
        """The region of that name; ConfigError when there is none."""
        region = self.regions.get(name)
        if region is None:
            raise ConfigError(f"there is no region {name!r}", hint=f"regions: {', '.join(sorted(self.regions))}")
        return region

    def with_region(self, region: Region) -> RegionTable:
        """With one more, or one that stands elsewhere now. ConfigError."""
        return RegionTable({**self.regions, region.name: region})

    def without(self, name: str) -> RegionTable:
        """With one fewer. ConfigError when there is none of that name, or it is the last."""
        self.named(name)
        return RegionTable({one: region for one, region in self.regions.items() if one != name})


def _near(regions: Iterable[Region]) -> dict[str, frozenset[str]]:
    """By rising latitude: a region is compared only with those whose latitude alone does not make them far."""
    ordered = sorted(regions, key=lambda region: region.latitude)
    near: dict[str, set[str]] = {region.name: set() for region in ordered}
    for number, here in enumerate(ordered):
        for there in itertools.islice(ordered, number + 1, None):
            if there.latitude - here.latitude > _REACH + 1e-6:  # rounding must not decide
                break
            if not far_enough(here, there):
                near[here.name].add(there.name)
                near[there.name].add(here.name)
    return {name: frozenset(others) for name, others in near.items()}


BUILT_IN = RegionTable.of(
    (
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
)

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


def spread_regions(count: int = 7) -> list[str]:
    """Names of `count` regions pairwise at least 1000 km apart, always the same; ConfigError above `SPREAD_MAX`."""
    if not 0 < count <= SPREAD_MAX:
        raise ConfigError(
            f"{count} regions pairwise {MIN_KM:.0f} km apart cannot be had", hint=f"use 1 to {SPREAD_MAX}"
        )
    return list(_SPREAD[:count])
