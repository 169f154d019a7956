"""Locking and unlocking through a cluster of real storage services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.tiers import TIERS, Tier

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from tests.fakes.cluster import Cluster


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 70_000])
async def test_what_was_locked_unlocks_byte_for_byte(cluster: Cluster, vault: Vault, tier: Tier, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    locked = await lock(vault, BytesSource(bytearray(content[:size])), tier, label="a")
    assert (locked.placed, locked.wanted) == (tier.n, tier.n)
    sink = MemorySink()
    unlocked = await unlock(vault, locked.asset, sink)
    assert bytes(sink.content) == content[:size]
    assert not unlocked.maybe_stale
