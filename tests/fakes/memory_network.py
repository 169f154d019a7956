"""A hub that remembers every dial and every stream, for tests that look at them; without time of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.errors import PeerUnreachable
from simulations.network import Hub
from simulations.streams import BUFFER_BYTES

if TYPE_CHECKING:
    from simulations.network import Link
    from simulations.streams import MemoryStream


class MemoryHub(Hub):
    """All hosts of one test, and the streams between them in the order of their dials."""

    def __init__(self, capacity: int = BUFFER_BYTES, delay_s: float = 0.0) -> None:
        super().__init__(capacity)
        self.dial_s = delay_s
        self.severed: set[frozenset[str]] = set()
        self.dials: list[tuple[str, str]] = []
        self.streams: list[tuple[MemoryStream, MemoryStream]] = []

    def dialled(self, source: str, target: str) -> None:
        """One more dial; PeerUnreachable when the link was severed."""
        self.dials.append((source, target))
        if frozenset((source, target)) in self.severed:
            raise PeerUnreachable("the link is severed")
        super().dialled(source, target)

    def sever(self, one: str, other: str) -> None:
        """Break the link between two hosts, and all that goes over it, for ever."""
        self.severed.add(frozenset((one, other)))
        for ours, theirs in self.streams:
            if {ours.peer_host, theirs.peer_host} == {one, other}:
                ours.lose()

    def opened(self, link: Link) -> None:
        """One more stream."""
        self.streams.append(link.ends)
        super().opened(link)
