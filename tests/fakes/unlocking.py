"""Unlocks over a cluster, and who was asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import UnlockResult, unlock
from lockbox_node.core.tiers import STANDARD, Tier

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from tests.fakes.cluster import Cluster, FakeNode

SECRET = b"a secret that only its owner may fetch" * 40


async def locked(vault: Vault, tier: Tier = STANDARD, content: bytes = SECRET) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(content)), tier)).asset
    await trio.sleep(2)  # until the pointers are spread
    return asset


async def content_of(vault: Vault, asset: AssetEntry) -> tuple[bytes, UnlockResult]:
    sink = MemorySink()
    result = await unlock(vault, asset, sink)
    return bytes(sink.content), result


def asked(cluster: Cluster) -> list[FakeNode]:
    """The verifiers that were asked since the last look, nearest to nobody in particular."""
    found = [node for node in cluster.nodes.values() if node.asked["AskGrant"]]
    for node in found:
        del node.asked["AskGrant"]
    return found


async def whom(cluster: Cluster, vault: Vault, asset: AssetEntry) -> list[FakeNode]:
    """Those whom an unlock asks first: each unlock of an asset asks the same, in the same view."""
    await content_of(vault, asset)
    return asked(cluster)
