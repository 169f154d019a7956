"""What scenarios share: what disks hold of each stripe, waiting for something with a bound, bringing everybody back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config
from lockbox_node.core.placement import Candidate, place
from lockbox_node.core.repair import GuardParams
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lockbox_node.core.tiers import Tier
    from simulations.cluster import Cluster, Host
    from simulations.kept import Key

LOOK_EVERY_S = 1.0
LARGE = 4_000_000  # of a file that takes two stripes of several groups at Basic
SIZES = (100, 5_000, 100_000)  # of assets: inside a manifest, one small stripe, several groups


def quick_healing(hold_off_s: float = 20.0, sweep_s: float = 30.0, quiet_s: float = 60.0) -> Config:
    """A config whose repairs wait for seconds, not for minutes, so that a short run sees them."""
    config = Config()
    return replace(
        config,
        repair=replace(config.repair, hold_off_s=hold_off_s, sweep_s=sweep_s),
        guard=GuardParams(quiet_s=quiet_s),
    )


def holdings(cluster: Cluster) -> dict[Key, tuple[dict[int, Host], Tier]]:
    """Stripe -> (shard index -> who can serve it, its tier), by the disks of running nodes."""
    seen: dict[Key, tuple[dict[int, Host], Tier]] = {}
    for host in cluster.living():
        for kept in host.disk.parts.kept():
            if kept.trashed_at_s < 0:
                live, _ = seen.setdefault(kept.key, ({}, TIERS[kept.part.tier]))
                if not kept.corrupt:
                    live[kept.part.index] = host
    return seen


def short(cluster: Cluster) -> list[Key]:
    """Stripes that miss a shard now, and for which the running nodes have a legal place."""
    return [
        key
        for key, (live, tier) in holdings(cluster).items()
        if len(live) < tier.n and _can_heal(cluster, key, live, tier)
    ]


def _can_heal(cluster: Cluster, key: Key, live: dict[int, Host], tier: Tier) -> bool:
    taken = {index: _candidate(host) for index, host in live.items()}
    besides = [
        (part.part.index, _candidate(host))
        for host in cluster.hosts.values()
        if host not in live.values()
        for part in host.disk.parts.kept()
        if part.key == key and part.trashed_at_s < 0
    ]
    try:
        regions = cluster.living()[0].life.node.documents.rules.regions  # type: ignore[union-attr]
        place(tier, key[0], [_candidate(host) for host in cluster.living()], taken, besides, regions)
    except LockboxError:
        return False
    return True


def _candidate(host: Host) -> Candidate:
    return Candidate(host.id, host.region, host.name)  # each has an operator of its own


async def until(holds: Callable[[], bool], within_s: float, otherwise: str) -> None:
    """Return when `holds()`, which is looked at each second; AssertionError in these words when it takes longer."""
    end = trio.current_time() + within_s
    while not holds():
        assert trio.current_time() < end, f"{within_s:g} s later {otherwise}"
        await trio.sleep(LOOK_EVERY_S)


async def until_whole(cluster: Cluster, within_s: float) -> None:
    """Return when no stripe misses a shard."""
    await until(lambda: not short(cluster), within_s, "stripes miss shards still")


async def bring_back(cluster: Cluster, names: Iterable[str] = ()) -> None:
    """Start those of `names` (of all hosts, when none is named) that do not run, and wait until they serve."""
    lives = [cluster.start(name) for name in tuple(names) or cluster.hosts if cluster.hosts[name].life is None]
    for life in lives:
        await life.ready.wait()
