"""A disk that outlives its node, and the store on it: writes take time until they are safe, and everything may fail.

`SimDisk` is what is on the medium; `SimStore` is one life of a node with it, as the adapter is: bounded queues, one
writer that flushes what waits as a group, a reader beside it, answers only after the flush. What was not flushed at a
crash is cut at a place drawn by the rng: writes before it are kept though nobody was told, a put at it may be torn,
the rest is lost. So more may survive than the adapter keeps of a group (all of it or nothing), never less than was
acknowledged. A torn put never takes away what stood before. Source: DESIGN, Storage; adapters' rules for damage, full
and failing disks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from lockbox_node.errors import ConfigError, LockboxError
from lockbox_node.ports import StripePart
from protocol.errors import ErrorCode
from simulations.memory_store import FRAME_BYTES, MemoryStore, outcome, put_weight
from simulations.parts import MemoryParts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.storage_params import StoreParams
    from lockbox_node.ports import Answer, Owner, PutOutcome, StoreFigures, WallClock
    from protocol.ids import Address, DescriptorHash
    from simulations.kept import Kept

T = TypeVar("T")
HOUSEKEEPING_S = 600.0  # expired pointers go this often


@dataclass(frozen=True, slots=True)
class DiskTimes:
    """How long the disk takes, give or take half: a flush of a group of writes, a group of reads."""

    flush_s: float = 0.002
    read_s: float = 0.0003


class SimDisk:
    """What is on the medium, and what is wrong with it. One open store at a time."""

    def __init__(
        self, params: StoreParams, clock: WallClock, rng: Random, times: DiskTimes | None = None, epoch: int = 0
    ) -> None:
        self.params = params
        self.clock = clock
        self.rng = rng
        self.parts = MemoryParts(params, clock)
        self.epoch = epoch  # of the last opening
        self.slowness = 1.0  # how many times longer everything takes; finite, as a stop waits for the flush
        self.failing = False
        self._times = times or DiskTimes()
        self._store: SimStore | None = None

    def open(self) -> SimStore:
        """Begin another life. ConfigError when a store is open still, or the disk fails."""
        if self._store is not None and not self._store.closed:
            raise ConfigError("this disk is in use by another store", "stop that node first")
        if self.failing:
            raise ConfigError("this disk cannot be used: input/output error", "take another")
        self.epoch += 1
        self._store = SimStore(self)
        return self._store

    def crash(self) -> None:
        """The power goes, or the process: the open store never answers again. Before its tasks are cancelled."""
        if self._store is not None:
            self._store.die()

    def snapshot(self) -> SimDisk:
        """A copy of what is safe now, as an old image of the disk: sound, with room, and with the epoch of now."""
        image = SimDisk(self.params, self.clock, Random(self.rng.getrandbits(64)), self._times, self.epoch)
        image.parts = self.parts.copy()
        image.fill(full=False)
        return image

    def rot(self, rng: Random) -> tuple[Address, DescriptorHash] | None:
        """Flip one bit of one stored shard; whose, or None when there is none that was not found damaged already."""
        sound = [kept for kept in self.parts.kept() if kept.part.shards and not kept.corrupt]
        if not sound:
            return None
        kept = rng.choice(sound)
        shard = rng.randrange(len(kept.part.shards))
        kept.flip(shard, rng.randrange(len(kept.part.shards[shard])), rng.randrange(8))
        return kept.key

    def fill(self, full: bool = True) -> None:
        """No room for another put or pointer; deletes, notes and tables of held parts still work, by the ballast."""
        self.parts.full = full

    def fail(self, failing: bool = True) -> None:
        """From now on no flush succeeds: the store is broken as soon as it writes. What is there can be read."""
        self.failing = failing

    def flush_s(self) -> float:
        """How long the next flush takes."""
        return self._times.flush_s * self.slowness * self.rng.uniform(0.5, 1.5)

    def read_s(self) -> float:
        """How long the next reads take."""
        return self._times.read_s * self.slowness * self.rng.uniform(0.5, 1.5)


@dataclass(frozen=True, slots=True)
class _Write:
    work: Callable[[], Any]
    answer: Answer[Any]
    weight: int
    torn: Callable[[], None] | None = None  # what a crash in its middle leaves


@dataclass(frozen=True, slots=True)
class _Read:
    work: Callable[[], Any]
    answer: Answer[Any]


R = TypeVar("R", _Write, _Read)


class _Queue(Generic[R]):
    """What waits for the disk. Its bounds are its owner's to keep."""

    def __init__(self) -> None:
        self.waiting: deque[R] = deque()
        self._awake = trio.Event()

    def append(self, request: R) -> None:
        self.waiting.append(request)
        self._awake.set()

    def clear(self) -> list[Answer[Any]]:
        owed = [request.answer for request in self.waiting]
        self.waiting.clear()
        return owed

    async def wait(self) -> None:
        """Return when something waits, and whoever asks in the same turn of the loop has asked."""
        if not self.waiting:
            self._awake = trio.Event()
            await self._awake.wait()
        await trio.lowlevel.checkpoint()


