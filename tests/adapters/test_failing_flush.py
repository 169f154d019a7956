"""A flush fails with an I/O error, each one in turn: the store says so, takes no more writes, and never flushes again.

The kernel may have dropped what it could not write and may call the next flush a success: only a restart, which reads
what is really there, makes the store whole again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lockbox_node.errors import ConfigError, LockboxError
from tests.adapters.store_workload import BIG, Delete, Expectation, Put, damage_of, empty, run, steps
from tests.fakes.disk_log import DiskLog, Flush, FlushDirectory, PowerLoss
from tests.fakes.recording_disk import RecordingDisk
from tests.fakes.recording_vfs import RecordingVFS, recording_vfs
from tests.fakes.stepped_store import SteppedStore
from tests.fakes.stripes import make_stripe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.adapters.store_workload import Change

pytestmark = pytest.mark.real
SMALL, LARGE = make_stripe("stood before"), make_stripe("stood before too", **BIG)
BEFORE: tuple[tuple[Change, ...], ...] = ((Put(SMALL), Put(LARGE)),)
AFTER: tuple[tuple[Change, ...], ...] = ((Put(make_stripe("late")),), (Delete(SMALL, 1),), ())


@pytest.fixture
def vfs() -> Iterator[RecordingVFS]:
    with recording_vfs() as vfs:
        yield vfs


def flushes_of(log: DiskLog) -> list[bool]:
    """Whether each flush failed, in order."""
    return [event.failed for event in log.events if isinstance(event, Flush | FlushDirectory)]


def worked_on_a_failing_disk(vfs: RecordingVFS, data_dir: Path, after: Path, at: int) -> bool:
    """Work until flush number `at` fails and beyond; whether there were so many flushes."""
    empty(data_dir)
    told: list[str] = []
    with vfs.recording(data_dir) as log:
        stepped = SteppedStore(data_dir, disk=RecordingDisk(log))
        stepped.store.on_broken = told.append
        assert run(stepped, log, BEFORE) == []
        log.faults.flushes, log.faults.broken = 0, at
        errors = run(stepped, log, steps())
        if not any(flushes_of(log)):
            stepped.close()
            return False
        assert told == [stepped.store.broken] != [""]
        assert all("read-only" in str(error) for error in errors)
        assert all("read-only" in str(error) for error in run(stepped, log, AFTER[:1]) + run(stepped, log, AFTER[1:]))
        expectation = Expectation()
        expectation.take(log.events)
        assert expectation.problems(stepped) == []
        stepped.close()
        assert len(told) == 1
        assert flushes_of(log).index(True) == len(flushes_of(log)) - 1
    assert problems_on_a_good_disk(data_dir, expectation) == []
    empty(after)
    power = PowerLoss(log)
    power.advance(len(log.events))
    power.leave(after, random.Random(at))
    assert problems_on_a_good_disk(after, expectation) == []
    return True


def problems_on_a_good_disk(data_dir: Path, expectation: Expectation) -> list[str]:
    """What is wrong when the store is opened again."""
    stepped = SteppedStore(data_dir)
    found = expectation.problems(stepped)
    assert not isinstance(stepped.put(make_stripe("good again").parts[0]), LockboxError)
    stepped.rest()
    stepped.close()
    return found + damage_of(data_dir)


def test_a_failed_flush_is_the_last_one(vfs: RecordingVFS, ram_path: Path) -> None:
    at = 0
    while worked_on_a_failing_disk(vfs, ram_path / "store", ram_path / "after", at):
        at += 1
    assert at > 20


def test_a_store_whose_disk_fails_while_it_opens_is_refused(vfs: RecordingVFS, ram_path: Path) -> None:
    with vfs.recording(ram_path) as log:
        refused = 0
        for at in range(40):
            log.faults.flushes, log.faults.broken = 0, at
            try:
                SteppedStore(ram_path, disk=RecordingDisk(log)).close()
            except ConfigError:
                refused += 1
    assert refused > 5
    assert problems_on_a_good_disk(ram_path, Expectation()) == []
