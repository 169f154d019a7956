"""Recover a wallet: every asset that its words have ever locked, found by asking for one index after another.

The scan runs to the wallet's high-water mark and on until MISSES_IN_A_ROW indices in a row are surely absent.
Deleted assets are no misses, nor are those whose lease is over while holders still have them; an index about which too
few nodes answer is unknown, never ends the scan, and is listed. What an interrupted lock has left behind is told from
an asset: its holders answer, and fewer than k have it; or it moved to another index. Siblings are all found.
Source: DESIGN, Client pipeline, Wallet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.client.marks import SeenMark, read_mark
from lockbox_node.client.scanning import WINDOW_INDICES, Found, Scanned, Shown, scan, standing
from lockbox_node.errors import ExitCode, LockboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

MISSES_IN_A_ROW = 20
BEYOND_MARK_MAX = 200  # indices behind the mark that are asked about, whatever the answers are


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
    shown: list[Shown] = []
    while index < seen.mark or misses < MISSES_IN_A_ROW:
        if index >= seen.mark + BEYOND_MARK_MAX:
            break
        for number, scanned in enumerate(await scan(vault, range(index, index + WINDOW_INDICES)), start=index):
            missed = scanned.found is Found.MISS
            misses = misses + 1 if missed else 0
            used = used if missed else number + 1
            _note(result, number, scanned)
            shown += scanned.shown
        index += WINDOW_INDICES
        if progress is not None:
            progress(result.scanned, len(shown))
    assets = standing(shown)
    result.leftovers += len(shown) - len(assets)
    wallet = vault.wallet
    wallet.raise_mark(seen.mark)
    # What lies below the mark may have been reserved by another machine: it is left to that one.
    wallet.skip_indices(max(seen.mark, used))
    wallet.remember(*assets)
    hashes = {asset.descriptor_hash for asset in assets}
    # As the wallet lists them now: an id becomes longer where a sibling of what was known turned up.
    result.assets = [asset for asset in wallet.assets() if asset.descriptor_hash in hashes]
    return result


def _note(result: RecoverResult, number: int, scanned: Scanned) -> None:
    result.scanned += 1
    result.deleted += scanned.found is Found.DELETED
    result.leftovers += scanned.found is Found.LEFTOVER
    if scanned.found is Found.UNKNOWN:
        result.unknown.append(number)
