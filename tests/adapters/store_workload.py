"""What the tests of faults do to a store, and what must be found afterwards.

A workload is a fixed list of steps: puts inside the database and as files, replacements, deletes, a group that shares a
transaction, quiet moments. Everything asked for and everything answered is marked in the log, so that at any cut it is
known what may stand at each address: what was acknowledged, or that and a question still open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lockbox_node.adapters import store_schema
from lockbox_node.errors import LockboxError, StoreFull
from lockbox_node.ports import SlotView
from protocol.records import open_tombstone
from tests.fakes.disk_log import DiskLog, Mark
from tests.fakes.stepped_store import SteppedStore, put_of
from tests.fakes.stripes import Stripe, make_stripe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from lockbox_node.ports import Answer, PutOutcome
    from tests.fakes.disk_log import Event

BIG: dict[str, Any] = {"groups": 4, "shard_bytes": 17_000}


@dataclass(frozen=True)
class Standing:
    """What stands at one address: descriptor hash by version, and the version of the tombstone."""

    parts: frozenset[tuple[int, bytes]] = frozenset()
    tombstone: int = 0


@dataclass(frozen=True)
class Put:
    """Put the first part of a stripe."""

    stripe: Stripe
    replaces: tuple[Stripe, ...] = ()

    def after(self, before: Standing) -> Standing:
        """What stands when it is done."""
        part = self.stripe.parts[0]
        gone = {other.parts[0].descriptor_hash for other in self.replaces}
        kept = {(version, digest) for version, digest in before.parts if digest not in gone}
        return Standing(frozenset(kept | {(part.version, part.descriptor_hash)}), before.tombstone)


@dataclass(frozen=True)
class Delete:
    """Bury what stands up to a version."""

    stripe: Stripe
    version: int

    def after(self, before: Standing) -> Standing:
        """What stands when it is done."""
        return Standing(frozenset(key for key in before.parts if key[0] > self.version), self.version)


Change = Put | Delete


@dataclass(frozen=True)
class Asked:
    """A change was handed to the store."""

    change: Change


@dataclass(frozen=True)
class Answered:
    """The store answered: it is durable (None), or not done."""

    change: Change
    error: LockboxError | None


@cache
def steps(rounds: int = 1) -> tuple[tuple[Change, ...], ...]:
    """Groups of changes; an empty one is a quiet moment."""
    found: list[tuple[Change, ...]] = []
    for number in range(rounds):
        small, big = make_stripe((number, "small")), make_stripe((number, "big"), **BIG)
        grows, shrinks = make_stripe((number, "grows")), make_stripe((number, "shrinks"), **BIG)
        grown = make_stripe((number, "grows"), version=2, replaces=[grows.parts[0].descriptor_hash], **BIG)
        shrunk = make_stripe((number, "shrinks"), version=2, replaces=[shrinks.parts[0].descriptor_hash])
        again = make_stripe((number, "big"), version=2, **BIG)
        together = [make_stripe((number, "together", one), **(BIG if one % 3 == 1 else {})) for one in range(5)]
        found += [
            (Put(small),),
            (Put(big),),
            (Put(grows), Put(shrinks)),
            (),
            (Delete(small, 1),),
            (Put(grown, (grows,)),),
            (Put(shrunk, (shrinks,)), Delete(big, 1)),
            tuple(Put(stripe) for stripe in together),
            (),
            (Put(again),),
            (Delete(together[1], 1), Delete(together[2], 1)),
            (Put(make_stripe((number, "last"))),),
        ]
    return tuple(found)


@dataclass
class Expectation:
    """What may stand at each address, kept up to date with the marks of a log."""

    open: dict[bytes, list[Change]] = field(default_factory=dict)
    stripes: dict[bytes, Stripe] = field(default_factory=dict)
    settled: dict[bytes, Standing] = field(default_factory=dict)

    def take(self, events: Iterable[Event]) -> None:
        """Go along a log."""
        for event in events:
            if isinstance(event, Mark) and isinstance(event.note, Asked):
                stripe = event.note.change.stripe
                self.stripes[stripe.parts[0].descriptor_hash] = stripe
                self.settled.setdefault(stripe.signer.address, Standing())
                self.open.setdefault(stripe.signer.address, []).append(event.note.change)
            elif isinstance(event, Mark) and isinstance(event.note, Answered):
                change, error = event.note.change, event.note.error
                address = change.stripe.signer.address
                if error is None:
                    self.settled[address] = change.after(self.settled[address])
                if error is None or isinstance(error, StoreFull):  # any other error leaves open whether it was done
                    self.open[address].remove(change)

    def problems(self, stepped: SteppedStore) -> list[str]:
        """What a store shows that may not be; each begins with `lost` (or undone) or with `torn`."""
        found: list[str] = []
        standing = 0
        for stripe in {stripe.signer.address: stripe for stripe in self.stripes.values()}.values():
            address = stripe.signer.address
            view = stepped.look(stripe.parts[0])
            if not isinstance(view, SlotView):
                found.append(f"torn: look says {view}")
                continue
            seen = _standing_of(view)
            may = {self.settled[address]}
            for change in self.open[address]:
                may |= {change.after(before) for before in may}
            if seen not in may:
                found.append(f"lost: {seen} where {may} may stand")
            for _, digest in seen.parts:
                standing += 1
                if (part := stepped.get(self.stripes[digest].parts[0])) != self.stripes[digest].parts[0]:
                    found.append(f"torn: get says {part if isinstance(part, LockboxError) else 'something else'}")
        figures = stepped.store.figures()
        if (figures.stripes, figures.corrupt) != (standing, 0):
            found.append(f"torn: {figures} where {standing} parts stand")
        return found


def _standing_of(view: SlotView) -> Standing:
    version = 0 if view.tombstone is None else open_tombstone(view.tombstone).version
    return Standing(frozenset((part.version, bytes(part.descriptor_hash)) for part in view.parts), version)


def run(stepped: SteppedStore, log: DiskLog, groups: Iterable[tuple[Change, ...]]) -> list[LockboxError]:
    """Do the steps, marking them in the log; the errors that were answered."""
    errors = []
    for group in groups:
        for change in group:
            log.mark(Asked(change))
        for change, answer in zip(group, stepped.ask_all([_start(stepped, one) for one in group]), strict=True):
            error = answer if isinstance(answer, LockboxError) else None
            log.mark(Answered(change, error))
            errors += [] if error is None else [error]
        if not group:
            stepped.rest()
    return errors


def _start(stepped: SteppedStore, change: Change) -> Callable[[Answer[PutOutcome | None]], None]:
    part, store = change.stripe.parts[0], stepped.store
    if isinstance(change, Put):
        replaces = [other.parts[0].descriptor_hash for other in change.replaces]
        return partial(put_of, store, part, replaces)
    return partial(store.delete, change.stripe.signer.tombstone(change.version), part.address, change.version, 2**40)


def empty(directory: Path) -> None:
    """Remove the files, keep the directories: making 256 of them is most of the time of a run."""
    directory.mkdir(exist_ok=True)
    for folder, _, names in os.walk(directory):
        for name in names:
            os.unlink(os.path.join(folder, name))


def damage_of(data_dir: Path) -> list[str]:
    """What SQLite finds wrong, and rows and files that do not belong together, in a store at rest."""
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    try:
        found = [f"torn: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        rows = {int(row[0]) for row in connection.execute("SELECT rid FROM part WHERE big = 1")}
    finally:
        connection.close()
    files = {int(path.name.rpartition("-")[2]) for path in (data_dir / "big").glob("*/*")}
    return found + ([] if rows == files else [f"torn: rows {sorted(rows)}, files {sorted(files)}"])
