"""When a stripe that misses a shard can be completed."""

from __future__ import annotations

from dataclasses import dataclass

from lockbox_node.core.regions import spread_regions
from lockbox_node.core.tiers import BASIC
from simulations.places import can_heal

ADDRESS = bytes(32)


@dataclass(frozen=True)
class Seat:
    """A node of its own operator."""

    number: int
    region: str

    @property
    def id(self) -> bytes:
        """Its node id."""
        return self.number.to_bytes(32)

    @property
    def operator(self) -> str:
        """Who runs it."""
        return f"operator {self.number}"


REGIONS = spread_regions(3)
SEATS = [Seat(number, REGIONS[number % 3]) for number in range(9)]
LIVE = dict(enumerate(SEATS[: BASIC.n - 1]))  # two in the first region, one in each of the others
KEPT = list(LIVE.items())
MISSING = BASIC.n - 1


def test_a_node_in_a_region_with_room_completes_it_and_one_in_a_full_region_does_not() -> None:
    assert can_heal(BASIC, ADDRESS, LIVE, KEPT, [*LIVE.values(), SEATS[4]])
    assert not can_heal(BASIC, ADDRESS, LIVE, KEPT, [*LIVE.values(), SEATS[6]])
    assert not can_heal(BASIC, ADDRESS, LIVE, KEPT, LIVE.values())


def test_what_a_node_that_cannot_serve_keeps_counts_in_its_region() -> None:
    away, free = SEATS[7], [*LIVE.values(), SEATS[4]]
    assert away.region == SEATS[4].region
    assert not can_heal(BASIC, ADDRESS, LIVE, [*KEPT, (0, away)], free)
    assert can_heal(BASIC, ADDRESS, LIVE, [*KEPT, (MISSING, away)], free), "one index twice is stored once"
