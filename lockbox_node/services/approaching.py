"""Before a node speaks to a neighbourhood: is the member table enough, or must the nearest be looked up first.

While membership is incomplete, or larger than can be relied on, whoever lives nearest to an address may be missing from
the table. A lookup finds them, and what it found becomes members like any others: every choice is still made from the
one table. An address is looked up once in a while only, with more paths when the last time found nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import trio

from lockbox_node.services.lookups import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.services.discovery import Discovery
    from lockbox_node.services.lookups import Lookups
    from protocol.messages import Signed

AGAIN_S = 600.0  # how long what was found near one address is good enough
REMEMBERED_MAX = 4096  # addresses
SEEDS = 40


class Members(Protocol):
    """The part of the membership service that is used here."""

    @property
    def complete(self) -> bool:
        """Whether some node's whole table was read, or there is none to read."""
        ...

    def learn(self, signed: Signed, /) -> None:
        """Take a record into the member table."""
        ...


class Approaching:
    """Looks up neighbourhoods for a node. `members` is read when it is needed: it is made after this."""

    def __init__(
        self,
        lookups: Lookups,
        discovery: Discovery,
        members: Callable[[], Members],
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._lookups, self._discovery, self._members = lookups, discovery, members
        self._remembered_max = remembered_max
        self._done: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()  # oldest first -> when, found somebody

    async def approach(self, address: bytes) -> bool:
        """Make sure that the nearest to `address` are members; whether they had to be looked up."""
        if not self._lookups.needed(len(self._discovery.alive()), self._members().complete):
            return False
        now = trio.current_time()
        when, found_some = self._done.get(address, (-AGAIN_S, True))
        if found_some and now < when + AGAIN_S:
            return False
        found = await self._lookups.find(address, self._seeds(address), again=not found_some)
        for one in found:
            self._members().learn(one.signed)
        self._done[address] = (trio.current_time(), bool(found))
        self._done.move_to_end(address)
        if len(self._done) > self._remembered_max:
            self._done.popitem(last=False)
        return True

    def _seeds(self, address: bytes) -> list[Known]:
        """Who has answered us, then who is said to live: nearest first."""
        discovery = self._discovery
        records = discovery.alive()
        answered = [node for node in discovery.nearest_answered(address, SEEDS // 2) if node in records]
        nodes = dict.fromkeys([*answered, *discovery.nearest_nodes(address, SEEDS - len(answered))])
        return [Known(discovery.signed(node), records[node]) for node in nodes if node != discovery.own]
