"""A partition of a test network: two sides that hear nothing of one another.

Here are the words of the command line and what they mean for each node; the daemons do the dropping
(adapters.parted_network). Nodes of neither side reach both, and so do clients unless they are put on one: all clients
come from CLIENT_HOST, all nodes from the addresses that they listen on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLIENT_HOST = "127.0.0.1"
SIDES = ("A", "B")


@dataclass(frozen=True, slots=True)
class Partition:
    """Who is on which side: names of nodes, and "A", "B" or None for the clients."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    client: str | None

    @classmethod
    def of(cls, a: str, b: str, client: str | None, nodes: Iterable[str]) -> Partition:
        """The words of `partition A B --client C`; `nodes` are the names that there are. UsageError."""
        known = list(nodes)
        first, second = _side("A", a, known), _side("B", b, known)
        both = [name for name in first if name in second]
        if both:
            raise UsageError(f"{both[0]!r} is on both sides", "name each node once")
        if client is not None and client not in SIDES:
            raise UsageError(f"{client!r} is no side of a partition", "--client A or --client B")
        return cls(first, second, client)

    def side_of(self, name: str) -> str | None:
        """ "A", "B" or None."""
        return "A" if name in self.a else "B" if name in self.b else None

    def parts(self, one: str, other: str) -> bool:
        """Whether these two nodes hear nothing of one another."""
        return {self.side_of(one), self.side_of(other)} == set(SIDES)

    def reach_clients(self, name: str) -> bool:
        """Whether this node hears clients."""
        return self.client is None or self.side_of(name) in (None, self.client)

    def orders(self, host_of: Callable[[str], str]) -> dict[str, list[str]]:
        """For the address of each node of a side, those whose segments it drops."""
        orders = {}
        for side, own, others in (("A", self.a, self.b), ("B", self.b, self.a)):
            dropped = [host_of(name) for name in others]
            if self.client not in (None, side):
                dropped.append(CLIENT_HOST)
            orders.update({host_of(name): dropped for name in own})
        return orders

    def described(self) -> dict[str, object]:
        """For scripts."""
        return {"a": list(self.a), "b": list(self.b), "client": self.client}

    def words(self) -> str:
        """For people."""
        clients = "clients reach both" if self.client is None else f"clients reach only {self.client}"
        return f"A = {', '.join(self.a)} and B = {', '.join(self.b)} do not hear one another; {clients}"


def _side(side: str, words: str, known: list[str]) -> tuple[str, ...]:
    if not words.strip(","):
        raise UsageError(f"side {side} names no node", "give names with commas: n01,n02 n03,n04")
    names = words.split(",")
    for name in names:
        if name not in known:
            raise UsageError(f"there is no node {name!r}", f"the nodes are {', '.join(known)}")
    return tuple(dict.fromkeys(names))
