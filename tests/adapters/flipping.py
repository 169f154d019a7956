"""A store with one flipped bit: it is opened, all is read, what is gone is put again; what may not be is listed.

Where a page of the database is hit the store is rebuilt; a part that is not served must have been told of.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError, ShardCorrupt, ShardMissing
from lockbox_node.ports import PutOutcome, SlotView, StripePart
from protocol.errors import ErrorCode
from protocol.messages import Signed
from tests.adapters.store_workload import empty
from tests.fakes.stepped_store import SteppedStore
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, Stripe, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = StoreParams(
    ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, checkpoint_wal_bytes=2**40, salvage_every_s=0.0
)
BIG: dict[str, Any] = {"groups": 4, "shard_bytes": 17_000}
SMALL = [make_stripe(number, shard_bytes=300 * number or 300, slots=1 + number % 2) for number in range(10)]
LARGE = [make_stripe(("big", number), **BIG) for number in range(2)]
HELD = [*SMALL, *LARGE]
PLACES = {stripe.signer.address: place for place, stripe in enumerate(HELD)}
GONE = [make_stripe(("gone", number)) for number in range(3)]
POINTED = [make_stripe(("pointed", number)) for number in range(3)]
NOTE = b"scrub cursor"
UNTIL = NOW_UNIX_S + 90 * DAY_S


def filled(data_dir: Path, *, clean: bool) -> Path:
    """A store with all of it; not `clean`: as a kill leaves it, half in the database and half in the WAL."""
    data_dir.mkdir()
    stepped = SteppedStore(data_dir, PARAMS)
    store = stepped.store
    for place, stripe in enumerate([*HELD, *GONE]):
        assert isinstance(stepped.put(stripe.parts[place % 10]), PutOutcome)
        if place == len(HELD) // 2:
            stepped.rest()
    for stripe in GONE:
        assert stepped.delete(stripe.signer.tombstone(1), stripe.parts[0], 1) is None
    stepped.ask(partial(store.merge, [stripe.table for stripe in POINTED], ()))
    stepped.ask(partial(store.note, "cursor", NOTE))
    renewal = SMALL[1].signer.renewal(1, SMALL[1].parts[0].descriptor_hash, UNTIL)
    key = SMALL[1].parts[0].address, SMALL[1].parts[0].descriptor_hash
    stepped.ask(partial(store.renew, renewal, *key, UNTIL))
    if clean:
        stepped.rest()
        stepped.close()
        return data_dir
    left = data_dir.with_name(f"{data_dir.name}-killed")
    shutil.copytree(data_dir, left)
    (left / "shards.db-shm").unlink()
    stepped.close()
    return left


def part_of(stripe: Stripe) -> StripePart:
    """The part of it that is held."""
    return stripe.parts[PLACES.get(stripe.signer.address, 0) % 10]


@dataclass
class Seen:
    """What a store showed, and what it told."""

    told: set[bytes] = field(default_factory=set)
    lost: list[int] = field(default_factory=list)
    missing: list[Stripe] = field(default_factory=list)
    tombstones: int = 0
    pointers: int = 0
    wrong: list[str] = field(default_factory=list)


class Flipped:
    """A copy of a store in which bits are flipped, one at a time."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self.source, self.scratch = source, scratch
        shutil.copytree(source, scratch)
        self._files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]

    def sizes(self) -> dict[str, int]:
        """The bytes of every file that SQLite or a large part fills."""
        names = [str(path) for path in self._files if path.name.startswith("shards.db") or path.parts[0] == "big"]
        return {name: (self.source / name).stat().st_size for name in names}

    def refresh(self) -> None:
        """The copy is as the store was."""
        empty(self.scratch)
        for path in self._files:
            shutil.copyfile(self.source / path, self.scratch / path)

    def check(self, name: str, offset: int, bit: int) -> Seen:
        """Flip, open, read all, put again what is gone."""
        self.refresh()
        with open(self.scratch / name, "r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1 << bit]))
        return self.use()

    def use(self) -> Seen:
        """Open the copy, read all, put again what is gone."""
        seen = Seen()
        stepped = SteppedStore(self.scratch, PARAMS)
        stepped.store.on_corrupt = lambda address, _hash: seen.told.add(address)
        stepped.store.on_lost = seen.lost.append
        try:
            self._tell(stepped)
            self._read_all(stepped, seen)
            self._mend(stepped)
            if seen.told or seen.lost:  # once more: what is damaged now has been told of
                seen.missing.clear()
                self._read_all(stepped, seen)
            for stripe in seen.missing:
                self._put_again(stepped, seen, stripe)
            self._put_again(stepped, seen, make_stripe("new"))
            stepped.rest()
            self._mend(stepped)
            if stepped.store.broken:
                seen.wrong.append(stepped.store.broken)
        finally:
            stepped.close()
        return seen

    def _tell(self, stepped: SteppedStore) -> None:
        stepped.store._handles.tell(stepped.store.on_corrupt, stepped.store.on_lost)

    def _mend(self, stepped: SteppedStore) -> None:
        """What the store's tasks do after each group."""
        while stepped.store._handles.damaged:
            assert stepped.store._handles.rebuild(0.0)
            stepped.store._handles.swap()
            self._tell(stepped)

    def _read_all(self, stepped: SteppedStore, seen: Seen) -> None:
        for stripe in HELD:
            part = part_of(stripe)
            found = stepped.get(part)
            if isinstance(found, ShardCorrupt | ShardMissing):
                seen.missing.append(stripe)
            elif isinstance(found, LockboxError) or bytes_of(found) != bytes_of(part):
                seen.wrong.append(f"get says {found}")
        seen.tombstones = sum(self._is_buried(stepped, seen, stripe) for stripe in GONE)
        seen.pointers = sum(self._is_pointed(stepped, stripe) for stripe in POINTED)

    def _is_buried(self, stepped: SteppedStore, seen: Seen, stripe: Stripe) -> bool:
        view = stepped.look(stripe.parts[0])
        if isinstance(view, SlotView) and view.parts:
            seen.wrong.append("what was deleted is back")
        if isinstance(view, SlotView) and isinstance(view.tombstone, Signed):
            if view.tombstone != stripe.signer.tombstone(1):
                seen.wrong.append("another tombstone")
            return True
        return False

    def _is_pointed(self, stepped: SteppedStore, stripe: Stripe) -> bool:
        view = stepped.look(stripe.parts[0])
        return isinstance(view, SlotView) and [table.descriptor_hash for table in view.tables] == [
            stripe.parts[0].descriptor_hash
        ]

    def _put_again(self, stepped: SteppedStore, seen: Seen, stripe: Stripe) -> None:
        outcome = stepped.put(part_of(stripe))
        if stepped.store._handles.damaged:  # the first to meet a page: BUSY
            assert isinstance(outcome, LockboxError)
            assert outcome.code is ErrorCode.BUSY
            self._mend(stepped)
            outcome = stepped.put(part_of(stripe))
        if not isinstance(outcome, PutOutcome):
            seen.wrong.append(f"put again: {outcome}")
            return
        found = stepped.get(part_of(stripe))
        if isinstance(found, LockboxError) or bytes_of(found) != bytes_of(part_of(stripe)):
            seen.wrong.append(f"get after put again: {found}")


def bytes_of(part: StripePart) -> tuple[object, ...]:
    """All but lease and renewal, which a damaged row may have lost, and the table, which others correct."""
    return (
        part.address,
        part.version,
        part.descriptor_hash,
        part.descriptor,
        part.tier,
        part.slots,
        part.index,
        part.shards,
    )


def problems(seen: Seen) -> list[str]:
    """What may not be."""
    found = list(seen.wrong)
    if not seen.lost:
        found += [
            f"not told of {stripe.signer.address.hex()[:8]}"
            for stripe in seen.missing
            if stripe.signer.address not in seen.told
        ]
        if seen.tombstones < len(GONE):
            found.append("a tombstone is silently gone")
        if seen.pointers < len(POINTED):
            found.append("a pointer is silently gone")
    return found
