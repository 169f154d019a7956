"""Bits flip on disks, of shards that nobody may read for years; the scrub finds each and siblings mend it.

At most WRONG_MAX are wrong at once, fewer than any tier may lose. Each must be gone within MEND_S, by a scrub whose
cycle is a minute here. Nobody is ever served a wrong byte, and at the end every asset can be read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.scrub_pace import ScrubParams
from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import SIZES, quick_healing, until, until_whole

if TYPE_CHECKING:
    from simulations.cluster import Cluster, Host
    from simulations.kept import Key

CONFIG = replace(quick_healing(), scrub=ScrubParams(cycle_min_s=40.0, cycle_max_s=60.0, share=1.0, note_every_s=5.0))
ASSETS = 4
WRONG_MAX = 2
EVERY_S = 10.0
MEND_S = 240.0  # a whole cycle of the scrub, hold-off, repair, and once more when the first fails

Damage = tuple["Host", "Key", tuple[bytes, ...]]


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    end = trio.current_time() + seconds
    async with a_person(cluster, 1) as person:
        rng = cluster.world.rng("rot")
        for _ in range(ASSETS):
            await person.lock(rng.choice(SIZES[1:]), rng.choice((BASIC, STANDARD)))
        wrong: list[Damage] = []
        while trio.current_time() < end:
            host = rng.choice(list(cluster.hosts.values()))
            if (key := host.disk.rot(rng)) is not None:
                kept = host.disk.parts.find(*key)
                assert kept is not None
                cluster.world.trace.add("rot", host.name, kept.part.index)
                wrong.append((host, key, kept.part.shards))
            await trio.sleep(EVERY_S)
            await until(lambda: len(_left(wrong)) < WRONG_MAX, MEND_S, "rot is not mended")
            wrong[:] = _left(wrong)
        await until(lambda: not _left(wrong), MEND_S, "rot is not mended")
        await until_whole(cluster, MEND_S)
        await person.read_all()


def _left(wrong: list[Damage]) -> list[Damage]:
    """Those that stand on their disks as they were made."""
    return [
        (host, key, shards)
        for host, key, shards in wrong
        if (kept := host.disk.parts.find(*key)) is not None and kept.part.shards == shards
    ]
