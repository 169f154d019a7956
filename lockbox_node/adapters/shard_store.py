"""ShardStore on SQLite and large files: bounded queues, one writer task, one reader task, group commit.

Every method queues and returns; the writer task takes all that waits (up to a group), runs it in one thread hop and one
transaction, and calls the answers on the trio thread only after the commit. So 32 puts in flight share one flush, and
no task per request exists. When a queue is full the answer is BUSY at once. Layout, transaction rules and damage:
store_schema, store_files, store_writer, store_reader.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from lockbox_node.adapters import store_reader, store_requests, store_schema
from lockbox_node.adapters.disk import DISK, Disk
from lockbox_node.adapters.kept_thread import KeptThread
from lockbox_node.adapters.store_opening import Handles
from lockbox_node.adapters.store_queue import RequestQueue
from lockbox_node.adapters.store_requests import Quarantine, Write, closing, too_much
from lockbox_node.core.gathering import Gathering
from lockbox_node.core.slots import corrupt_part
from lockbox_node.errors import ConfigError
from lockbox_node.ports import fitting_note
from protocol.ids import Address, DescriptorHash, NodeId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lockbox_node.adapters.store_changes import Result
    from lockbox_node.adapters.store_writer import StoreWriter
    from lockbox_node.core.storage_params import StoreParams
    from lockbox_node.ports import (
        Answer,
        Checked,
        Merged,
        Owner,
        PutOutcome,
        SlotView,
        StoreFigures,
        StripePart,
        StripeSummary,
        WallClock,
    )
    from protocol.messages import BucketDigest, HolderTable, Signed

T = TypeVar("T")
HOUSEKEEPING_S = 600.0  # expired pointers go at least this often, without any write


class ShardStoreFile:
    """The store of one data_dir. `on_corrupt` and `on_broken` are called on the trio thread."""

    def __init__(self, params: StoreParams, handles: Handles, lock: int) -> None:
        self.on_corrupt: Callable[[Address, DescriptorHash], None] = lambda _address, _hash: None
        self.on_broken: Callable[[str], None] = lambda _why: None
        self.on_lost: Callable[[int], None] = lambda _lost: None
        self._params = params
        self._handles = handles
        self._lock = lock
        self._closed = False
        self._told_broken = False
        self._figures = handles.figures()
        self._writes = RequestQueue[Write](Gathering(params.gather_write_s, params.gather_enough))
        self._write_bytes = 0
        self._reads = RequestQueue[store_reader.Read](Gathering(params.gather_read_s, params.gather_enough))
        self._doubted: set[tuple[bytes, bytes]] = set()  # quarantines on their way
        self.holds = 0  # while above zero no file goes away: a backup is about to link it
        self._write_thread: KeptThread | None = None  # while `run` runs
        self._read_thread: KeptThread | None = None
        self._writing = False
        self._salvaging = trio.Lock()

    @classmethod
    def open(
        cls, data_dir: Path, params: StoreParams, clock: WallClock, node: bytes = b"", *, disk: Disk = DISK
    ) -> ShardStoreFile:
        """Open or make the store in `data_dir`, which exists. ConfigError says why it cannot be used.

        With `node`, a store that was opened for another node is refused, and a new one is bound to it.

        No scan: the counters stand in the database, a WAL left by a crash replays itself.
        """
        lock = store_schema.lock(data_dir)
        try:
            handles = Handles(data_dir, params, clock, node, disk)
        except OSError as error:
            os.close(lock)
            raise ConfigError(f"{data_dir} cannot be used: {error.strerror}", "check its owner and mode") from None
        except BaseException:
            os.close(lock)
            raise
        return cls(params, handles, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def _writer(self) -> StoreWriter:
        return self._handles.writer

    @property
    def _reader(self) -> store_reader.StoreReader:
        return self._handles.reader

    # ShardStore

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """Store one part: ports.ShardStore.put."""
        self._queue_write(store_requests.Put(part, tuple(replaces), owner), answer)

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """The part, verified in this call: ports.ShardStore.get."""
        self._queue_read(store_reader.Get(address, descriptor_hash), answer)

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """What stands at the address. A corrupt part is listed while its descriptor and slots are good."""
        self._queue_read(store_reader.Look(address), answer)

    def merge(
        self,
        tables: Sequence[HolderTable],
        held_only: Sequence[HolderTable],
        answer: Answer[Merged],
        *,
        first: bool = False,
    ) -> None:
        """Merge holder tables: ports.ShardStore.merge."""
        self._queue_write(store_requests.Merge(tuple(tables), tuple(held_only), first), answer)

    def renew(
        self,
        renewal: Signed,
        address: Address,
        descriptor_hash: DescriptorHash,
        lease_until_unix_s: int,
        answer: Answer[None],
    ) -> None:
        """Lengthen the lease of a held part: ports.ShardStore.renew."""
        self._queue_write(store_requests.Renew(renewal, address, descriptor_hash, lease_until_unix_s), answer)

    def delete(
        self, tombstone: Signed, address: Address, version: int, until_unix_s: int, answer: Answer[None]
    ) -> None:
        """Remove all versions up to `version`: ports.ShardStore.delete."""
        self._queue_write(store_requests.Bury(tombstone, address, version, until_unix_s), answer)

    def drop(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[None]) -> None:
        """Remove one replaced part: ports.ShardStore.drop."""
        self._queue_write(store_requests.Drop(address, descriptor_hash), answer)

    def expire(self, now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        """Some ended leases go to trash: ports.ShardStore.expire."""
        self._queue_write(store_requests.Expire(now_unix_s, uptime_s), answer)

    def empty_trash(self, before_uptime_s: float, answer: Answer[int]) -> None:
        """Some of the trash goes for good: ports.ShardStore.empty_trash."""
        self._queue_write(store_requests.EmptyTrash(before_uptime_s), answer)

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """A page of held stripes, at most `scan_rows_max`: ports.ShardStore.summaries."""
        self._queue_read(store_reader.Scan(after, limit), answer)

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """Held stripes whose table names `node`: ports.ShardStore.held_with."""
        self._queue_read(store_reader.HeldWith(node), answer)

    def check(self, after: bytes, limit: int, answer: Answer[Checked]) -> None:
        """One step of a scrub, at most `check_bytes_max`: ports.ShardStore.check."""
        self._queue_read(store_reader.Check(after, limit), answer)

    def digests(self, answer: Answer[list[BucketDigest]]) -> None:
        """All digests: ports.ShardStore.digests."""
        self._queue_write(store_requests.Digests(), answer)

    def digests_with(self, node: NodeId, answer: Answer[list[BucketDigest]]) -> None:
        """Digests of what is shared with `node`: ports.ShardStore.digests_with."""
        self._queue_read(store_reader.DigestsWith(node), answer)

    def note(self, name: str, value: bytes, answer: Answer[None]) -> None:
        """Keep a small value: ports.ShardStore.note."""
        self._queue_write(store_requests.Note(name, fitting_note(value)), answer)

    @property
    def notes(self) -> Mapping[str, bytes]:
        """What was noted."""
        return self._writer.notes

    def figures(self) -> StoreFigures:
        """Current counts, from memory."""
        return self._figures

    @property
    def epoch(self) -> int:
        """How many lives this store has had: it rises with every start and every restore."""
        return self._writer.epoch

    @property
    def broken(self) -> str:
        """Why the store is read-only; '' while it is well."""
        return self._writer.broken

    # Life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then everything that waits is answered with an error and the store is closed."""
        with KeptThread("store writer") as self._write_thread, KeptThread("store reader") as self._read_thread:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_loop)
                    nursery.start_soon(self._read_loop)
                    self._handles.tell(self.on_corrupt, self.on_lost)
                    task_status.started()
            finally:
                self.close()

    def close(self) -> None:
        """Refuse what waits, checkpoint, close, let the lock go. For a store whose `run` has ended or never began."""
        if self._closed:
            return
        self._closed = True
        for answer in [*self._writes.clear(), *self._reads.clear()]:
            answer(closing())
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    async def housekeeping_ended(self) -> None:
        """Return when none is under way; with `holds` set before, none begins."""
        async with self._salvaging:
            if self._write_thread is not None:
                await self._hop(lambda: None)

    # Queues

    def _queue_write(self, request: Write, answer: Answer[T]) -> None:
        if self._closed:
            return answer(closing())
        full = len(self._writes) >= self._params.write_queue_max
        if full or (self._writes and self._write_bytes + request.weight > self._params.write_queue_bytes_max):
            return answer(too_much())
        self._write_bytes += request.weight
        return self._writes.append(request, answer)

    def _queue_read(self, request: store_reader.Read, answer: Answer[T]) -> None:
        if self._closed:
            return answer(closing())
        if len(self._reads) >= self._params.read_queue_max:
            return answer(too_much())
        return self._reads.append(request, answer)

    # Writer task

    async def _write_loop(self) -> None:
        quiet_s, more = self._params.idle_s, True
        while True:
            if self._handles.damaged and not self.holds:
                await self._salvage()
            if self._writes:
                await self._writes.gather()
                await self._write_group()
                quiet_s, more = self._params.idle_s, True
                continue
            await self._writes.wait(quiet_s)
            if self.holds:
                quiet_s = self._params.idle_s
            elif not self._writes:
                more = await self._hop(self._writer.idle)
                quiet_s = 0 if more else HOUSEKEEPING_S
                self._publish()

    async def _write_group(self) -> None:
        group = self._take_writes()
        try:
            results = await self._hop(lambda: self._writer.commit([request for request, _ in group]))
        except BaseException:  # cancelled before the thread began, or a mistake of ours: nobody waits in vain
            for _, answer in group:
                answer(closing())
            raise
        self._publish()
        self._answer_writes(group, results)
        if self._writer.wal_pages * store_schema.PAGE_BYTES >= self._params.checkpoint_wal_bytes:
            await self._hop(self._writer.checkpoint)
            self._publish()

    def _answer_writes(self, group: Sequence[tuple[Write, Answer[Any]]], results: Sequence[Result]) -> None:
        for (request, answer), result in zip(group, results, strict=True):
            if isinstance(request, Quarantine):
                self._doubted.discard((request.address, request.descriptor_hash))
                if result is True:  # not when the part was replaced meanwhile, or told of already
                    self.on_corrupt(Address(request.address), DescriptorHash(request.descriptor_hash))
            answer(result)

    def _take_writes(self) -> list[tuple[Write, Answer[Any]]]:
        group: list[tuple[Write, Answer[Any]]] = []
        weight = 0
        while self._writes and len(group) < self._params.group_requests_max:
            request = self._writes.peek()
            if group and weight + request.weight > self._params.group_bytes_max:
                break
            weight += request.weight
            group.append(self._writes.pop())
        self._write_bytes -= weight
        return group

    def _publish(self) -> None:
        """Figures after the writer ran; the first time that it is broken, say so."""
        self._figures = self._handles.figures()
        if self._writer.broken and not self._told_broken:
            self._told_broken = True
            self.on_broken(self._writer.broken)

    async def _salvage(self) -> None:
        """Build the database anew; reads go on meanwhile, writes wait in their queue.

        A backup that begins meanwhile waits for the new one; no connection of another may outlive the swap, for SQLite
        would remove the WAL by its name with it.
        """
        assert self._read_thread is not None
        async with self._salvaging:
            if self.holds:
                return
            if await self._hop(partial(self._handles.rebuild, trio.current_time())):
                await self._read_thread.run(self._handles.swap)  # between two reads
        self._publish()
        self._handles.tell(self.on_corrupt, self.on_lost)

    async def _hop(self, work: Callable[[], T]) -> T:
        """In the writer's thread."""
        assert self._write_thread is not None
        self._writing = True
        try:
            return await self._write_thread.run(work)
        finally:
            self._writing = False

    # Reader task

    async def _read_loop(self) -> None:
        while True:
            await self._reads.wait(math.inf)
            if self._reads:
                await self._reads.gather()
                await self._read_group()

    async def _read_group(self) -> None:
        count = min(len(self._reads), self._params.read_group_max)
        group = [self._reads.pop() for _ in range(count)]
        assert self._read_thread is not None
        try:
            results = await self._read_thread.run(  # after a salvage it is another reader
                lambda: self._reader.read([request for request, _ in group], self._hurry)
            )
        except BaseException:  # as in the writer task
            for _, answer in group:
                answer(closing())
            raise
        self._reads.put_back(group[len(results) :])
        self._answer_reads(group, results)
        if self._handles.damaged:
            self._writes.wake()

    def _hurry(self) -> bool:
        """Whether somebody waits; asked in the reader's thread."""
        return self._writing or bool(self._writes) or bool(self._reads)

    def _answer_reads(
        self, group: Sequence[tuple[store_reader.Read, Answer[Any]]], results: Sequence[store_reader.ReadResult]
    ) -> None:
        for (request, answer), result in zip(group, results, strict=False):
            if result is store_reader.MORE:
                self._reads.append(request, answer)
            elif isinstance(result, store_reader.Damage):
                self._doubt(result)
                answer(corrupt_part())
            elif isinstance(result, store_reader.CheckResult):
                for damage in result.damages:
                    self._doubt(damage)
                answer(result.checked)
            else:
                answer(result)

    def _doubt(self, damage: store_reader.Damage) -> None:
        """Have the part marked and its file moved aside, then tell; once, however many reads found it."""
        key = (damage.address, damage.descriptor_hash)
        if damage.rid is None:
            self.on_corrupt(Address(damage.address), DescriptorHash(damage.descriptor_hash))
        elif key not in self._doubted and not self._closed:
            self._doubted.add(key)
            request = Quarantine(damage.address, damage.descriptor_hash, damage.rid)
            self._write_bytes += request.weight
            self._writes.append(request, lambda _result: None)