class SimStore(MemoryStore):
    """One life with a disk. `run` serves until it is cancelled; then what waits is refused and the disk is let go."""

    def __init__(self, disk: SimDisk) -> None:
        super().__init__(disk.params, disk.clock, disk.parts)
        self.on_read: Callable[[StripePart], None] = lambda _part: None  # what is handed out, before who asked has it
        self.closed = False
        self.epoch = disk.epoch
        self._disk = disk
        self._broken = ""
        self._writes = _Queue[_Write]()
        self._write_bytes = 0
        self._reads = _Queue[_Read]()
        self._flushing: list[_Write] = []  # taken, not safe
        self._unsure: list[_Write] = []  # of a flush that failed: what of it is on the disk shows when it is opened
        self._died = trio.Event()
        self._tidy_at = 0.0

    @property
    def broken(self) -> str:
        """Why the store takes no more writes."""
        return self._broken

    def figures(self) -> StoreFigures:
        """Current counts; the ballast is given up while the disk is full."""
        return replace(super().figures(), reserved_bytes=0 if self._state.full else self._params.ballast_bytes)

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """ports.ShardStore.put."""
        names = tuple(replaces)
        torn = None if names else partial(self._put_torn, part, owner)
        self._ask(_Write(lambda: self._state.put(part, names, owner), answer, put_weight(part), torn))

    # Life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: what the disk is doing is done first, as no thread is abandoned."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_loop)
                nursery.start_soon(self._read_loop)
                task_status.started()
        finally:
            self.close()

    def close(self) -> None:
        """Refuse what waits and let the disk go. For a store whose `run` has ended or never began."""
        if self.closed:
            return
        self.closed = True
        for answer in [*self._writes.clear(), *self._reads.clear()]:
            answer(_closing())
        self._cut(self._unsure)

    def die(self) -> None:
        """A crash: nobody is answered, and of what was not safe some is lost."""
        if self.closed:
            return
        self.closed = True
        self._died.set()
        self._writes.clear()
        self._reads.clear()
        self._cut(self._unsure if self._broken else self._flushing)

    def _cut(self, group: Sequence[_Write]) -> None:
        """Keep the beginning of a group that was never flushed to its end; the next of it may be torn."""
        whole, torn = divmod(self._disk.rng.randrange(2 * len(group) + 1), 2)
        for write in group[:whole]:
            outcome(write.work)
        if torn and (tear := group[whole].torn):
            tear()

    def _put_torn(self, part: StripePart, owner: Owner) -> None:
        key = (part.address, part.descriptor_hash)
        if not part.shards or self._state.find(*key) is not None:
            return
        outcome(lambda: self._state.put(part, (), owner))
        if (kept := self._state.find(*key)) is not None:
            kept.tear(self._disk.rng.randrange(sum(map(len, part.shards))))

    async def _busy_for(self, seconds: float) -> None:
        """The disk works: a stop waits for it, a crash does not, and nobody goes on after one."""
        with trio.move_on_after(seconds, shield=True):
            await self._died.wait()
        if self._died.is_set():
            await trio.sleep_forever()

    # Queues

    def _write(self, work: Callable[[], T], answer: Answer[T], weight: int) -> None:
        self._ask(_Write(work, answer, weight))

    def _ask(self, write: _Write) -> None:
        if self._died.is_set():
            return
        if self.closed:
            return write.answer(_closing())
        full = len(self._writes.waiting) >= self._params.write_queue_max
        heavy = self._write_bytes + write.weight > self._params.write_queue_bytes_max
        if full or (self._writes.waiting and heavy):
            return write.answer(_too_much())
        return self._queue(write)

    def _queue(self, write: _Write) -> None:
        self._write_bytes += write.weight
        self._writes.append(write)

    def _read(self, work: Callable[[], T], answer: Answer[T]) -> None:
        if self._died.is_set():
            return None
        if self.closed:
            return answer(_closing())
        if len(self._reads.waiting) >= self._params.read_queue_max:
            return answer(_too_much())
        return self._reads.append(_Read(work, answer))

    # Writer

    async def _write_loop(self) -> None:
        while True:
            await self._writes.wait()
            self._flushing = self._take_writes()
            await self._busy_for(self._disk.flush_s())
            group, self._flushing = self._flushing, []
            self._settle(group)

    def _take_writes(self) -> list[_Write]:
        group: list[_Write] = []
        weight = 0
        while self._writes.waiting and len(group) < self._params.group_requests_max:
            write = self._writes.waiting[0]
            if group and weight + write.weight > self._params.group_bytes_max:
                break
            weight += write.weight
            group.append(self._writes.waiting.popleft())
        self._write_bytes -= weight
        return group

    def _settle(self, group: list[_Write]) -> None:
        """The flush is over: now it is so, then all are told, as far as a crash in the middle lets them."""
        if self._disk.failing and not self._broken:
            self._unsure = group
            self._broken = "the database could not be written: input/output error"
            self.on_broken(self._broken)
        results = [_read_only(self._broken) if self._broken else outcome(write.work) for write in group]
        for write, result in zip(group, results, strict=True):
            if not self._died.is_set():
                write.answer(result)
        now = trio.current_time()
        if now >= self._tidy_at and not self._broken:
            self._state.forget_pointers()
            self._tidy_at = now + HOUSEKEEPING_S

    # Reader

    async def _read_loop(self) -> None:
        while True:
            await self._reads.wait()
            count = min(len(self._reads.waiting), self._params.read_group_max)
            group = [self._reads.waiting.popleft() for _ in range(count)]
            await self._busy_for(self._disk.read_s())
            results = [outcome(read.work) for read in group]
            for read, result in zip(group, results, strict=True):
                if not self._died.is_set():
                    if isinstance(result, StripePart):
                        self.on_read(result)
                    read.answer(result)

    def _on_damage(self, kept: Kept) -> None:
        """Have the part marked, then tell; once, for the second mark changes nothing."""
        if not self.closed:
            answer = partial(self._quarantined, kept)
            self._queue(_Write(partial(self._state.quarantine, kept), answer, FRAME_BYTES))

    def _quarantined(self, kept: Kept, result: object) -> None:
        if result is True:  # not when it is marked already, or was replaced meanwhile
            self.on_corrupt(*kept.key)


def _too_much() -> LockboxError:
    return LockboxError("too much waits for this store", "try again in a moment", ErrorCode.BUSY)


def _closing() -> LockboxError:
    return LockboxError("the store is closing; nothing was done", "ask another node", ErrorCode.BUSY)


def _read_only(why: str) -> LockboxError:
    return LockboxError(f"the store is read-only: {why}", "look at the disk, then start the node again")
