"""The real store without its tasks and threads: each question is answered before the call returns.

Faults are then countable (the same steps in every run) and a crash is a step like any other. It does what the writer
task and the reader task do, in the same order, and nothing else knows the store from inside.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.disk import DISK, Disk
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.core.storage_params import StoreParams
from tests.fakes.stripes import OWNER, FixedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lockbox_node.errors import LockboxError
    from lockbox_node.ports import Answer, PutOutcome, SlotView, StripePart
    from protocol.messages import Signed

T = TypeVar("T")
PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, checkpoint_wal_bytes=80_000)


def put_of(store: ShardStoreFile, part: StripePart, replaces: Sequence[bytes], answer: Answer[PutOutcome]) -> None:
    """How the tests of faults put."""
    store.put(part, tuple(replaces), OWNER, answer)


class SteppedStore:
    """A store that is driven by hand."""

    def __init__(self, data_dir: Path, params: StoreParams = PARAMS, disk: Disk = DISK) -> None:
        self.store = ShardStoreFile.open(data_dir, params, FixedClock(), disk=disk)
        self._params = params

    def ask(self, start: Callable[[Answer[T]], None]) -> T | LockboxError:
        """The answer to one question: `ask(partial(store.get, address, hash))`."""
        return self.ask_all([start])[0]

    def ask_all(self, starts: Sequence[Callable[[Answer[T]], None]]) -> list[T | LockboxError]:
        """The answers to questions that wait together: the writes share a transaction."""
        answers: list[T | LockboxError] = []
        for start in starts:
            start(answers.append)
        while self.store._writes or self.store._reads:
            if self.store._writes:
                self._write()
            else:
                self._read()
        assert len(answers) == len(starts)
        return answers

    def put(self, part: StripePart, replaces: Sequence[bytes] = ()) -> PutOutcome | LockboxError:
        """Put one part."""
        return self.ask(partial(put_of, self.store, part, replaces))

    def delete(self, tombstone: Signed, part: StripePart, version: int) -> LockboxError | None:
        """Delete at the part's address."""
        return self.ask(partial(self.store.delete, tombstone, part.address, version, 2**40))

    def get(self, part: StripePart) -> StripePart | LockboxError:
        """The part as it stands."""
        return self.ask(partial(self.store.get, part.address, part.descriptor_hash))

    def look(self, part: StripePart) -> SlotView | LockboxError:
        """What stands at the part's address."""
        return self.ask(partial(self.store.look, part.address))

    def rest(self) -> None:
        """All housekeeping of a quiet moment."""
        while self.store._writer.idle():
            pass
        self.store._publish()

    def close(self) -> None:
        """A clean stop."""
        self.store.close()

    def _write(self) -> None:
        group = self.store._take_writes()
        results = self.store._writer.commit([request for request, _ in group])
        self.store._publish()
        self.store._answer_writes(group, results)
        if self.store._writer.wal_pages * store_schema.PAGE_BYTES >= self._params.checkpoint_wal_bytes:
            self.store._writer.checkpoint()
            self.store._publish()

    def _read(self) -> None:
        question = self.store._reads.pop()
        self.store._answer_reads([question], self.store._reader.read([question[0]]))
