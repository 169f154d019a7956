"""The power fails at every flush of a workload: what was acknowledged is there, whole, and nothing is half there.

The same is run with a store that is careless in one way (SQLite's NORMAL, no flush of large files, none of their
directories): it must lose something, so that the test is known to see.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw
import pytest

from tests.adapters.store_workload import Answered, Expectation, damage_of, empty, run, steps
from tests.fakes.disk_log import DiskLog, Flush, FlushDirectory, Mark, PowerLoss
from tests.fakes.recording_disk import RecordingDisk
from tests.fakes.recording_vfs import recording_vfs
from tests.fakes.stepped_store import SteppedStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real


@contextmanager
def opened_connections() -> Iterator[list[apsw.Connection]]:
    """The connections that are opened meanwhile."""
    seen: list[apsw.Connection] = []
    apsw.connection_hooks.append(seen.append)
    try:
        yield seen
    finally:
        apsw.connection_hooks.remove(seen.append)


def recorded(
    data_dir: Path, *, rounds: int, synchronous: str = "FULL", forgets: frozenset[str] = frozenset()
) -> DiskLog:
    """The log of a store that is made, used and closed."""
    data_dir.mkdir()
    with recording_vfs() as vfs, vfs.recording(data_dir) as log:
        with opened_connections() as connections:
            stepped = SteppedStore(data_dir, disk=RecordingDisk(log, forgets))
        for connection in connections[-2:]:
            connection.execute(f"PRAGMA synchronous={synchronous}").fetchall()
        assert run(stepped, log, steps(rounds)) == []
        stepped.close()
    return log


def cuts_of(log: DiskLog) -> list[int]:
    """Before and after every flush, and after every answer."""
    cuts = {len(log.events)}
    for at, event in enumerate(log.events):
        if isinstance(event, Flush | FlushDirectory):
            cuts |= {at, at + 1}
        elif isinstance(event, Mark) and isinstance(event.note, Answered):
            cuts.add(at + 1)
    return sorted(cuts)


def problems_of(log: DiskLog, target: Path, rng: random.Random, *, repeats: int = 1) -> list[str]:
    """What is wrong after a power loss, over all cuts."""
    power, expectation, found, before = PowerLoss(log), Expectation(), [], 0
    for cut in cuts_of(log):
        power.advance(cut)
        expectation.take(log.events[before:cut])
        before = cut
        for _ in range(repeats):
            empty(target)
            power.leave(target, rng)
            stepped = SteppedStore(target)
            seen = expectation.problems(stepped)
            stepped.rest()
            seen += damage_of(target)
            stepped.close()
            found += [f"cut {cut}: {problem}" for problem in seen]
    return found


def test_nothing_acknowledged_is_lost(ram_path: Path, rng: random.Random) -> None:
    log = recorded(ram_path / "store", rounds=1)
    assert sum(isinstance(event, Flush) for event in log.events) > 20
    assert problems_of(log, ram_path / "after", rng, repeats=3) == []


def test_a_store_that_was_being_made_is_made_anew(ram_path: Path, rng: random.Random) -> None:
    assert problems_of(recorded(ram_path / "store", rounds=0), ram_path / "after", rng, repeats=4) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_nothing_acknowledged_is_lost_in_a_long_run(ram_path: Path, seed: int) -> None:
    log = recorded(ram_path / "store", rounds=4)
    assert problems_of(log, ram_path / "after", random.Random(seed), repeats=5) == []


def test_a_commit_without_its_flush_is_seen_to_lose(ram_path: Path, rng: random.Random) -> None:
    found = problems_of(recorded(ram_path / "store", rounds=1, synchronous="NORMAL"), ram_path / "after", rng)
    assert any(": lost: " in problem for problem in found)


@pytest.mark.parametrize("step", ["flush", "flush_directory"])
def test_a_large_file_without_its_flushes_is_seen_to_be_torn(ram_path: Path, rng: random.Random, step: str) -> None:
    found = problems_of(recorded(ram_path / "store", rounds=1, forgets=frozenset([step])), ram_path / "after", rng)
    assert any(": torn: get " in problem for problem in found)


def test_what_was_flushed_is_there_and_the_rest_may_be_torn(ram_path: Path, rng: random.Random) -> None:
    log = DiskLog(ram_path / "nothing")
    disk = RecordingDisk(log)
    (ram_path / "nothing").mkdir()
    for name in ("kept", "open", "unnamed"):
        descriptor = disk.create(ram_path / "nothing" / name)
        disk.write(descriptor, [b"a" * 2048])
        if name != "open":
            disk.flush(descriptor)
        if name != "unnamed":
            disk.flush_directory(ram_path / "nothing")
        disk.close(descriptor)
    power = PowerLoss(log)
    power.advance(len(log.events))
    sizes: dict[str, set[int]] = {"kept": set(), "open": set(), "unnamed": set()}
    for number in range(50):
        (ram_path / str(number)).mkdir()
        power.leave(ram_path / str(number), rng)
        for name, seen in sizes.items():
            path = ram_path / str(number) / name
            seen.add(path.read_bytes().count(b"a") if path.exists() else -1)
    assert sizes["kept"] == {2048}
    assert sizes["open"] == {0, 512, 1024, 1536, 2048}
    assert sizes["unnamed"] == {-1, 2048}
