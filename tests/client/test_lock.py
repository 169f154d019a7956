"""Locking and unlocking through a cluster of real storage services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.derivation import AssetKey
from lockbox_node.core.tiers import BASIC, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
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


async def test_a_wallet_that_cannot_be_written_does_not_hide_that_the_asset_stands(vault: Vault) -> None:
    await lock(vault, BytesSource(bytearray(b"x")), BASIC)

    def full(*_assets: AssetEntry) -> None:
        raise LockboxError("the disk is full", "make room")

    vault.wallet.remember = full  # type: ignore[method-assign]
    with pytest.raises(LockboxError, match=r"^[a-z2-7]{16} is locked, but .* the disk is full") as caught:
        await lock(vault, BytesSource(bytearray(b"secret")), BASIC)
    assert "lockbox recover" in caught.value.hint


@pytest.mark.parametrize("size", [10, 6_000_000])
async def test_no_key_outlives_its_lock(vault: Vault, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    made: list[AssetKey] = []
    init = AssetKey.__init__

    def noting(key: AssetKey, seed: bytearray) -> None:
        init(key, seed)
        made.append(key)

    monkeypatch.setattr(AssetKey, "__init__", noting)
    await lock(vault, BytesSource(bytearray(size)), STANDARD)
    with trio.CancelScope() as scope:
        await lock(vault, BytesSource(bytearray(size)), STANDARD, progress=lambda *_: scope.cancel())
    for member in vault.members.all():
        member.alive = False
    with pytest.raises(LockboxError):
        await lock(vault, BytesSource(bytearray(size)), STANDARD)
    assert made
    assert all(key._private is None for key in made)
