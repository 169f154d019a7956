"""Tells the 20 nearest nodes of an address who holds what stands there, so that a reader finds it through any of them.

The two nearest holders of a stripe tell, so that one dead or idle holder hides nothing; tables are gathered for half a
second and travel in batches. Every 12 h, and after somebody joined, all tables are told again, page by page: a pointer
lives 24 h. Every other holder tells the two nearest nodes alone, for what they answer: whether the slot was deleted or
replaced. What does not fit in the bounds waits or is dropped and counted; the next renewal makes up for it. Source:
DESIGN, Addresses and neighbourhoods.
"""

from __future__ import annotations

import heapq
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from lockbox_node.core.repair import tellable
from lockbox_node.core.storage_params import StorageParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import Answer, ShardStore, settled
from protocol.ids import NodeId, distance
from protocol.messages import HolderTable, Message, TellHolders, Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lockbox_node.rpc.pool import Contact

    Approach = Callable[[bytes], Awaitable[object]]
    OnTold = Callable[[Told, list[HolderTable], NodeId], None]

TELLERS = 2
APPROACHES_MAX = 8  # neighbourhoods looked up before one round of telling; the rest goes by the member table
APPROACH_S = 5.0  # for all of them
ASKED = 2  # nodes that a holder who is no teller asks whether its slot still stands


class Poster(Protocol):
    """The part of the pool that is used here."""

    def post(self, contact: Contact, request: Message, answer: Answer[Message], /) -> object:
        """Send without waiting; `answer` is called once."""
        ...


class PointerSpreader:
    """Gathers and sends holder tables. `counts`: told (tables x nodes), failed (requests), dropped (tables)."""

    def __init__(
        self,
        own: NodeId,
        pool: Poster,
        nearest_contacts: Callable[[bytes, int], list[Contact]],
        store: ShardStore,
        on_told: OnTold,
        params: StorageParams | None = None,
        approach: Approach | None = None,
    ) -> None:
        """`on_told` gets each answer, with the tables that it is about and who gave it; `approach` makes sure that who
        is nearest to an address is known.
        """
        self.counts: Counter[str] = Counter()
        self._own = own
        self._pool = pool
        self._nearest_contacts = nearest_contacts
        self._store = store
        self._on_told = on_told
        self._approach = approach
        self._params = params or StorageParams()
        self._pending: dict[tuple[bytes, bytes], HolderTable] = {}  # in the order of arrival
        self._in_flight = 0
        self._renew_at = 0.0
        self._wake = trio.Event()

    def on_stored(self, table: HolderTable) -> None:
        """A part of this table is durable here, or its table changed: tell soon."""
        key = (table.address, table.descriptor_hash)
        self._pending.pop(key, None)
        if len(self._pending) >= self._params.spread_pending_max:
            del self._pending[next(iter(self._pending))]
            self.counts["dropped"] += 1
        self._pending[key] = table
        self._wake.set()

    def on_joined(self) -> None:
        """Somebody joined: all tables are told again soon; joins within `joined_hold_s` share one round."""
        self._renew_at = min(self._renew_at, trio.current_time() + self._params.joined_hold_s)
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell until cancelled."""
        self._renew_at = trio.current_time() + self._params.joined_hold_s
        task_status.started()
        while True:
            with trio.move_on_at(self._renew_at):
                await self._wake.wait()
            await trio.sleep(self._params.spread_every_s)
            if trio.current_time() >= self._renew_at:
                await self._renew()
            await self._approach_pending()
            self._spread()
            if not self._pending:
                self._wake = trio.Event()

    async def _approach_pending(self) -> None:
        """Get to know the neighbourhoods of what is told first, where the member table cannot be relied on."""
        if self._approach is not None:
            with trio.move_on_after(APPROACH_S):
                for address, _ in list(self._pending)[:APPROACHES_MAX]:
                    await self._approach(address)

    async def _renew(self) -> None:
        """Walk through all held stripes, a page a round."""
        self._renew_at = trio.current_time() + self._params.renew_every_s
        after, limit = b"", self._params.renew_page
        while True:
            try:
                page = await settled(partial(self._store.summaries, after, limit))
            except LockboxError:  # the store is busy or closing: the walk starts again later
                self._renew_at = trio.current_time() + self._params.joined_hold_s
                return
            for held in page:
                if not held.trashed:
                    entries = tellable(held.entries)
                    self.on_stored(HolderTable(held.address, held.version, held.descriptor_hash, entries))
            if len(page) < limit:
                return
            after = page[-1].address + page[-1].descriptor_hash
            self._spread()
            await trio.sleep(self._params.spread_every_s)

    def _spread(self) -> None:
        """Send what is pending, as far as the bound on requests in flight allows."""
        contacts: dict[bytes, Contact] = {}
        batches: dict[bytes, list[HolderTable]] = {}
        size, requests = self._params.spread_batch_max, 0
        for key in list(self._pending):
            table = self._pending[key]
            targets = self._targets(table)
            more = sum(len(batches.get(contact.node, ())) % size == 0 for contact in targets)  # a batch begins there
            if (batches or self._in_flight) and self._in_flight + requests + more > self._params.spread_posts_max:
                break  # the rest waits for the next round
            del self._pending[key]
            requests += more
            for contact in targets:
                contacts[contact.node] = contact
                batches.setdefault(contact.node, []).append(table)
        for node, tables in batches.items():
            for start in range(0, len(tables), size):
                self._tell(contacts[node], tables[start : start + size])

    def _targets(self, table: HolderTable) -> list[Contact]:
        """The two nearest holders tell all neighbours that hold nothing; the others ask the two nearest nodes."""
        holders = {entry.node for entry in table.entries}
        tellers = heapq.nsmallest(TELLERS, holders, key=lambda node: distance(node, table.address))
        if self._own not in tellers:
            return self._nearest_contacts(table.address, ASKED)
        nearest = self._nearest_contacts(table.address, self._params.neighbours)
        return [contact for contact in nearest if contact.node not in holders]

    def _tell(self, contact: Contact, tables: list[HolderTable]) -> None:
        def told(result: Message | LockboxError) -> None:
            self._in_flight -= 1
            if isinstance(result, LockboxError):
                self.counts["failed"] += 1
            else:
                self.counts["told"] += len(tables)
                if isinstance(result, Told):
                    self._on_told(result, tables, contact.node)

        self._in_flight += 1
        self._pool.post(contact, TellHolders(tables, None), told)
