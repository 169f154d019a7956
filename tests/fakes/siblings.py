"""Two machines with copies of one wallet, each on its side of a partition of the fake cluster, lock under one index."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.client.wallet import Wallet
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import BASIC, STANDARD, Tier
from simulations.world import SeededEntropy

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.wallet import AssetEntry
    from tests.fakes.cluster import Cluster, FakeNode

SPREAD_S = 2  # until the pointers are told
SIBLINGS_INDEX = 1


@dataclass
class Machine:
    """One of the two: its wallet, and what it locked while it was alone."""

    wallet: Wallet
    asset: AssetEntry
    content: bytes


def copy_of(wallet: Wallet, path: Path, seed: int = 2) -> Wallet:
    """The wallet on another machine."""
    shutil.copytree(wallet.path, path)
    return Wallet(path, bytearray(wallet.master), wallet.network_id, SeededEntropy(seed))


async def locked_apart(
    cluster: Cluster, wallet: Wallet, copy_path: Path, tier: Tier = STANDARD, size: int = 1000
) -> list[Machine]:
    """Siblings on the nearer and on the farther half of the nodes, which hear each other again afterwards."""
    async with cluster.client(wallet, 11) as vault:
        await lock(vault, BytesSource(bytearray(b"before")), BASIC, label="before")  # reserves more indices
    copy = copy_of(wallet, copy_path)
    with root_key(wallet.master, SIBLINGS_INDEX) as key:
        near = [node.id for node in cluster.nearest(key.address, len(cluster.nodes))]
    nearer, farther = near[: len(near) // 2], near[len(near) // 2 :]
    machines: list[Machine] = []
    for machine, seed, dead, label in ((wallet, 12, farther, "nearer"), (copy, 13, nearer, "farther")):
        content = (label.encode() * size)[:size]
        cluster.kill(*dead)
        async with cluster.client(machine, seed) as vault:
            asset = (await lock(vault, BytesSource(bytearray(content)), tier, label=label)).asset
            machines.append(Machine(machine, asset, content))
            await trio.sleep(SPREAD_S)
        cluster.revive(*dead)
    assert machines[0].asset.address == machines[1].asset.address
    return machines


def holders_of(cluster: Cluster, asset: AssetEntry) -> list[FakeNode]:
    """Who holds a part of its root stripe, and not of a sibling of it."""
    return [
        node
        for node in cluster.nodes.values()
        if any(part.descriptor_hash == asset.descriptor_hash for part in node.store.view(asset.address).parts)
    ]
