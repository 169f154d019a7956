"""The disk is full at every single write: the answer is STORE_FULL, nothing is lost, and deletes work again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from lockbox_node.errors import ConfigError, StoreFull
from tests.adapters.store_workload import BIG, Delete, Expectation, Put, damage_of, empty, run, steps
from tests.fakes.recording_disk import RecordingDisk
from tests.fakes.recording_vfs import RecordingVFS, recording_vfs
from tests.fakes.stepped_store import SteppedStore
from tests.fakes.stripes import make_stripe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.adapters.store_workload import Change
    from tests.fakes.disk_log import DiskLog

pytestmark = pytest.mark.real
SMALL, LARGE = make_stripe("stood before"), make_stripe("stood before too", **BIG)
BEFORE: list[tuple[Change, ...]] = [(Put(SMALL), Put(LARGE))]
AFTER: list[tuple[Change, ...]] = [
    (Delete(SMALL, 1), Delete(LARGE, 1)),
    (Put(make_stripe("room again", **BIG)), Put(make_stripe("and again"))),
    (),
]


@pytest.fixture
def vfs() -> Iterator[RecordingVFS]:
    with recording_vfs() as vfs:
        yield vfs


def problems_of(stepped: SteppedStore, log: DiskLog) -> list[str]:
    """What the store shows that may not be."""
    expectation = Expectation()
    expectation.take(log.events)
    return expectation.problems(stepped)


def worked_while_full(vfs: RecordingVFS, data_dir: Path, full: range) -> bool:
    """Work while these writes find the disk full, then with room again; whether there were so many writes."""
    empty(data_dir)
    with vfs.recording(data_dir) as log:
        stepped = SteppedStore(data_dir, disk=RecordingDisk(log))
        assert run(stepped, log, BEFORE) == []
        log.faults.writes, log.faults.full = 0, full
        errors = run(stepped, log, steps())
        reached, log.faults.full = log.faults.writes > full.start, range(0)
        assert {type(error) for error in errors} <= {StoreFull}
        assert problems_of(stepped, log) == []
        assert run(stepped, log, AFTER) == []
        assert problems_of(stepped, log) == []
        assert stepped.store.broken == ""
        stepped.close()
        stepped = SteppedStore(data_dir)
        assert problems_of(stepped, log) == []
        stepped.rest()
        stepped.close()
    assert damage_of(data_dir) == []
    return reached


def test_one_write_finds_the_disk_full(vfs: RecordingVFS, ram_path: Path) -> None:
    at = 0
    while worked_while_full(vfs, ram_path / "store", range(at, at + 1)):
        at += 1
    assert at > 200


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.long)])
def test_the_disk_stays_full(vfs: RecordingVFS, ram_path: Path, stride: int) -> None:
    at = 0
    while worked_while_full(vfs, ram_path / "store", range(at, sys.maxsize)):
        at += stride
    assert at > 200


def test_a_store_on_a_full_disk_opens_again_when_there_is_room(vfs: RecordingVFS, ram_path: Path) -> None:
    """While there is none it may be refused: nothing is lost by that."""
    with vfs.recording(ram_path) as log:
        stepped = SteppedStore(ram_path, disk=RecordingDisk(log))
        run(stepped, log, [*BEFORE, *steps()])
        stepped.close()
        hints = set()
        for at in range(20):
            log.faults.writes, log.faults.full = 0, range(at, sys.maxsize)
            try:
                stepped = SteppedStore(ram_path, disk=RecordingDisk(log))
                assert problems_of(stepped, log) == []
                stepped.close()
            except ConfigError as error:
                hints.add(error.hint)
            log.faults.full = range(0)
            stepped = SteppedStore(ram_path, disk=RecordingDisk(log))
            assert problems_of(stepped, log) == []
            stepped.close()
    assert "make room on its disk" in hints
