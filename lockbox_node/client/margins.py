"""How much may still be lost: in nodes and in whole regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Margin:
    """`nodes` holders, or in the worst order `regions` whole regions, may vanish and k shards are still left.

    `nodes` is negative when too many have vanished already; `regions` is 0 then.
    """

    nodes: int
    regions: int

    def as_json(self) -> dict[str, int]:
        """As the commands print it."""
        return {"nodes": self.nodes, "regions": self.regions}


def margin(k: int, regions: Collection[str]) -> Margin:
    """The margin of one group; `regions` = the region of the holder of each shard index that is live."""
    live = len(regions)
    lost = 0
    for _, count in Counter(regions).most_common():
        live -= count
        if live < k:
            break
        lost += 1
    return Margin(len(regions) - k, lost)


def least(margins: Collection[Margin]) -> Margin:
    """The margin of an asset: that of its worst stripe."""
    return Margin(min(one.nodes for one in margins), min(one.regions for one in margins))
