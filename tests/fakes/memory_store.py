"""A ShardStore in memory: the same rulings, no disk, no thread; durable as long as the object lives.

Answers come in the call itself, or after `delay_s` of trio's clock when one is given and `run` serves (a simulation's
disk). `corrupt` flips a bit of a stored shard, as a failing disk does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import trio

from lockbox_node.core.slots import Standing, Verdict, corrupt_part, judge_put, merge_entries, refusal_of, store_full
from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import (
    Answer,
    PutOutcome,
    SlotView,
    StoreFigures,
    StripePart,
    StripeSummary,
    WallClock,
)
from protocol import merkle
from protocol.errors import ErrorCode
from protocol.ids import Address, DescriptorHash, NodeId
from protocol.messages import SIBLINGS_MAX, HolderEntry, HolderTable, Signed
from protocol.records import open_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.storage_params import StoreParams

T = TypeVar("T")


@dataclass
class _Kept:
    part: StripePart
    corrupt: bool = False


class MemoryStore:
    """Durable as long as it is referenced. `on_corrupt` as in the adapter."""

    def __init__(self, params: StoreParams, clock: WallClock, delay_s: float = 0.0) -> None:
        self.on_corrupt: Callable[[Address, DescriptorHash], None] = lambda _address, _hash: None
        self.on_broken: Callable[[str], None] = lambda _why: None
        self._params = params
        self._clock = clock
        self._delay_s = delay_s
        self._parts: dict[tuple[bytes, bytes], _Kept] = {}
        self._pointers: dict[tuple[bytes, bytes], tuple[HolderTable, float]] = {}
        self._tombs: dict[bytes, tuple[int, Signed]] = {}
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

    def put(self, part: StripePart, replaces: Sequence[bytes], answer: Answer[PutOutcome]) -> None:
        """ports.ShardStore.put."""
        self._serve(lambda: self._put(part, replaces), answer)

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """ports.ShardStore.get."""
        self._serve(lambda: self._get(address, descriptor_hash), answer)

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """ports.ShardStore.look."""
        self._serve(lambda: self._look(address), answer)

    def merge(self, tables: Sequence[HolderTable], answer: Answer[None]) -> None:
        """ports.ShardStore.merge."""
        self._serve(lambda: self._merge_all(tables), answer)

    def delete(self, tombstone: Signed, address: Address, version: int, answer: Answer[None]) -> None:
        """ports.ShardStore.delete."""
        self._serve(lambda: self._delete(tombstone, address, version), answer)

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.summaries."""
        keys = [key for key in sorted(self._parts) if key > (after[:32], after[32:])]
        limit = min(limit, self._params.scan_rows_max)
        self._serve(lambda: [_summary(self._parts[key]) for key in keys[:limit]], answer)

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.held_with."""
        found = [
            _summary(kept)
            for _, kept in sorted(self._parts.items())
            if any(entry.node == node for entry in kept.part.entries)
        ]
        self._serve(lambda: found, answer)

    @property
    def broken(self) -> str:
        """Memory does not break."""
        return ""

    def figures(self) -> StoreFigures:
        """Current counts."""
        size = sum(_size(kept.part) for kept in self._parts.values())
        return StoreFigures(
            len(self._parts),
            sum(len(kept.part.shards) for kept in self._parts.values()),
            size,
            size,
            sum(kept.corrupt for kept in self._parts.values()),
            len(self._pointers),
            len(self._tombs),
        )

    def corrupt(self, address: bytes, descriptor_hash: bytes) -> None:
        """Flip a bit of the last stored shard."""
        kept = self._parts[address, descriptor_hash]
        last = bytearray(kept.part.shards[-1])
        last[len(last) // 2] ^= 1
        kept.part = replace(kept.part, shards=(*kept.part.shards[:-1], bytes(last)))

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
            return answer(LockboxError("too much waits for this store", "try again in a moment", ErrorCode.BUSY))
        self._waiting.append(run)
        return self._wake.set()

    def _standing(self, address: bytes) -> list[_Kept]:
        return [kept for key, kept in sorted(self._parts.items()) if key[0] == address]

    def _put(self, part: StripePart, replaces: Sequence[bytes]) -> PutOutcome:
        standing = self._standing(part.address)
        tomb = self._tombs.get(part.address)
        ruling = judge_put(
            [
                Standing(kept.part.version, kept.part.descriptor_hash, kept.part.index, kept.corrupt)
                for kept in standing
            ],
            None if tomb is None else tomb[0],
            part.version,
            part.descriptor_hash,
            part.index,
            replaces,
        )
        key = (part.address, part.descriptor_hash)
        if ruling.writes:
            free = self._params.capacity_bytes - self.figures().logical_bytes
            if _size(part) > free:
                raise store_full()
            old = self._parts.get(key)
            pointer = self._pointers.pop(key, None)
            for removed in ruling.removes:
                del self._parts[part.address, DescriptorHash(removed)]
            tables = [part.entries, old.part.entries if old else ()]
            if pointer is not None and pointer[1] > self._clock.now_unix_s():
                tables.append(tuple(pointer[0].entries))
            self._parts[key] = _Kept(replace(part, entries=merge_entries(*tables)))
        elif ruling.verdict is Verdict.HELD:
            self._merge_into(self._parts[key], part.entries)
        else:
            proof = self._parts[part.address, DescriptorHash(ruling.proof)].part.descriptor if ruling.proof else None
            raise refusal_of(ruling, proof if proof is not None or tomb is None else tomb[1])
        return PutOutcome(
            tuple(
                kept.part.descriptor
                for kept in self._standing(part.address)
                if kept.part.version == part.version and kept.part.descriptor_hash != part.descriptor_hash
            )
        )

    def _get(self, address: Address, descriptor_hash: DescriptorHash) -> StripePart:
        kept = self._parts.get((address, descriptor_hash))
        if kept is None:
            raise ShardMissing("this part is not here", "ask the other holders")
        if not kept.corrupt:
            descriptor = open_descriptor(kept.part.descriptor)
            ids = [group.shard_ids[kept.part.index] for group in descriptor.groups]
            if [merkle.root(shard, descriptor.leaf_bytes) for shard in kept.part.shards] == ids:
                return kept.part
            kept.corrupt = True
            self.on_corrupt(address, descriptor_hash)
        raise corrupt_part()

    def _look(self, address: Address) -> SlotView:
        standing = sorted(self._standing(address), key=lambda kept: (-kept.part.version, kept.part.descriptor_hash))
        now = self._clock.now_unix_s()
        pointers = [
            table
            for key, (table, until) in sorted(self._pointers.items())
            if key[0] == address and until > now and key not in self._parts
        ]
        pointers.sort(key=lambda table: (-table.version, table.descriptor_hash))
        tomb = self._tombs.get(address)
        return SlotView(
            tuple(replace(kept.part, shards=()) for kept in standing),
            tuple([_table(kept.part) for kept in standing] + pointers)[:SIBLINGS_MAX],
            None if tomb is None else tomb[1],
        )

    def _merge_all(self, tables: Sequence[HolderTable]) -> None:
        for table in tables:
            self._merge(table)

    def _merge(self, table: HolderTable) -> None:
        key = (table.address, table.descriptor_hash)
        kept = self._parts.get(key)
        if kept is not None:
            return self._merge_into(kept, tuple(table.entries))
        tomb = self._tombs.get(table.address)
        if tomb is not None and table.version <= tomb[0]:
            return None
        now = self._clock.now_unix_s()
        known = self._pointers.get(key)
        beside = sum(other[0] == table.address for other in self._pointers)
        if known is None and (beside >= SIBLINGS_MAX or len(self._pointers) >= self._params.pointers_max):
            return None
        old = tuple(known[0].entries) if known is not None and known[1] > now else ()
        merged = HolderTable(
            table.address, table.version, table.descriptor_hash, list(merge_entries(old, table.entries))
        )
        self._pointers[key] = (merged, now + self._params.pointer_ttl_s)
        return None

    def _merge_into(self, kept: _Kept, entries: Sequence[HolderEntry]) -> None:
        kept.part = replace(kept.part, entries=merge_entries(kept.part.entries, entries))

    def _delete(self, tombstone: Signed, address: Address, version: int) -> None:
        known = self._tombs.get(address)
        if known is not None and known[0] >= version:
            return
        for key in [key for key, kept in self._parts.items() if key[0] == address and kept.part.version <= version]:
            del self._parts[key]
        for key in [
            key for key, (table, _) in self._pointers.items() if key[0] == address and table.version <= version
        ]:
            del self._pointers[key]
        self._tombs[address] = (version, tombstone)


def _table(part: StripePart) -> HolderTable:
    return HolderTable(part.address, part.version, part.descriptor_hash, list(part.entries))


def _summary(kept: _Kept) -> StripeSummary:
    part = kept.part
    return StripeSummary(
        part.address, part.version, part.descriptor_hash, part.tier, part.index, kept.corrupt, part.entries
    )


def _size(part: StripePart) -> int:
    return sum(len(piece) for piece in (*part.shards, *part.slots, part.descriptor.body))
