"""A store in memory whose disk may fail, at once and by hand: for tests of what a node does then."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from simulations.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.ports import Answer, Owner, PutOutcome, StripePart, StripeSummary
    from protocol.ids import Address, DescriptorHash, NodeId


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
        trio.lowlevel.spawn_system_task(later, self.slow_s, partial(super().summaries, after, limit, answer))
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

    def spoil_head(self, address: Address, descriptor_hash: DescriptorHash) -> None:
        """The descriptor and the slots can no longer be read."""
        self._state.spoil_head(address, descriptor_hash)

    def lose(self, address: Address) -> None:
        """Whatever is held at `address` is gone, without a tombstone, without a word."""
        for kept in self._state.standing(address):
            self._state.drop(kept.part.address, kept.part.descriptor_hash)


def _busy() -> LockboxError:
    return LockboxError("too much waits for this store", "try again in a moment", ErrorCode.BUSY)


async def later(seconds: float, work: Callable[[], None]) -> None:
    """Do it then: for a store that takes its time."""
    await trio.sleep(seconds)
    work()
