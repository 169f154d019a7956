"""A journal in memory that outlives a node's lives; its host's power takes the last records with it."""

from __future__ import annotations

LOST_AT_MOST = 100  # records that the disk had not seen yet


class MemoryJournal:
    """ports.Journal."""

    def __init__(self) -> None:
        self.whole = True
        self._records: list[bytes] = []

    def append(self, record: bytes) -> None:
        """ports.Journal."""
        self._records.append(record)

    def kept(self) -> list[bytes]:
        """ports.Journal."""
        return list(self._records)

    def lose_power(self) -> None:
        """The end of it is gone, and the next life knows that."""
        del self._records[-LOST_AT_MOST:]
        self.whole = False

    def start(self) -> MemoryJournal:
        """What the next life opens: the same records, whole unless the power was lost before it."""
        opened = MemoryJournal()
        opened.whole, self.whole = self.whole, True
        opened._records = self._records
        return opened
