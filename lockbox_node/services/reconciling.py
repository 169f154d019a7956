"""A holder compares what it holds with each sibling, so that whoever lost, missed or kept something wrong finds out.

A pass over the summaries checks the store's own digests; then each sibling that lives is sent the digests of what both
should hold, and told the tables of the buckets that differ. Its answer teaches us (`Lessons`); what it lacks it fetches
itself. Nothing is kept between two siblings: the digests of one are counted by the store when its turn comes, for at
most `in_flight_max` at once. A restored node answers for its parts only after it has asked everybody who
lives. Source: DESIGN, Storage; SPEC.md, Held digests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.core.held_cells import Cells, start_of
from lockbox_node.core.reconcile import Life, ReconcileParams, Rounds
from lockbox_node.core.repair import is_named, tellable
from lockbox_node.core.twins import life_of
from lockbox_node.errors import LockboxError
from lockbox_node.ports import ShardStore, settled
from protocol.errors import RemoteProtocolError
from protocol.held import bucket_of
from protocol.messages import (
    TABLES_MAX,
    TOLD_NEWER_MAX,
    BucketDigest,
    CompareHeld,
    Differing,
    HolderTable,
    TellHolders,
    Told,
)

if TYPE_CHECKING:
    from random import Random

    from lockbox_node.ports import StripeSummary
    from lockbox_node.services.lessons import Lessons
    from lockbox_node.services.mending import Mender
    from lockbox_node.services.sources import Sources
    from protocol.ids import NodeId

PAGE = TABLES_MAX // 2
TICK_S = 5.0  # how often we look who has come to life
RESTORED = "restored"  # the note that a restore leaves in the store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RestoredFigures:
    """What a restored node found about itself."""

    checked: int  # parts that were compared
    dropped: int  # deleted or replaced since the backup
    missing: int  # held here after the backup was made, by the word of the siblings
    mended: int


@dataclass(frozen=True, slots=True)
class SiblingFigures:
    """How far the comparison with the others is: with `waiting` 0 and nothing differing, siblings hold the same."""

    compared: int  # comparisons that came to their end since the start
    waiting: int  # nodes that live and were not compared since the last pass
    differing: int  # buckets that differed, in all comparisons since the start


class Reconciler:
    """One per node. `counts`: passes, parts (of the last pass), compared, failed, differing, told, missing."""

    def __init__(
        self,
        store: ShardStore,
        sources: Sources,
        lessons: Lessons,
        mender: Mender,
        params: ReconcileParams,
        rng: Random,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.digest_mismatches = 0  # buckets whose books and rows differ for good: index damage
        self.unconfirmed = bool(store.notes.get(RESTORED))  # restored, and the siblings are still being asked
        self._was_restored = self.unconfirmed
        self._store = store
        self._sources = sources
        self._lessons = lessons
        self._mender = mender
        self._params = params
        self._rounds = Rounds(params, rng)
        self._ask_all = False  # also those with whom we seem to share nothing: we lost what we do not know
        self._lacking = 0  # parts of ours that siblings found missing

    def missing(self) -> None:
        """A sibling told of a part that we should hold and do not."""
        self._lacking += 1

    def differs(self, node: NodeId) -> None:
        """A sibling that compared itself with us keeps something else: it may lack what it cannot name."""
        self._rounds.differs(node, trio.current_time())

    def lost(self) -> None:
        """The store lost parts without a name: everybody hears what is left, and comes with what is not."""
        self._ask_all = True
        self._rounds.pass_soon()

    @property
    def restored(self) -> RestoredFigures | None:
        """What was found since the start, of a node that was restored before it."""
        if not self._was_restored:
            return None
        learned = self._lessons.counts
        dropped = learned["buried"] + learned["replaced"]
        return RestoredFigures(self.counts["parts"], dropped, self._lacking, self._mender.counts["mended"])

    @property
    def siblings(self) -> SiblingFigures:
        """Where the comparisons stand."""
        waiting = len(self._rounds.waiting(self._lives()))
        return SiblingFigures(self.counts["compared"], waiting, self.counts["differing"])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compare until cancelled."""
        began = trio.current_time()
        rounds = self._rounds
        task_status.started()
        await trio.sleep(self._params.first_s)
        while True:
            if rounds.next_pass_at <= trio.current_time():
                await self._pass(rounds)
            await self._compare_due(rounds)
            self._ask_all = self._ask_all and bool(rounds.waiting(self._lives()))
            if self.unconfirmed and self.counts["passes"]:
                late = trio.current_time() >= began + self._params.restored_wait_s
                if late or not rounds.waiting(self._lives()):
                    await self._confirm(len(rounds.waiting(self._lives())))
            await trio.sleep(min(TICK_S, self._params.every_s))

    def _lives(self) -> dict[NodeId, Life]:
        members = self._sources.members
        return {node: life_of(record) for node, record in members.alive().items() if node != members.own}

    async def _confirm(self, unreached: int) -> None:
        """From now on we answer for our parts; what was stale is gone."""
        try:
            await settled(partial(self._store.note, RESTORED, b""))
        except LockboxError as error:
            log.warning("restored.not_noted", reason=str(error.code))
            return
        self.unconfirmed = False
        found = self.restored
        assert found is not None
        log.info(
            "restored.confirmed",
            checked=found.checked, dropped=found.dropped, missing=found.missing, mended=found.mended,
            unreached=unreached,
        )  # fmt: skip

    # A pass

    async def _pass(self, rounds: Rounds) -> None:
        cells, parts, after = Cells(), 0, b""
        try:
            before = await self._digests()
            while True:
                page = await self._page(after)
                for summary in page:
                    if not summary.trashed:
                        parts += 1
                        cells.add(summary.address, summary.version, summary.descriptor_hash)
                if len(page) < PAGE:
                    break
                after = page[-1].address + page[-1].descriptor_hash
            for bucket in cells.mismatches(before, await self._digests()):
                await self._recount(bucket)
        except LockboxError as error:
            log.warning("reconcile.pass_failed", reason=str(error.code))
            rounds.pass_failed(trio.current_time())
            return
        self.counts["passes"] += 1
        self.counts["parts"] = parts
        rounds.passed(trio.current_time())

    async def _page(self, after: bytes) -> list[StripeSummary]:
        await trio.sleep(self._params.pace_s)
        return await settled(partial(self._store.summaries, after, PAGE))

    async def _digests(self) -> list[BucketDigest]:
        return await settled(self._store.digests)

    async def _recount(self, bucket: int) -> None:
        """Once more, for what a write in passing may have made differ."""
        before, cells, after = await self._digests(), Cells(), start_of(bucket)
        while True:
            page = await self._page(after)
            inside = [summary for summary in page if bucket_of(summary.address) == bucket]
            for summary in inside:
                if not summary.trashed:
                    cells.add(summary.address, summary.version, summary.descriptor_hash)
            if len(inside) < PAGE:
                break
            after = page[-1].address + page[-1].descriptor_hash
        if bucket in cells.mismatches(before, await self._digests()):
            self.digest_mismatches += 1
            log.error("store.digest_mismatch", bucket=bucket)

    # A comparison

    async def _compare_due(self, rounds: Rounds) -> None:
        """Everybody who is due, `in_flight_max` at once."""
        lives = self._lives()
        due = rounds.due(lives, trio.current_time())
        async with trio.open_nursery() as nursery:
            lanes = trio.CapacityLimiter(self._params.in_flight_max)
            for node in due:
                await lanes.acquire_on_behalf_of(node)
                nursery.start_soon(self._compare_one, node, lives[node], rounds, lanes)

    async def _compare_one(self, node: NodeId, life: Life, rounds: Rounds, lanes: trio.CapacityLimiter) -> None:
        try:
            complete = await self._compare(node)
        except (LockboxError, RemoteProtocolError) as error:
            log.info("reconcile.failed", node=node.hex()[:8], reason=str(error.code))
            complete = False
        finally:
            lanes.release_on_behalf_of(node)
        if complete:
            rounds.compared(node, life, trio.current_time())
        else:
            rounds.failed(node, trio.current_time())
        self.counts["compared" if complete else "failed"] += 1

    async def _compare(self, node: NodeId) -> bool:
        """Whether there is no more to tell; at once for a node that no table of ours names."""
        ours = await settled(partial(self._store.digests_with, node))
        if not ours and not self._ask_all:
            return True
        reply = await self._sources.ask(node, CompareHeld(ours))
        assert isinstance(reply, Differing), "the codec checked the type of the reply"
        self.counts["differing"] += len(reply.buckets)
        complete, batch = True, list[HolderTable]()
        differing = frozenset(reply.buckets)
        wanted = sorted(differing)
        after = start_of(wanted[0]) if wanted else None
        while after is not None:
            page = await self._page(after)
            for summary in page:
                if not summary.trashed and bucket_of(summary.address) in differing and is_named(summary.entries, node):
                    entries = tellable(summary.entries)
                    batch.append(HolderTable(summary.address, summary.version, summary.descriptor_hash, entries))
            after = _next_key(page, wanted)
            if batch and (after is None or len(batch) + PAGE > TABLES_MAX):
                complete &= await self._tell(node, batch)
                batch = []
        return complete

    async def _tell(self, node: NodeId, tables: list[HolderTable]) -> bool:
        """Whether the answer held all that there was to say."""
        reply = await self._sources.ask(node, TellHolders(tables, None))
        assert isinstance(reply, Told), "the codec checked the type of the reply"
        self.counts["told"] += len(tables)
        self.counts["missing"] += len(reply.missing)
        await self._lessons.learn(reply, tables, node)
        await trio.sleep(self._params.pace_s)
        return len(reply.newer) < TOLD_NEWER_MAX


def _next_key(page: list[StripeSummary], wanted: list[int]) -> bytes | None:
    """Where to read on after a page, leaping over buckets that nobody asked for; None at the end."""
    if len(page) < PAGE:
        return None
    last = bucket_of(page[-1].address)
    place = bisect_left(wanted, last)
    if place == len(wanted):
        return None
    key = page[-1].address + page[-1].descriptor_hash
    return key if wanted[place] == last else start_of(wanted[place])
