"""A ShardStore in memory: the same rulings, no disk, no thread; durable as long as the object lives.

Answers come in the call itself, or after `delay_s` of trio's clock when one is given and `run` serves (a simulation's
disk). `corrupt` flips a bit of a stored shard, as a failing disk does.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from lockbox_node.errors import LockboxError
from lockbox_node.ports import (
    NOTE_BYTES_MAX,
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
from protocol.errors import ErrorCode
from tests.fakes.memory_parts import MemoryParts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lockbox_node.core.storage_params import StoreParams
    from protocol.ids import Address, DescriptorHash, NodeId
    from protocol.messages import BucketDigest, HolderTable, Signed

T = TypeVar("T")


class MemoryStore:
    """Durable as long as it is referenced. `on_corrupt` as in the adapter."""

    def __init__(self, params: StoreParams, clock: WallClock, delay_s: float = 0.0) -> None:
        self.on_corrupt: Callable[[Address, DescriptorHash], None] = lambda _address, _hash: None
        self.on_broken: Callable[[str], None] = lambda _why: None
        self.on_lost: Callable[[int], None] = lambda _lost: None
        self._params = params
        self._state = MemoryParts(params, clock)
        self._state.on_corrupt = lambda address, descriptor_hash: self.on_corrupt(address, descriptor_hash)
        self._delay_s = delay_s
        self._waiting: deque[Callable[[], None]] = deque()
        self._wake = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the requests that wait for `delay_s`."""
        task_status.started()
        while True:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            group = list(self._waiting)
            self._waiting.clear()
            await trio.sleep(self._delay_s)
            for work in group:
                work()

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """ports.ShardStore.put."""
        self._serve(lambda: self._state.put(part, replaces, owner), answer)

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """ports.ShardStore.get."""
        self._serve(lambda: self._state.get(address, descriptor_hash), answer)

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """ports.ShardStore.look."""
        self._serve(lambda: self._state.look(address), answer)

    def merge(
        self,
        tables: Sequence[HolderTable],
        held_only: Sequence[HolderTable],
        answer: Answer[Merged],
        *,
        first: bool = False,
    ) -> None:
        """ports.ShardStore.merge."""
        self._serve(lambda: self._state.merge_all(tables, held_only, first=first), answer)

    def renew(
        self,
        renewal: Signed,
        address: Address,
        descriptor_hash: DescriptorHash,
        lease_until_unix_s: int,
        answer: Answer[None],
    ) -> None:
        """ports.ShardStore.renew."""
        self._serve(lambda: self._state.renew(renewal, (address, descriptor_hash), lease_until_unix_s), answer)

    def delete(
        self, tombstone: Signed, address: Address, version: int, until_unix_s: int, answer: Answer[None]
    ) -> None:
        """ports.ShardStore.delete."""
        self._serve(lambda: self._state.delete(tombstone, address, version, until_unix_s), answer)

    def drop(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[None]) -> None:
        """ports.ShardStore.drop."""
        self._serve(lambda: self._state.drop(address, descriptor_hash), answer)

    def expire(self, now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        """ports.ShardStore.expire."""
        self._serve(lambda: self._state.expire(now_unix_s, int(uptime_s)), answer)

    def empty_trash(self, before_uptime_s: float, answer: Answer[int]) -> None:
        """ports.ShardStore.empty_trash."""
        self._serve(lambda: self._state.empty_trash(before_uptime_s), answer)

    def check(self, after: bytes, limit: int, answer: Answer[Checked]) -> None:
        """ports.ShardStore.check."""
        self._serve(lambda: self._state.check(after, limit), answer)

    def digests(self, answer: Answer[list[BucketDigest]]) -> None:
        """ports.ShardStore.digests."""
        self._serve(lambda: self._state.digests(None), answer)

    def digests_with(self, node: NodeId, answer: Answer[list[BucketDigest]]) -> None:
        """ports.ShardStore.digests_with."""
        self._serve(lambda: self._state.digests(node), answer)

    def note(self, name: str, value: bytes, answer: Answer[None]) -> None:
        """ports.ShardStore.note."""
        assert len(value) <= NOTE_BYTES_MAX
        self._serve(lambda: self._state.notes.update({name: value}), answer)

    @property
    def notes(self) -> Mapping[str, bytes]:
        """ports.ShardStore.notes."""
        return dict(self._state.notes)

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.summaries."""
        self._serve(lambda: self._state.summaries(after, limit), answer)

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.held_with."""
        self._serve(lambda: self._state.held_with(node), answer)

    @property
    def broken(self) -> str:
        """Memory does not break."""
        return ""

    def figures(self) -> StoreFigures:
        """Current counts."""
        return self._state.figures()

    def corrupt(self, address: bytes, descriptor_hash: bytes) -> None:
        """Flip a bit of the last stored shard."""
        self._state.corrupt(address, descriptor_hash)

    def salvage_without(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Forget a part, as if its database had been damaged and rebuilt without it."""
        self._state.drop(address, descriptor_hash)
        self.on_lost(1)

    def _serve(self, work: Callable[[], T | LockboxError], answer: Answer[T]) -> None:
        def run() -> None:
            try:
                result = work()
            except LockboxError as error:
                result = error
            answer(result)

        if not self._delay_s:
            return run()
        if len(self._waiting) >= self._params.write_queue_max:
            return answer(_busy())
        self._waiting.append(run)
        return self._wake.set()


class BreakingStore(MemoryStore):
    """A store whose disk may fail."""

    why = ""
    slow_s = 0.0  # how long a page of summaries takes
    busy = False  # too much waits for it: what is scanned is refused

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """Refused while it is busy, late while it is slow."""
        if self.busy:
            return answer(_busy())
        if not self.slow_s:
            return super().summaries(after, limit, answer)
        trio.lowlevel.spawn_system_task(_after, self.slow_s, partial(super().summaries, after, limit, answer))
        return None

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """Refused while it is busy."""
        return answer(_busy()) if self.busy else super().held_with(node, answer)

    @property
    def broken(self) -> str:
        return self.why

    def fail(self, why: str) -> None:
        """From now on it is read-only."""
        self.why = why
        self.on_broken(why)

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """Refused once it is read-only."""
        if self.why:
            return answer(LockboxError("this store is read-only", code=ErrorCode.STORE_FULL))
        return super().put(part, replaces, owner, answer)

    def spoil_head(self, address: bytes, descriptor_hash: bytes) -> None:
        """The descriptor and the slots can no longer be read."""
        self._state.spoil_head(address, descriptor_hash)

    def lose(self, address: bytes) -> None:
        """Whatever is held at `address` is gone, without a tombstone, without a word."""
        for kept in self._state.standing(address):
            self._state.drop(kept.part.address, kept.part.descriptor_hash)


def _busy() -> LockboxError:
    return LockboxError("too much waits for this store", "try again in a moment", ErrorCode.BUSY)


async def _after(seconds: float, work: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    work()
