"""Recover a wallet: every asset that its words have ever locked, found by asking for one index after another.

The scan runs to the wallet's high-water mark and on until MISSES_IN_A_ROW indices in a row are surely absent.
Deleted assets are no misses, nor are those whose lease is over while holders still have them; an index about which too
few nodes answer is unknown, never ends the scan, and is listed. What an interrupted lock has left behind is told from
an asset: its holders answer, and fewer than k have it.
Source: DESIGN, Client pipeline, Wallet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.marks import SeenMark, read_mark
from lockbox_node.client.standing import Standing
from lockbox_node.client.wallet import AssetEntry
from lockbox_node.core.derivation import root_key
from lockbox_node.core.manifest import KIND_ASSET, open_slots
from lockbox_node.errors import ExitCode, LockboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.derivation import AssetKey

MISSES_IN_A_ROW = 20
WINDOW_INDICES = 8  # asked about at once
BEYOND_MARK_MAX = 200  # indices behind the mark that are asked about, whatever the answers are


class Found(Enum):
    """What an index turned out to be."""

    ASSET = "an asset"
    MISS = "never used"
    DELETED = "deleted"
    LEFTOVER = "left behind by an interrupted lock"
    UNKNOWN = "nobody can say"


@dataclass(slots=True)
class RecoverResult:
    """The scan's outcome. `unknown` holds indices; `mark_known` is False when the mark could not be read."""

    assets: list[AssetEntry] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    deleted: int = 0
    leftovers: int = 0
    scanned: int = 0
    mark: int = 0
    mark_known: bool = True

    @property
    def exit_code(self) -> ExitCode:
        """8 when something may be missing from the list."""
        return ExitCode.DEGRADED if self.unknown or not self.mark_known else ExitCode.DONE


async def recover(vault: Vault, *, progress: Callable[[int, int], None] | None = None) -> RecoverResult:
    """Scan, and write what was found into the wallet. `progress` gets (indices scanned, assets found)."""
    result = RecoverResult()
    try:
        seen = await read_mark(vault)
    except LockboxError:
        seen, result.mark_known = SeenMark(0, 0, ()), False
    result.mark = seen.mark
    misses, index, used = 0, 0, 0
    while index < seen.mark or misses < MISSES_IN_A_ROW:
        if index >= seen.mark + BEYOND_MARK_MAX:
            break
        for number, (found, entry) in enumerate(await _scan(vault, range(index, index + WINDOW_INDICES)), start=index):
            misses = misses + 1 if found is Found.MISS else 0
            used = used if found is Found.MISS else number + 1
            _note(result, number, found, entry)
        index += WINDOW_INDICES
        if progress is not None:
            progress(result.scanned, len(result.assets))
    wallet = vault.wallet
    wallet.raise_mark(seen.mark)
    # What lies below the mark may have been reserved by another machine: it is left to that one.
    wallet.skip_indices(max(seen.mark, used))
    wallet.remember(*result.assets)
    return result


def _note(result: RecoverResult, number: int, found: Found, entry: AssetEntry | None) -> None:
    result.scanned += 1
    result.deleted += found is Found.DELETED
    result.leftovers += found is Found.LEFTOVER
    if found is Found.UNKNOWN:
        result.unknown.append(number)
    if entry is not None:
        result.assets.append(entry)


async def _scan(vault: Vault, indices: range) -> list[tuple[Found, AssetEntry | None]]:
    """What these indices are, in their order; asked about all at once."""
    outcomes: dict[int, tuple[Found, AssetEntry | None]] = {}

    async def one(index: int) -> None:
        with root_key(vault.wallet.master, index) as key:
            standing = Standing(vault, key)
            await standing.ask()
            outcomes[index] = _judge(vault, index, key, standing)

    async with trio.open_nursery() as nursery:
        for index in indices:
            nursery.start_soon(one, index)
    return [outcomes[index] for index in indices]


def _judge(vault: Vault, index: int, key: AssetKey, standing: Standing) -> tuple[Found, AssetEntry | None]:
    match standing.presence:
        case Presence.ABSENT:
            return Found.MISS, None
        case Presence.BURIED:
            return Found.DELETED, None
        case Presence.UNKNOWN:
            return Found.UNKNOWN, None
        case Presence.STANDS:
            slots = standing.slots
            readable = [slot for slot in slots if len(slot.shown_by) >= slot.descriptor.k]
            if not readable:
                return (Found.UNKNOWN if standing.silent else Found.LEFTOVER), None
            entry = _entry(vault, index, key, readable)
            return (Found.ASSET, entry) if entry is not None else (Found.UNKNOWN, None)


def _entry(vault: Vault, index: int, key: AssetKey, slots: list[Slot]) -> AssetEntry | None:
    """The asset of the newest version whose manifest opens.

    Of siblings it is the oldest: the machine that came second saw the first one's, and moved to another index.
    """
    for slot in sorted(slots, key=lambda one: (-one.descriptor.version, one.descriptor.created_unix_s)):
        descriptor = slot.descriptor
        try:
            manifest = open_slots(slot.slots, vault.wallet.master, key.address, descriptor.version)
        except LockboxError:
            continue
        if manifest.kind == KIND_ASSET:
            return AssetEntry(
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
    return None
