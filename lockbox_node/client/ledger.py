"""The wallet's books while many locks run at once: indices taken in blocks, assets remembered in groups.

Each change of the wallet is a synced write, so they are shared: whoever waits longest writes for all who wait. An
index is handed out only after it was reserved on disk and, through the high-water mark, announced in the network. Who
locks much does not wait for that: the next block is fetched while the last indices of this one are handed out. Blocks
that another machine with the same words has announced are left to it. Source: DESIGN, Client pipeline, Wallet.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.marks import raise_mark, read_mark
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

BLOCK = 16
LOW = BLOCK // 2  # so many left: time for the next block
ANNOUNCED_MAX = 256  # indices announced at once by a client that locks much; recovery scans them all


class Ledger:
    """Indices and remembered assets of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._free: deque[int] = deque()
        self._low = trio.Event()
        self._in_blocks = False
        self._reserving = trio.Lock()
        self._reserve_count = 1  # a single lock wastes nothing; whoever locks more takes blocks
        self._announce_count = BLOCK
        self._unsaved: list[AssetEntry] = []
        self._saving = trio.Lock()

    async def take_index(self) -> int:
        """An index that was never used and never will be by anybody else. Raises what the network refuses with."""
        while not self._free:
            async with self._reserving:
                if not self._free:
                    self._free.extend(await self._reserve())
        index = self._free.popleft()
        if self._in_blocks and len(self._free) <= LOW:
            self._low.set()
        return index

    async def keep_ahead(self) -> None:
        """Reserve the next block when few indices are left, for ever. What fails is tried again by who needs one."""
        while True:
            await self._low.wait()
            async with self._reserving:
                if len(self._free) <= LOW:
                    with suppress(LockboxError):
                        self._free.extend(await self._reserve())
            self._low = trio.Event()

    async def remember(self, asset: AssetEntry) -> None:
        """Durably in the wallet when this returns."""
        self._unsaved.append(asset)
        async with self._saving:
            if asset not in self._unsaved:
                return  # somebody wrote it with theirs
            batch, self._unsaved = self._unsaved, []
            try:
                await self._vault.workers.run(partial(self._vault.wallet.remember, *batch))
            except BaseException:
                self._unsaved = batch + self._unsaved
                raise

    async def _reserve(self) -> range:
        vault, wallet = self._vault, self._vault.wallet
        count, self._reserve_count = self._reserve_count, BLOCK
        self._in_blocks = count == BLOCK
        announced = wallet.mark
        room = announced - wallet.next_index
        indices = await vault.workers.run(partial(wallet.reserve_indices, min(count, room) if room > 0 else count))
        if indices.stop <= announced:
            return indices
        seen = await read_mark(vault)
        if seen.mark > announced:
            await vault.workers.run(partial(wallet.skip_indices, seen.mark))
            indices = await vault.workers.run(partial(wallet.reserve_indices, count))
        mark = -(-indices.stop // BLOCK) * BLOCK + self._announce_count - BLOCK
        await raise_mark(vault, seen, mark)
        self._announce_count = min(2 * self._announce_count, ANNOUNCED_MAX)
        await vault.workers.run(partial(wallet.raise_mark, mark))
        return indices
