"""What the shard store loses under faults, counted: `python -m benchmarks.reliability [--kills 200] [--seeds 3]`.

The faults are those of the test suite, run on the real store, as many as are asked for, and everything that was
acknowledged is read again after each. The careless store of the third row is the same with synchronous=NORMAL: it must
lose, or the row above it would say nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.adapters import test_bit_flips as flips
from tests.adapters import test_disk_full as full
from tests.adapters import test_failing_flush as failing
from tests.adapters import test_power_loss as power
from tests.adapters.flipping import Flipped, filled
from tests.adapters.kills import Kills
from tests.fakes.recording_vfs import recording_vfs

if TYPE_CHECKING:
    from collections.abc import Iterator

REPEATS = 3  # power losses at one cut, each with other sectors lost


def kills(folder: Path, count: int) -> Iterator[str]:
    """SIGKILL of a process that puts and deletes, on one directory."""
    run = Kills(folder, Random(1))
    for number in range(count):
        run.once()
        if number % 20 == 19:
            print(f"{number + 1} of {count} kills", file=sys.stderr)
    run.finish()
    acknowledged = f"{len(run.puts):,} puts and {len(run.deletes):,} deletes acknowledged"
    yield f"| SIGKILL at a random moment | {run.kills:,} kills; {acknowledged} | {len(run.wrong)} |"


def cuts(folder: Path, seeds: int) -> Iterator[str]:
    """Power losses at every sync point, and the careless store that must lose."""
    log = power.recorded(folder / "store", rounds=4)
    found = [
        problem
        for seed in range(seeds)
        for problem in power.problems_of(log, folder / f"after-{seed}", Random(seed), repeats=REPEATS)
    ]
    count = len(power.cuts_of(log)) * REPEATS * seeds
    what = "power loss before and after every flush and answer, unsynced sectors dropped at random"
    yield f"| {what} | {count:,} cuts | {len(found)} |"
    careless = power.recorded(folder / "careless", rounds=4, synchronous="NORMAL")
    lost = power.problems_of(careless, folder / "after", Random(0), repeats=REPEATS)
    count = len(power.cuts_of(careless)) * REPEATS
    losing = len({problem.partition(":")[0] for problem in lost})
    yield f"| the same with synchronous=NORMAL: seen to lose | {count:,} cuts | {len(lost)}, at {losing} cuts |"


def flipped(folder: Path, seeds: int) -> Iterator[str]:
    """Single bits of database, WAL and large files. A wrong byte or a silent loss would end the run."""
    rest = Flipped(filled(folder / "clean", clean=True), folder / "clean-flipped")
    killed = Flipped(filled(folder / "open", clean=False), folder / "killed-flipped")
    outcomes = flips.flips_of(rest, 269, 1, 1009) + flips.flips_of(killed, 523, 4001, 10_007)
    for seed in range(1, seeds):
        outcomes += flips.flips_of(rest, 269, 1, 1009, seed) + flips.flips_of(killed, 523, 4001, 10_007, seed)
    quiet = outcomes["all"] - outcomes["told"]
    what = "one bit flipped in database, WAL or a large file"
    told = f"{quiet:,} cost nothing, {outcomes['told']:,} were found and reported"
    yield f"| {what} | {outcomes['all']:,} flips; {told} | 0 wrong bytes, 0 silent losses |"


def full_disks(folder: Path) -> Iterator[str]:
    """ENOSPC at every write of a workload."""
    with recording_vfs() as vfs:
        sites = 0
        while full.worked_while_full(vfs, folder / "store", range(sites, sites + 1)):
            sites += 1
    yield f"| the disk is full at one write (database, WAL, file, directory) | {sites:,} write sites | 0 |"


def failed_flushes(folder: Path) -> Iterator[str]:
    """EIO at every flush of a workload."""
    with recording_vfs() as vfs:
        sites = 0
        while failing.worked_on_a_failing_disk(vfs, folder / "store", folder / "after", sites):
            sites += 1
    yield f"| a flush fails with EIO: read-only from then on, no flush tried again | {sites:,} flushes | 0 |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    print("| fault | how often | lost, torn or back from the dead |\n|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as disk,
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as room,
    ):
        for name in ("kills", "cuts", "flips", "full", "failing"):
            Path(room, name).mkdir()
        rows = (
            kills(Path(disk), options.kills),
            cuts(Path(room, "cuts"), options.seeds),
            flipped(Path(room, "flips"), options.seeds),
            full_disks(Path(room, "full")),
            failed_flushes(Path(room, "failing")),
        )
        for row in rows:
            for line in row:
                print(line, flush=True)


if __name__ == "__main__":
    main()
