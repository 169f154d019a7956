"""What scenarios share: what disks hold of each stripe, waiting for something with a bound, bringing everybody back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.config import Config
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.repair import GuardParams
from lockbox_node.core.tiers import TIERS
from simulations.places import can_heal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lockbox_node.core.tiers import Tier
    from simulations.cluster import Cluster, Host
    from simulations.kept import Key

LOOK_EVERY_S = 1.0
LARGE = 4_000_000  # of a file that takes two stripes of several groups at Basic
SIZES = (100, 5_000, 100_000)  # of assets: inside a manifest, one small stripe, several groups


def quick_healing(
    hold_off_s: float = 20.0, sweep_s: float = 30.0, quiet_s: float = 60.0, return_hold_s: float = 60.0
) -> Config:
    """A config whose repairs wait for seconds, not for minutes or a day, so that a short run sees them."""
    config = Config()
    return replace(
        config,
        repair=replace(config.repair, hold_off_s=hold_off_s, sweep_s=sweep_s, return_hold_s=return_hold_s),
        guard=GuardParams(quiet_s=quiet_s),
    )


def holdings(cluster: Cluster, hosts: Iterable[Host] | None = None) -> dict[Key, tuple[dict[int, Host], Tier]]:
    """Stripe -> (shard index -> who can serve it, its tier), by the disks of running nodes, or of these."""
    seen: dict[Key, tuple[dict[int, Host], Tier]] = {}
    for host in cluster.living() if hosts is None else hosts:
        for kept in host.disk.parts.kept():
            if kept.trashed_at_s < 0:
                live, _ = seen.setdefault(kept.key, ({}, TIERS[kept.part.tier]))
                if not kept.corrupt:
                    live[kept.part.index] = host
    return seen


def keepers(cluster: Cluster) -> dict[Key, list[tuple[int, Host]]]:
    """Stripe -> (shard index, who keeps it) of every part on any disk, served or not; trash does not count."""
    found: dict[Key, list[tuple[int, Host]]] = {}
    for host in cluster.hosts.values():
        for kept in host.disk.parts.kept():
            if kept.trashed_at_s < 0:
                found.setdefault(kept.key, []).append((kept.part.index, host))
    return found


def short(cluster: Cluster, hosts: Iterable[Host] | None = None) -> list[Key]:
    """Stripes that miss a shard now, and for which the running nodes, or these, have a legal place."""
    free = cluster.living() if hosts is None else list(hosts)
    kept = keepers(cluster)
    regions = free[0].life.node.documents.rules.regions if free and free[0].life is not None else BUILT_IN
    return [
        key
        for key, (live, tier) in holdings(cluster, free).items()
        if len(live) < tier.n and can_heal(tier, key[0], live, kept[key], free, regions)
    ]


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
