"""Who holds what stands at an address: holder tables from several nodes, merged.

Placement places; it never finds: views differ, so readers follow holder tables. At least FIRST_ANSWERS nodes of
distinct operators are heard before anybody is believed, and a miss ends only at the MISS_NODES nearest. Every answer
counts towards "this is the newest" (`tier.current_answers`), also one that comes while shards are already fetched.
Source: DESIGN, Addresses and neighbourhoods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.survey import Survey
from lockbox_node.errors import AssetNotFound, PeerUnreachable
from protocol.errors import RemoteProtocolError
from protocol.ids import address_of
from protocol.messages import NO_INDEX, SIBLINGS_MAX, FindHolders, HolderEntry, Holders, HolderTable, Message, Signed
from protocol.records import open_tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lockbox_node.client.members import Member
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

FIRST_ANSWERS = 3
OPERATORS_ASKED = FIRST_ANSWERS + 2
MISS_NODES = 20
MISS_REGIONS = 3
VERSIONS_MAX = MISS_NODES * SIBLINGS_MAX  # slot identities kept per address: all that so many answers can name


@dataclass(slots=True)
class SlotTable:
    """Who holds one slot identity: (shard index, node id) -> sequence; `told_by` = the nodes that named it."""

    version: int
    descriptor_hash: bytes
    holders: dict[tuple[int, bytes], int] = field(default_factory=dict)
    told_by: set[bytes] = field(default_factory=set)

    @property
    def credible(self) -> bool:
        """Two nodes say so: one alone can invent any number of versions, and cost us a wait for each."""
        return len(self.told_by) > 1

    def is_sibling(self, asset: AssetEntry) -> bool:
        """Whether this is another asset: of that address and version, locked by a machine with the same words."""
        return self.version == asset.version and self.descriptor_hash != asset.descriptor_hash

    def merge(self, entries: Iterable[HolderEntry]) -> None:
        """Take table lines; the higher sequence wins. Who is said to have lost its part is found out by asking it."""
        for entry in entries:
            if entry.index == NO_INDEX:
                continue
            place = (entry.index, entry.node)
            if self.holders.get(place, -1) < entry.sequence:
                self.holders[place] = entry.sequence


class Presence(Enum):
    """What is known of an address."""

    STANDS = "something stands here"
    BURIED = "it was deleted"
    ABSENT = "most of the nearest nodes say that nothing stands here"
    UNKNOWN = "too few of the nearest nodes answer"


class Finding:
    """All that was heard about one address."""

    def __init__(self, vault: Vault, address: bytes) -> None:
        self.address = address
        self._vault = vault
        self._tables: dict[tuple[int, bytes], SlotTable] = {}
        self.tombstone_version = -1
        self._absent: set[bytes] = set()
        self._near = vault.members.nearest_verified(address, MISS_NODES, trio.current_time())
        order = vault.members.distinct_operators(self._near, FIRST_ANSWERS)
        self.survey = Survey(vault, FindHolders(address), order, self._take)

    @property
    def answers(self) -> int:
        """How many nodes have told us what stands here."""
        return len(self.survey.answered)

    def tables(self) -> list[SlotTable]:
        """Slot identities that no tombstone covers: those that several nodes name first, of them the newest version,
        the most held of a version first.
        """
        standing = [table for table in self._tables.values() if table.version > self.tombstone_version]
        return sorted(
            standing,
            key=lambda table: (not table.credible, -table.version, -len(table.holders), table.descriptor_hash),
        )

    def table(self, version: int, descriptor_hash: bytes) -> SlotTable | None:
        """The table of one slot identity."""
        return self._tables.get((version, descriptor_hash))

    @property
    def named(self) -> frozenset[bytes]:
        """Every node that any table names, what a tombstone covers included."""
        return frozenset(node for table in self._tables.values() for _, node in table.holders)

    @property
    def near(self) -> frozenset[bytes]:
        """The MISS_NODES nearest nodes: who is asked, and who keeps pointers and tombstones."""
        return frozenset(member.record.node for member in self._near)

    @property
    def presence(self) -> Presence:
        """The verdict so far.

        A miss needs "absent" from most of the MISS_NODES nearest, in at least MISS_REGIONS regions or in all there are.
        """
        if self.tables():
            return Presence.STANDS
        if self.tombstone_version >= 0:
            return Presence.BURIED
        members = self._vault.members
        absent = [member for node in self._absent if (member := members.get(node)) is not None]
        regions, possible = self._regions(absent), self._regions(self._near)
        sure = 2 * len(self._absent) > len(self._near) > 0 and len(regions) >= min(MISS_REGIONS, len(possible))
        return Presence.ABSENT if sure else Presence.UNKNOWN

    def _regions(self, members: Iterable[Member]) -> set[str]:
        """Where they stand; all that name no region of the network stand in one, so that nobody invents many."""
        known = self._vault.regions
        return {member.record.region if member.record.region in known else "" for member in members}

    async def hear_all(self) -> None:
        """Ask all of the nearest nodes; return when FIRST_ANSWERS know of something or most know of nothing."""

        def enough() -> bool:
            if self.presence is Presence.UNKNOWN:
                return False
            return self.presence is Presence.ABSENT or self.answers - len(self._absent) >= FIRST_ANSWERS

        await self.hear_until(enough)

    async def hear_until(self, enough: Callable[[], bool]) -> None:
        """Ask all of the nearest nodes; return when `enough()`, all have answered, or the time is over."""
        params = self._vault.params
        deadline = trio.current_time() + params.find_s
        self.survey.ask(MISS_NODES)
        await self.survey.until(enough, deadline, params.hedge_find_s)

    async def hear_everybody(self, patience_s: float) -> None:
        """Ask all of the nearest nodes; return when all have answered, or after `patience_s`."""
        self.survey.ask(MISS_NODES)
        deadline = trio.current_time() + patience_s
        await self.survey.until(lambda: False, deadline, self._vault.params.hedge_find_s)

    async def hear_of(self, asset: AssetEntry) -> None:
        """Hear more nodes where those that have answered know of siblings of `asset` only, or of older versions."""

        def knows() -> bool:
            return any(table.version >= asset.version and not table.is_sibling(asset) for table in self.tables())

        if not knows():
            await self.hear_until(knows)

    async def first(self, current_answers: int) -> None:
        """Ask enough nodes and return as soon as FIRST_ANSWERS have answered, of as many operators as there are of
        these, and something was found. Of twice as many as are asked, those that will answer soonest.

        AssetNotFound when the nearest nodes say that nothing stands here, PeerUnreachable when too few say anything.
        """
        params = self._vault.params
        deadline = trio.current_time() + params.find_s
        survey, count = self.survey, max(FIRST_ANSWERS, current_answers)
        survey.reorder(self._soonest(count))
        survey.ask(count)
        soon = trio.current_time() + params.first_s
        await survey.until(self._heard_enough, soon, params.hedge_find_s)
        if not self.tables():
            survey.ask(MISS_NODES)
            await survey.until(lambda: bool(self.tables()), deadline, params.hedge_find_s)
        if not self.tables():
            raise self._nothing()

    async def settle(self, current_answers: int) -> bool:
        """Whether `current_answers` nodes were heard, after a short wait for the missing ones."""
        params = self._vault.params
        deadline = trio.current_time() + params.hedge_find_s
        await self.survey.until(lambda: self.answers >= current_answers, deadline, params.hedge_find_s)
        return self.answers >= current_answers

    def _soonest(self, count: int) -> list[Member]:
        """Live ones, soon to answer, of more operators than must be heard: some may be silent."""
        vault, among, now = self._vault, 2 * count, trio.current_time()

        def rank(member: Member) -> tuple[bool, float]:
            return not vault.members.is_live(member.record.node, now), vault.expected_s(member)

        order = [*sorted(self._near[:among], key=rank), *self._near[among:]]
        return vault.members.distinct_operators(order, OPERATORS_ASKED)

    def _heard_enough(self) -> bool:
        if self.answers < FIRST_ANSWERS:
            return False
        heard = {member.record.operator for member in self._near if member.record.node in self.survey.answered}
        return len(heard) >= min(FIRST_ANSWERS, len({member.record.operator for member in self._near}))

    def _nothing(self) -> AssetNotFound | PeerUnreachable:
        if self.tombstone_version >= 0:
            return AssetNotFound("this asset was deleted", "`lockbox list` shows the assets of this wallet")
        if self.presence is Presence.ABSENT:
            return AssetNotFound(
                f"the {self.answers} nodes nearest to this asset that answer know nothing of it",
                "check that wallet and network belong together; `lockbox recover` scans for every asset",
            )
        return PeerUnreachable(
            f"only {self.answers} of the {len(self._near)} nodes near this asset answer",
            "check the connection, then try again",
        )

    def _take(self, node: bytes, reply: Message) -> None:
        assert isinstance(reply, Holders)  # the codec gives the reply type of the request
        if reply.nearest:
            self._vault.members.take_records(reply.nearest)
        self.bury(reply.tombstone)
        if not reply.tables and reply.tombstone is None:
            self._absent.add(node)
        for table in reply.tables:
            self._merge(node, table)

    def _merge(self, node: bytes, table: HolderTable) -> None:
        identity = (table.version, table.descriptor_hash)
        if table.address != self.address or (identity not in self._tables and len(self._tables) >= VERSIONS_MAX):
            return
        known = self._tables.setdefault(identity, SlotTable(*identity))
        known.merge(table.entries)
        known.told_by.add(node)

    def bury(self, signed: Signed | None) -> None:
        """Take a tombstone that came with an answer, if one did."""
        if signed is not None:
            self.tombstone_version = max(self.tombstone_version, tombstone_version(signed, self.address))


async def found(vault: Vault, address: bytes, current_answers: int) -> Finding:
    """What stands at `address`, as `Finding.first`; where the view is too small to go by, looked up, twice if need be.

    AssetNotFound, PeerUnreachable.
    """
    looked_up = await vault.approach(address)
    finding = Finding(vault, address)
    try:
        await finding.first(current_answers)
    except (AssetNotFound, PeerUnreachable):
        if finding.tombstone_version >= 0 or not looked_up:
            raise
    else:
        return finding
    await vault.approach(address, again=True)
    finding = Finding(vault, address)
    await finding.first(current_answers)
    return finding


def tombstone_version(signed: Signed, address: bytes) -> int:
    """The version up to which `signed` deletes what stands at `address`; -1 when it is no tombstone of this address."""
    try:
        tombstone = open_tombstone(signed)
    except RemoteProtocolError:
        return -1
    return tombstone.version if address_of(tombstone.public_key) == address else -1
