"""A ShardStore in memory: the same rulings, no disk, no thread; durable as long as the object lives.

Every answer comes in the call itself. What is asked is either a read or a write of a certain weight: a store that waits
for a disk (disk.py) queues the two apart and is the same in all else. `corrupt` flips a bit of a stored shard, as a
failing disk does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lockbox_node.errors import LockboxError
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
    fitting_note,
)
from simulations.kept import Kept, size_of
from simulations.parts import MemoryParts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lockbox_node.core.storage_params import StoreParams
    from protocol.ids import Address, DescriptorHash, NodeId
    from protocol.messages import BucketDigest, HolderTable, Signed

T = TypeVar("T")
FRAME_BYTES = 512  # what a request weighs in a queue beside its payload, as in the adapter
ENTRY_BYTES = 48


class MemoryStore:
    """Durable as long as it is referenced. `on_corrupt` as in the adapter."""

    def __init__(self, params: StoreParams, clock: WallClock, parts: MemoryParts | None = None) -> None:
        self.on_corrupt: Callable[[Address, DescriptorHash], None] = lambda _address, _hash: None
        self.on_broken: Callable[[str], None] = lambda _why: None
        self.on_lost: Callable[[int], None] = lambda _lost: None
        self._params = params
        self._state = parts or MemoryParts(params, clock)
        self._state.damage_met = self._on_damage

    def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        """ports.ShardStore.put."""
        names = tuple(replaces)
        self._write(lambda: self._state.put(part, names, owner), answer, put_weight(part))

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        """ports.ShardStore.get."""
        self._read(lambda: self._state.get(address, descriptor_hash), answer)

    def look(self, address: Address, answer: Answer[SlotView]) -> None:
        """ports.ShardStore.look."""
        self._read(lambda: self._state.look(address), answer)

    def merge(
        self,
        tables: Sequence[HolderTable],
        held_only: Sequence[HolderTable],
        answer: Answer[Merged],
        *,
        first: bool = False,
    ) -> None:
        """ports.ShardStore.merge."""
        told, only = tuple(tables), tuple(held_only)
        weight = FRAME_BYTES + sum(128 + ENTRY_BYTES * len(table.entries) for table in (*told, *only))
        self._write(lambda: self._state.merge_all(told, only, first=first), answer, weight)

    def renew(
        self,
        renewal: Signed,
        address: Address,
        descriptor_hash: DescriptorHash,
        lease_until_unix_s: int,
        answer: Answer[None],
    ) -> None:
        """ports.ShardStore.renew."""
        self._write(
            lambda: self._state.renew(renewal, (address, descriptor_hash), lease_until_unix_s), answer, FRAME_BYTES
        )

    def delete(
        self, tombstone: Signed, address: Address, version: int, until_unix_s: int, answer: Answer[None]
    ) -> None:
        """ports.ShardStore.delete."""
        self._write(
            lambda: self._state.delete(tombstone, address, version, until_unix_s),
            answer,
            FRAME_BYTES + len(tombstone.body),
        )

    def drop(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[None]) -> None:
        """ports.ShardStore.drop."""
        self._write(lambda: self._state.drop(address, descriptor_hash), answer, FRAME_BYTES)

    def expire(self, now_unix_s: float, uptime_s: float, answer: Answer[int]) -> None:
        """ports.ShardStore.expire."""
        self._write(lambda: self._state.expire(now_unix_s, int(uptime_s)), answer, FRAME_BYTES)

    def empty_trash(self, before_uptime_s: float, answer: Answer[int]) -> None:
        """ports.ShardStore.empty_trash."""
        self._write(lambda: self._state.empty_trash(before_uptime_s), answer, FRAME_BYTES)

    def check(self, after: bytes, limit: int, answer: Answer[Checked]) -> None:
        """ports.ShardStore.check."""
        self._read(lambda: self._state.check(after, limit), answer)

    def digests(self, answer: Answer[list[BucketDigest]]) -> None:
        """ports.ShardStore.digests."""
        self._write(lambda: self._state.digests(None), answer, FRAME_BYTES)

    def digests_with(self, node: NodeId, answer: Answer[list[BucketDigest]]) -> None:
        """ports.ShardStore.digests_with."""
        self._read(lambda: self._state.digests(node), answer)

    def note(self, name: str, value: bytes, answer: Answer[None]) -> None:
        """ports.ShardStore.note."""
        noted = {name: fitting_note(value)}
        self._write(lambda: self._state.notes.update(noted), answer, FRAME_BYTES)

    @property
    def notes(self) -> Mapping[str, bytes]:
        """ports.ShardStore.notes."""
        return dict(self._state.notes)

    def summaries(self, after: bytes, limit: int, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.summaries."""
        self._read(lambda: self._state.summaries(after, limit), answer)

    def held_with(self, node: NodeId, answer: Answer[list[StripeSummary]]) -> None:
        """ports.ShardStore.held_with."""
        self._read(lambda: self._state.held_with(node), answer)

    @property
    def broken(self) -> str:
        """Memory does not break."""
        return ""

    def figures(self) -> StoreFigures:
        """Current counts."""
        return self._state.figures()

    def corrupt(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Flip a bit of the last stored shard."""
        self._state.corrupt(address, descriptor_hash)

    def salvage_without(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """Forget a part, as if its database had been damaged and rebuilt without it."""
        self._state.drop(address, descriptor_hash)
        self.on_lost(1)

    def _on_damage(self, kept: Kept) -> None:
        if self._state.quarantine(kept):
            self.on_corrupt(*kept.key)

    def _write(self, work: Callable[[], T], answer: Answer[T], _weight: int) -> None:
        answer(outcome(work))

    def _read(self, work: Callable[[], T], answer: Answer[T]) -> None:
        answer(outcome(work))


def put_weight(part: StripePart) -> int:
    """What a put holds in a queue, about."""
    return size_of(part) + ENTRY_BYTES * len(part.entries) + FRAME_BYTES


def outcome(work: Callable[[], T]) -> T | LockboxError:
    """What `work` returns, or the refusal that it raises."""
    try:
        return work()
    except LockboxError as error:
        return error
