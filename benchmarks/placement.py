"""What choosing holders costs, and how few of them ever have to move: `python -m benchmarks.placement`.

Costs are CPU of `core.placement` over 10,000 candidates, each beside one sort of the same candidates by XOR distance in
the same run: below that no placement can come. Movement is counted in a network whose nodes join and leave at random:
repair goes by the product's own rule (`replacement` beside the holders that live). The least that can move is every
shard whose holder left; beside it stands what a rule would move that always wants the holders which `place` names.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.placement import Candidate, is_legal, is_well_placed, neighbourhood, place, replacement
from lockbox_node.core.regions import BUILT_IN, Region, RegionTable, spread_regions
from lockbox_node.core.tiers import ELITE, STANDARD, Tier
from lockbox_node.errors import LockboxError
from protocol.documents import REGIONS_MAX
from protocol.ids import ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MEMBERS = 10_000
OPERATORS = 300
REPEATS = 7
EVENTS = 1000
STRIPES = 30
NODES = 200
SEED = 7


def members(count: int, regions: Sequence[str], operators: int, rng: Random) -> list[Candidate]:
    """So many nodes, each in some region and with some operator."""
    return [
        Candidate(rng.randbytes(ID_BYTES), rng.choice(regions), f"operator {rng.randrange(operators)}")
        for _ in range(count)
    ]


def took_ms(act: Callable[[], object]) -> list[float]:
    """CPU of each of REPEATS runs; a refusal is an answer."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        with suppress(LockboxError):
            act()
        times.append(1000 * (time.process_time() - start))
    return times


def far_away(rng: Random, address: bytes) -> list[Candidate]:
    """All but the farthest three stand in two regions: the window has to grow until it holds everybody."""
    ordered = neighbourhood(address, members(MEMBERS, spread_regions(2), OPERATORS, rng))
    third = spread_regions(3)[2]
    return [*ordered[:-3], *(replace(one, region=third) for one in ordered[-3:])]


def hopeless(rng: Random, tier: Tier) -> list[Candidate]:
    """Two operators everywhere, and one node of another in each region: too few, but only all sets together show it."""
    names = [*BUILT_IN.regions]
    few = (tier.n - 15) // tier.shards_per_operator_max
    everywhere = members(MEMBERS - len(names), names, max(1, few), rng)
    return everywhere + [Candidate(rng.randbytes(ID_BYTES), name, f"alone in {name}") for name in names]


def crowd(rng: Random) -> RegionTable:
    """The largest table, in a square of 5000 km: of its sets there are too many to try."""
    return RegionTable.of(Region(f"r{n}", "", rng.uniform(-22, 22), rng.uniform(-22, 22)) for n in range(REGIONS_MAX))


def costs() -> Iterator[str]:
    """Every row of costs."""
    rng, address = Random(SEED), Random(SEED).randbytes(ID_BYTES)
    usual = members(MEMBERS, [*BUILT_IN.regions], OPERATORS, rng)
    holders = place(ELITE, address, usual)
    taken = {index: holder for index, holder in holders.items() if index}
    table = crowd(rng)
    crowded = [
        Candidate(rng.randbytes(ID_BYTES), name, f"operator {number % 1000}")
        for number, name in enumerate([*table.regions] * (MEMBERS // REGIONS_MAX))
    ]
    far, lost = far_away(rng, address), hopeless(rng, ELITE)
    wide = replace(ELITE, n=30, shards_per_region_max=1, regions_min=30)
    rows: dict[str, Callable[[], object]] = {
        "sort by XOR distance": lambda: neighbourhood(address, usual),
        "Elite, greedy": lambda: place(ELITE, address, usual),
        "Elite, one holder replaced": lambda: replacement(ELITE, address, usual, taken, 0),
        "Standard, the third region at the far end": lambda: place(STANDARD, address, far),
        "Elite, refused after every set was tried": lambda: place(ELITE, address, lost),
        "30 regions out of 512 in one continent: ended": lambda: place(wide, address, crowded, regions=table),
        "a table of 512 regions made": lambda: RegionTable(table.regions),
    }
    sort_ms = 0.0
    yield f"| of {MEMBERS:,} members | CPU ms, median (min-max) | times one sort |"
    yield "|---|---|---|"
    for name, act in rows.items():
        times = took_ms(act)
        sort_ms = sort_ms or statistics.median(times)
        spread = f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})"
        yield f"| {name} | {spread} | {statistics.median(times) / sort_ms:.1f} |"


@dataclass
class Movement:
    """A network and its stripes. `moved` by the product's rule, `least` by any, `anew` by always placing anew."""

    tier: Tier
    rng: Random
    moved: int = 0
    least: int = 0
    anew: int = 0
    refused: int = 0  # shards for which no holder was found at that moment

    def __post_init__(self) -> None:
        self.nodes = members(NODES, spread_regions(7), NODES, self.rng)
        addresses = [self.rng.randbytes(ID_BYTES) for _ in range(STRIPES)]
        self.stripes = {address: place(self.tier, address, self.nodes) for address in addresses}
        self.wanted = {address: dict(holders) for address, holders in self.stripes.items()}

    def step(self) -> None:
        """One node joins or leaves; everything short is repaired."""
        gone = None
        if len(self.nodes) > NODES // 2 and self.rng.random() < 0.5:
            gone = self.nodes.pop(self.rng.randrange(len(self.nodes)))
        else:
            self.nodes += members(1, spread_regions(7), NODES, self.rng)
        for address, holders in self.stripes.items():
            for index in [index for index, holder in holders.items() if holder == gone]:
                del holders[index]
                self.least += 1
            for index in [index for index in range(self.tier.n) if index not in holders]:
                try:
                    holders[index] = replacement(self.tier, address, self.nodes, holders, index)
                    self.moved += 1
                except LockboxError:
                    self.refused += 1
            with suppress(LockboxError):
                new = place(self.tier, address, self.nodes)
                before = set(self.wanted[address].values())
                self.anew += sum(holder not in before for holder in new.values())
                self.wanted[address] = new

    def row(self) -> str:
        """What came of it."""
        legal = sum(is_legal(self.tier, holders) for holders in self.stripes.values())
        near = sum(is_well_placed(self.tier, a, self.nodes, holders) for a, holders in self.stripes.items())
        cells = (f"{self.least:,}", f"{self.moved:,}", f"{self.refused}", f"{self.anew:,}", f"{legal}", f"{near}")
        return f"| {self.tier.name} | {' | '.join(cells)} |"


def movement(events: int) -> Iterator[str]:
    """Both tiers' rows."""
    yield (
        f"| {events:,} joins and leaves, {STRIPES} stripes | lost with their holders: the least | moved | refused | "
        "moved if always placed anew | legal at the end | all within the window at the end |"
    )
    yield "|---|---|---|---|---|---|---|"
    for tier in (STANDARD, ELITE):
        network = Movement(tier, Random(SEED))
        for _ in range(events):
            network.step()
        yield network.row()


def tables(events: int = EVENTS) -> Iterator[str]:
    """Costs, then movement."""
    yield from costs()
    yield ""
    yield from movement(events)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    for line in tables(options.events):
        print(line, flush=True)


if __name__ == "__main__":
    main()
