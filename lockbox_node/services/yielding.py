"""Lets go of a part of our own once another holder has its index: it stands out of place, is one too many, or we drain.

In this order, so that a part is never dropped on hearsay, nor by two holders that trust each other's copy: from now on
we show it to no other node, whatever strangers tell our table, and say that we hold nothing; the other holder takes
that in, and shows the very shards that the owner signed, so it is not giving them away too; only then the part goes.
Whatever fails before that, we say again that we hold it; cut off in between, a sweep does. Source: DESIGN, Membership,
verification, healing.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.leaving import is_spare, seen_by, without_us
from lockbox_node.core.repair import Health, current_indices, is_named
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError, PeerUnreachable, StoreFull
from lockbox_node.ports import ShardStore, StripeSummary, settled
from lockbox_node.services.sources import Parts, Wanted, view_of
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import NO_INDEX, GetSlot, HolderTable, Slots, TellHolders
from protocol.records import descriptor_hash, open_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import SlotView, StripePart
    from lockbox_node.services.mending import Mender
    from protocol.ids import NodeId

LAST_WORD_S = 1.0  # to take back what was said, when the node stops

log = structlog.get_logger()


class Why(Enum):
    """Why a part should go, and what must be seen of the stripe before."""

    OUT_OF_PLACE = "it stands where the rules do not allow it, and every index stands elsewhere"
    SPARE = "another holder of its index stands better, and every index is in place"
    DRAINED = "the node is being drained; the others are no better or worse off for that"


class Yielder:
    """Holds no state; `mender` speaks for us, in the order in which things become true."""

    def __init__(self, store: ShardStore, mender: Mender) -> None:
        self._store = store
        self._mender = mender
        self._sources = mender.sources
        self._members = mender.sources.members

    async def let_go(
        self,
        summary: StripeSummary,
        why: Why = Why.OUT_OF_PLACE,
        wanted: Callable[[], bool] = lambda: True,
        heir: NodeId | None = None,
    ) -> bool:
        """Whether our part was dropped; False when it is not surplus, or not `wanted`, any more. LockboxError: not now.

        `wanted` is asked once more just before it goes. `heir` has taken our index from us; None = the table names one.
        """
        key, giving = (bytes(summary.address), bytes(summary.descriptor_hash)), self._mender.giving
        if key in giving:
            raise LockboxError("this part is being let go already", "wait for that", ErrorCode.BUSY)
        giving.add(key)
        try:
            return await self._let_go(summary, why, wanted, heir)
        finally:
            giving.discard(key)

    async def _let_go(self, summary: StripeSummary, why: Why, wanted: Callable[[], bool], heir: NodeId | None) -> bool:
        part = await self._part(summary)
        seen = None if part is None else self._surplus(summary, part, why)
        if part is None or seen is None:
            return False
        if why is not Why.DRAINED:
            await self._require_siblings(summary, seen)
        heir = heir or seen.live[summary.index][0]
        if heir not in seen.live[summary.index]:
            return False
        failure: LockboxError | RemoteProtocolError | None = None
        try:
            await self._require_proof(part, summary, heir)
        except (LockboxError, RemoteProtocolError) as error:
            failure = error
        except BaseException:  # the node stops; out of a nursery that comes as a group
            with trio.move_on_after(LAST_WORD_S, shield=True):  # what is not said now, a sweep after the start says
                await self._take_back(summary, part)
            raise
        if failure is None and wanted():
            await settled(partial(self._store.drop, summary.address, summary.descriptor_hash))
            log.info("repair.let_go", tier=tier_numbered(summary.tier).name, why=why.name.lower(), heir=heir.hex()[:8])
            return True
        await self._take_back(summary, part)
        if failure is not None:
            raise failure
        return False

    async def _require_siblings(self, summary: StripeSummary, seen: Health) -> None:
        """LockboxError unless all whose places make ours too many say themselves that they hold their index.

        Anybody may tell a table, so a line of it alone must not make us drop what we hold.
        """
        relied = {nodes[0]: index for index, nodes in seen.live.items() if index != summary.index}
        said: dict[NodeId, int] = {}
        async with trio.open_nursery() as nursery:
            for node in relied:
                nursery.start_soon(self._ask_index, summary, node, said)
        if said != relied:
            raise PeerUnreachable("not all whose places make ours too many say that they hold their index")

    async def _ask_index(self, summary: StripeSummary, node: NodeId, said: dict[NodeId, int]) -> None:
        try:
            reply = await self._sources.ask(node, GetSlot(summary.address, None))
        except (LockboxError, RemoteProtocolError) as error:
            log.info("repair.ask_failed", node=node.hex()[:8], reason=str(error.code))
            return
        assert isinstance(reply, Slots), "the codec checked the type of the reply"
        for state in reply.states:
            if descriptor_hash(state.descriptor) == summary.descriptor_hash:
                said[node] = state.index

    async def _require_proof(self, part: StripePart, summary: StripeSummary, heir: NodeId) -> None:
        """LockboxError unless the heir knows that we hold nothing, and shows our index after that."""
        await self._mender.say(summary, part.entries, NO_INDEX)
        told = (await self._part(summary) or part).entries
        ours = [entry for entry in told if entry.node == self._members.own and entry.index == NO_INDEX]
        if is_named(told, self._members.own) or not ours:
            raise StoreFull("the holder table has no room for our word", "it has when its oldest lines go")
        table = HolderTable(summary.address, summary.version, summary.descriptor_hash, ours)
        await self._sources.ask(heir, TellHolders([table], None))
        shown: Parts = {}
        wanted = Wanted(summary.address, summary.descriptor_hash, open_descriptor(part.descriptor))
        await self._sources.fetch_one(wanted, heir, shown)
        if summary.index not in shown:
            raise PeerUnreachable("the holder that has our index does not show it")
        now = await self._part(summary)
        if now is None or current_indices(now.entries).get(heir) != summary.index:
            raise PeerUnreachable("the holder that has our index says that it holds nothing")

    async def _take_back(self, summary: StripeSummary, part: StripePart) -> None:
        """That we hold nothing, by the table as it is now."""
        await self._mender.say(summary, (await self._part(summary) or part).entries, summary.index)

    async def _part(self, summary: StripeSummary) -> StripePart | None:
        view: SlotView = await settled(partial(self._store.look, summary.address))
        return next((part for part in view.parts if part.descriptor_hash == summary.descriptor_hash), None)

    def _surplus(self, summary: StripeSummary, part: StripePart, why: Why) -> Health | None:
        """The stripe, its heir the first holder of our index; None when our part has to stay."""
        tier, members = tier_numbered(summary.tier), self._members
        view = view_of(members, summary)
        now = replace(summary, entries=part.entries, corrupt=False)
        if why is Why.DRAINED:
            gone = without_us(now, tier, view)
            return gone if gone.live.get(summary.index) else None
        seen = seen_by(now, tier, view)
        wanted = seen.surplus if why is Why.OUT_OF_PLACE else is_spare(now, seen, members.own)
        return seen if wanted else None
