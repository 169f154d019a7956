"""What those who were told know better is taken in: the one way in which a holder learns that it keeps something stale.

Every answer to TellHolders comes here, from pointer neighbours and from siblings alike. A tombstone of the owner buries
what it covers, so that what was deleted stays deleted when a holder comes back after a month, or when somebody replays
an old descriptor. A newer version drops what it replaces only when it stands at as many holders as make an update
durable: one signed descriptor, left by an update that was cut off, must never cost the version before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.repair import siblings_of, tellable
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, WallClock, settled
from lockbox_node.services.rebuilding import bury
from protocol.errors import RemoteProtocolError
from protocol.ids import Address, DescriptorHash, NodeId, address_of
from protocol.messages import FindHolders, Holders, HolderTable, Signed, TellHolders, Told
from protocol.records import Descriptor, Tombstone, descriptor_hash, open_descriptor, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lockbox_node.services.sources import Sources

LESSONS_MAX = 4096  # that wait; what does not fit is told again by the next renewal or comparison

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Why a told slot should not be here: the owner's tombstone, or its newer descriptor."""

    table: HolderTable
    proof: Signed
    buries: bool
    teacher: NodeId


class Lessons:
    """`counts`: buried, replaced (slots), unsettled (newer versions that are not durable yet), refused, overflow."""

    def __init__(self, store: ShardStore, sources: Sources, clock: WallClock) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._sources = sources
        self._clock = clock
        self._waiting: dict[tuple[bytes, bytes], _Lesson] = {}
        self._wake = trio.Event()

    def take(self, told: Told, tables: Sequence[HolderTable], teacher: NodeId) -> None:
        """Learn soon; never waits."""
        for lesson in _lessons(told, tables, teacher):
            key = (lesson.table.address, lesson.table.descriptor_hash)
            if len(self._waiting) >= LESSONS_MAX and key not in self._waiting:
                self.counts["overflow"] += 1
            else:
                self._waiting[key] = lesson
                self._wake.set()

    async def learn(self, told: Told, tables: Sequence[HolderTable], teacher: NodeId) -> None:
        """Learn now."""
        for lesson in _lessons(told, tables, teacher):
            await self._learn(lesson)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work on what was taken, until cancelled."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                await self._learn(self._waiting.pop(next(iter(self._waiting))))
                await trio.lowlevel.checkpoint()

    async def _learn(self, lesson: _Lesson) -> None:
        try:
            if lesson.buries:
                await bury(self._store, Address(lesson.table.address), lesson.proof, self._clock.now_unix_s())
                self.counts["buried"] += 1
            else:
                await self._replace(lesson)
        except RemoteProtocolError:
            self.counts["refused"] += 1
            log.warning("lesson.refused", node=lesson.teacher.hex()[:8])
        except LockboxError as error:
            log.info("lesson.failed", reason=str(error.code))

    async def _replace(self, lesson: _Lesson) -> None:
        table = lesson.table
        newer = open_descriptor(lesson.proof)
        if not await self._is_durable(newer, lesson):
            self.counts["unsettled"] += 1
            return
        address, replaced = Address(table.address), DescriptorHash(table.descriptor_hash)
        await settled(partial(self._store.drop, address, replaced))
        self.counts["replaced"] += 1

    async def _is_durable(self, newer: Descriptor, lesson: _Lesson) -> bool:
        """Whether enough of its holders say that they keep the newer version."""
        reply = await self._sources.ask(lesson.teacher, FindHolders(lesson.table.address))
        assert isinstance(reply, Holders), "the codec checked the type of the reply"
        wanted = descriptor_hash(lesson.proof)
        table = next((table for table in reply.tables if table.descriptor_hash == wanted), None)
        if table is None:
            return False
        entries = tellable(table.entries)
        told = HolderTable(lesson.table.address, newer.version, wanted, entries)
        held: list[NodeId] = []
        async with trio.open_nursery() as nursery:
            for node in siblings_of(entries, self._sources.members.own):
                nursery.start_soon(self._ask_one, node, told, held)
        return len(held) >= tier_numbered(newer.tier).durable_min

    async def _ask_one(self, node: NodeId, told: HolderTable, held: list[NodeId]) -> None:
        try:
            reply = await self._sources.ask(node, TellHolders([told], None))
        except (LockboxError, RemoteProtocolError):
            return
        assert isinstance(reply, Told), "the codec checked the type of the reply"
        if not reply.missing and not reply.tombstones:
            held.append(node)


def _lessons(told: Told, tables: Sequence[HolderTable], teacher: NodeId) -> Iterator[_Lesson]:
    """What concerns the told tables; signatures are checked when it is learned. Garbage is left out."""
    by_address: dict[bytes, list[HolderTable]] = {}
    for table in tables:
        by_address.setdefault(table.address, []).append(table)
    for signed in told.tombstones:
        try:
            tombstone = parse(signed, Tombstone)
        except RemoteProtocolError:
            continue
        for table in by_address.get(address_of(tombstone.public_key), []):
            if table.version <= tombstone.version:
                yield _Lesson(table, signed, True, teacher)
    for signed in told.newer:
        try:
            newer = parse(signed, Descriptor)
        except RemoteProtocolError:
            continue
        for table in by_address.get(address_of(newer.public_key), []):
            if table.version < newer.version and table.descriptor_hash in newer.replaces:
                yield _Lesson(table, signed, False, teacher)
