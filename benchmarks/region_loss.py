"""A whole region dies: how long until every asset is at full redundancy again. `python -m benchmarks.region_loss`.

A real network of 28 daemons in 7 regions with the tiers' own hold-offs. Assets of all tiers are locked, every node of
one region is killed with SIGKILL, and the owner verifies until every shard of every asset is proved by a live legal
holder.
Goals: within the tier's hold-off and 60 s more; Elite within 90 s of the kill.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import trio

from benchmarks.local_network import local_network
from benchmarks.workload import MemorySink, vault_of
from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.verify import verify
from lockbox_node.core.audit import Verdict
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.local_network import LocalNetwork
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.tiers import Tier

NODES = 28
EACH = 10  # assets of a tier
SIZE = 20_000
SLACK_S = 60.0  # beyond the hold-off
ELITE_S = 90.0
SETTLE_S = 20.0  # pointers and first sweeps
GIVE_UP_S = 600.0


async def lose(network: LocalNetwork, home: Path, tiers: Sequence[Tier]) -> bool:
    """Print a line for each tier; whether all kept to their time."""
    kept = True
    async with vault_of(network, home) as vault:
        locked: dict[Tier, list[tuple[AssetEntry, bytes]]] = {}
        for tier in tiers:
            locked[tier] = [await _locked(vault, tier) for _ in range(EACH)]
        await trio.sleep(SETTLE_S)
        region = await _fullest(vault, [asset for pairs in locked.values() for asset, _ in pairs])
        print(f"| {NODES} nodes, region {region} killed | lost at most | healthy again, s after the kill | goal, s |")
        print("|---|---|---|---|", flush=True)
        told = await trio.to_thread.run_sync(partial(network.verb, "kill-region", region))
        dead = {node["id"] for node in network.nodes if node["name"] in told["nodes"]}
        began = time.monotonic()
        for tier in sorted(tiers, key=lambda one: one.hold_off_s):
            goal_s = ELITE_S if tier.name == "elite" else tier.hold_off_s + SLACK_S
            worst = 0
            for asset, content in locked[tier]:
                sink = MemorySink(len(content))
                await unlock(vault, asset, sink)
                assert sink.content == content
                worst = max(worst, await _lost(vault, asset, dead))
            took_s = await _until_healthy(vault, [asset for asset, _ in locked[tier]], began)
            kept = kept and took_s <= goal_s
            print(f"| {tier.name} | {worst} of {tier.n} | {took_s:.1f} | {goal_s:.0f} |", flush=True)
    return kept


async def _locked(vault: Vault, tier: Tier) -> tuple[AssetEntry, bytes]:
    content = os.urandom(SIZE)
    return (await lock(vault, BytesSource(bytearray(content)), tier)).asset, content


async def _fullest(vault: Vault, assets: Sequence[AssetEntry]) -> str:
    """The region that holds most shards."""
    held = Counter[str]()
    for asset in assets:
        held.update(line.region for line in (await verify(vault, asset)).holders)
    return held.most_common(1)[0][0]


async def _lost(vault: Vault, asset: AssetEntry, dead: set[str]) -> int:
    lines = (await verify(vault, asset)).holders
    held = {line.index for line in lines if line.verdict is Verdict.HELD and line.node.hex() not in dead}
    return len({line.index for line in lines} - held)


async def _until_healthy(vault: Vault, assets: Sequence[AssetEntry], began: float) -> float:
    """Seconds from `began` until all of them are; infinite when they never were."""
    waiting = list(assets)
    while waiting and time.monotonic() - began < GIVE_UP_S:
        waiting = [asset for asset in waiting if not await _is_healthy(vault, asset)]
        if waiting:
            await trio.sleep(2.5)  # holders prove a part to one person 30 times a minute
    return float("inf") if waiting else time.monotonic() - began


async def _is_healthy(vault: Vault, asset: AssetEntry) -> bool:
    try:
        return (await verify(vault, asset)).state == "healthy"
    except LockboxError as error:
        print(f"verify: {error.code.value}: {error.message}", file=sys.stderr)
        return False


def main() -> int:
    """Run it; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.region_loss", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--tiers", nargs="+", default=[tier.name for tier in TIERS], choices=[t.name for t in TIERS])
    options = parser.parse_args()
    with local_network(NODES, "--real-times") as network:
        home = network.directory / "home-loss"
        home.mkdir()
        kept = trio.run(lose, network, home, [tier for tier in TIERS if tier.name in options.tiers])
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
