"""What stands at asset indices: assets, siblings, remains, or nothing.

Two copies of a wallet that lock on both sides of a partition use one index, so that two assets stand at one address:
siblings. A machine that sees the other's descriptor moves to its next index, with the same asset salt: what it leaves
behind may be whole, and is told from a sibling by that salt at a higher index. Source: SPEC.md, Wallet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.listing import order_of
from lockbox_node.client.marks import read_mark
from lockbox_node.client.standing import Standing
from lockbox_node.client.wallet import AssetEntry
from lockbox_node.core.derivation import root_key
from lockbox_node.core.manifest import KIND_ASSET, open_slots
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.manifest import Manifest

WINDOW_INDICES = 8  # asked about at once
MOVED_MAX = 256  # indices behind a sibling where it may have moved to


class Found(Enum):
    """What an index turned out to be."""

    ASSET = "an asset"
    MISS = "never used"
    DELETED = "deleted"
    LEFTOVER = "left behind by an interrupted lock"
    UNKNOWN = "nobody can say, or not whether there is more"


@dataclass(frozen=True, slots=True)
class Shown:
    """A root stripe that can be read."""

    asset: AssetEntry
    manifest: Manifest

    @property
    def asset_salt(self) -> bytes:
        """Of the lock that made it."""
        return self.manifest.asset_salt


@dataclass(frozen=True, slots=True)
class Scanned:
    """One index. `shown` = the assets of the newest version that can be read; several are siblings."""

    found: Found
    shown: tuple[Shown, ...] = ()


def standing(shown: Sequence[Shown]) -> list[AssetEntry]:
    """The assets among what was shown at several indices: without what moved on to a higher index."""
    last: dict[bytes, int] = {}
    for one in shown:
        salt = one.asset_salt
        last[salt] = max(last.get(salt, 0), one.asset.index)
    assets = [one.asset for one in shown if one.asset.index == last[one.asset_salt]]
    return sorted(assets, key=order_of)


async def scan(vault: Vault, indices: range) -> list[Scanned]:
    """What these indices are, in their order; asked about all at once."""
    outcomes: dict[int, Scanned] = {}

    async def one(index: int) -> None:
        with root_key(vault.wallet.master, index) as key:
            seen = Standing(vault, key)
            await seen.ask_everybody(vault.params.first_s)
            outcomes[index] = judged(vault, index, key, seen)

    async with trio.open_nursery() as nursery:
        for index in indices:
            nursery.start_soon(one, index)
    return [outcomes[index] for index in indices]


async def siblings_of(vault: Vault, asset: AssetEntry, seen: Standing) -> list[Shown]:
    """The assets that stand at the root's address beside `asset`, as far as `seen` shows them."""
    beside: list[Shown] = []
    with root_key(vault.wallet.master, asset.index) as key:
        for slot in seen.slots:
            if slot.table.is_sibling(asset) and _may_be_whole(slot, seen):
                opened = _opened(vault, asset.index, key, slot)
                beside += [opened] if opened is not None else []
    if not beside:
        return []
    try:
        mark = (await read_mark(vault)).mark
    except LockboxError:
        return beside  # better one too many than one too few
    higher = range(asset.index + 1, min(mark, asset.index + 1 + MOVED_MAX))
    gone = await _moved(vault, higher, {one.asset_salt for one in beside})
    return [one for one in beside if one.asset_salt not in gone]


async def _moved(vault: Vault, indices: range, salts: Collection[bytes]) -> set[bytes]:
    """Those of `salts` whose assets stand at one of `indices`."""
    found: set[bytes] = set()
    for first in range(indices.start, indices.stop, WINDOW_INDICES):
        if found == set(salts):
            break
        window = await scan(vault, range(first, min(first + WINDOW_INDICES, indices.stop)))
        found |= {one.asset_salt for scanned in window for one in scanned.shown} & set(salts)
    return found


def judged(vault: Vault, index: int, key: AssetKey, seen: Standing) -> Scanned:
    """What was seen at the address of `index`."""
    match seen.presence:
        case Presence.ABSENT:
            return Scanned(Found.MISS)
        case Presence.BURIED:
            return Scanned(Found.DELETED)
        case Presence.UNKNOWN:
            return Scanned(Found.UNKNOWN)
        case Presence.STANDS:
            return _standing(vault, index, key, seen)


def _standing(vault: Vault, index: int, key: AssetKey, seen: Standing) -> Scanned:
    readable = [slot for slot in seen.slots if len(slot.shown_by) >= slot.descriptor.k]
    if not readable:
        return Scanned(Found.UNKNOWN if seen.silent else Found.LEFTOVER)
    shown: list[Shown] = []
    for slot in readable:  # the newest version first
        if shown and slot.descriptor.version < shown[0].asset.version:
            break
        opened = _opened(vault, index, key, slot)
        shown += [opened] if opened is not None else []
    newest = shown[0].asset.version if shown else 0
    doubtful = [slot for slot in seen.slots if slot.descriptor.version >= newest and slot not in readable]
    unsure = not shown or any(_may_be_whole(slot, seen) for slot in doubtful)
    return Scanned(Found.UNKNOWN if unsure else Found.ASSET, tuple(shown))


def _may_be_whole(slot: Slot, seen: Standing) -> bool:
    """Whether k holders have it, or could: nobody knows what the silent ones have."""
    return len(slot.shown_by) + seen.silent >= slot.descriptor.k


def _opened(vault: Vault, index: int, key: AssetKey, slot: Slot) -> Shown | None:
    """The asset of this slot; None when its manifest does not open."""
    descriptor = slot.descriptor
    try:
        manifest = open_slots(slot.slots, vault.wallet.master, key.address, descriptor.version)
    except LockboxError:
        return None
    if manifest.kind != KIND_ASSET:
        return None
    asset = AssetEntry(
        index=index,
        address=key.address,
        version=descriptor.version,
        tier=manifest.tier,
        size=manifest.size,
        label=manifest.label,
        created_unix_s=manifest.created_unix_s,
        lease_until_unix_s=slot.lease_until_unix_s,
        descriptor_hash=slot.table.descriptor_hash,
    )
    return Shown(asset, manifest)
