"""The writer and the reader of one store: how they are opened, and opened anew on a rebuilt database.

Damage that SQLite meets while it opens, and a WAL that lost what was acknowledged, are salvaged before anyone asks.
Damage that a request meets later sets `damaged` on the writer or the reader; the store then calls `rebuild`, beside
which reads go on, and `swap`, with both at rest. Not more often than `salvage_every_s`: a disk that goes on losing
pages makes the store read-only instead.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import apsw

from lockbox_node.adapters import store_salvage, store_schema
from lockbox_node.adapters.store_ballast import Ballast
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_reader import StoreReader
from lockbox_node.adapters.store_wal import WalState, state_of
from lockbox_node.adapters.store_writer import StoreWriter
from lockbox_node.errors import ConfigError
from protocol.ids import Address, DescriptorHash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.adapters.disk import Disk
    from lockbox_node.adapters.store_salvage import Salvaged
    from lockbox_node.core.storage_params import StoreParams
    from lockbox_node.ports import StoreFigures, WallClock


class Handles:
    """The two connections and what was salvaged. `news` = salvages not yet told: what each left, None for a doubt."""

    def __init__(self, data_dir: Path, params: StoreParams, clock: WallClock, node: bytes, disk: Disk) -> None:
        """Open, salvaging first where that is needed. ConfigError, OSError."""
        self.news: list[Salvaged | None] = []
        self.salvaged = 0
        self.lost = 0
        self._data_dir = data_dir
        self._params = params
        self._clock = clock
        self._node = node
        self._disk = disk
        self._rebuilt_at: float | None = None
        Ballast(data_dir, params).make_room_to_open()
        store_salvage.finish(data_dir, clock.now_unix_s(), disk)
        wal = state_of(data_dir / f"{store_schema.DATABASE}-wal")
        if wal is WalState.DOUBTFUL:
            self.news.append(None)
        try:
            if wal is WalState.DAMAGED and self._is_ours():
                self._salvage_now()
            try:
                self.writer, self.reader = self._open()
            except store_schema.DamagedDatabase:
                if self.salvaged or not self._is_ours():
                    raise
                self._salvage_now()
                self.writer, self.reader = self._open()
        except apsw.Error as error:
            text = f"{data_dir / store_schema.DATABASE} is damaged and could not be rebuilt: {error}"
            raise ConfigError(text, "look at the disk, restore a backup, or begin with another dir") from None

    @property
    def damaged(self) -> bool:
        """Whether a page was met that is not as it was written, and something can be done about it."""
        return (self.writer.damaged or self.reader.damaged) and not self.writer.broken

    def figures(self) -> StoreFigures:
        """Those of the writer, and what was salvaged."""
        figures = self.writer.figures()
        return replace(figures, salvaged=self.salvaged, lost=self.lost) if self.salvaged else figures

    def rebuild(self, uptime_s: float) -> bool:
        """Write the new database; False when the store is broken instead. Nobody may write meanwhile."""
        if self._rebuilt_at is not None and uptime_s - self._rebuilt_at < self._params.salvage_every_s:
            self.writer.broken = "pages of the database were damaged again, soon after it was rebuilt"
            return False
        self._rebuilt_at = uptime_s
        try:
            self._take(store_salvage.rebuild(self._data_dir, self._node, self._clock.now_unix_s(), self._disk))
        except (OSError, apsw.Error, ConfigError) as error:
            self.writer.broken = f"the damaged database could not be rebuilt: {_reason(error)}"
            return False
        return True

    def swap(self) -> None:
        """Go on with what `rebuild` wrote. Nobody may read or write meanwhile. ConfigError when it cannot be used."""
        self.reader.close()
        self.writer.let_go()
        try:
            store_salvage.finish(self._data_dir, self._clock.now_unix_s(), self._disk)
            self.writer, self.reader = self._open()
        except (OSError, apsw.Error) as error:
            raise ConfigError(
                f"the rebuilt database cannot be used: {_reason(error)}", "look at the disk, start again"
            ) from None

    def tell(self, on_corrupt: Callable[[Address, DescriptorHash], None], on_lost: Callable[[int], None]) -> None:
        """Tell the news: each damaged part by name, then how much is gone without one."""
        news, self.news = self.news, []
        for salvaged in news:
            for address, descriptor_hash in () if salvaged is None else salvaged.corrupt:
                on_corrupt(Address(address), DescriptorHash(descriptor_hash))
            on_lost(0 if salvaged is None else salvaged.lost)

    def _salvage_now(self) -> None:
        now = self._clock.now_unix_s()
        self._take(store_salvage.rebuild(self._data_dir, self._node, now, self._disk))
        store_salvage.finish(self._data_dir, now, self._disk)

    def _take(self, salvaged: Salvaged) -> None:
        self.news.append(salvaged)
        self.salvaged += 1
        self.lost += salvaged.lost + len(salvaged.corrupt)

    def _is_ours(self) -> bool:
        return (self._data_dir / "STORE").exists()

    def _open(self) -> tuple[StoreWriter, StoreReader]:
        """DamagedDatabase, ConfigError, OSError."""
        with ExitStack() as opened:
            try:
                writing = store_schema.open_database(self._data_dir, self._node, self._disk)
                opened.callback(writing.close)
                files = BigFiles(self._data_dir, self._disk)
                files.prepare()
                reading = store_schema.connect(self._data_dir / store_schema.DATABASE)
                opened.callback(reading.close)
                reading.execute("PRAGMA query_only=ON")
                writer = StoreWriter(self._data_dir, writing, files, self._params, self._clock)
            except apsw.Error as error:
                if store_schema.is_damage(error):
                    raise store_schema.DamagedDatabase(f"a page of the database is damaged: {error}") from None
                raise
            opened.pop_all()
            return writer, StoreReader(reading, files, self._params, self._clock)


def _reason(error: Exception) -> str:
    """What went wrong, without the file: the name of a large one says whose it is."""
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
