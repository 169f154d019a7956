"""Kills a working store at random moments, again and again on one directory, and looks what is left each time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from lockbox_node.errors import LockboxError, ShardMissing
from lockbox_node.ports import StripeSummary
from tests.adapters.store_killed import is_deleted, stripe_of
from tests.fakes.stepped_store import SteppedStore

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

NUMBERS = 100_000  # of one life
LOOKED_AGAIN = 40  # parts of earlier lives that are read after each kill; all of them at the end
ACKNOWLEDGEMENTS_MAX = 150  # before a kill
DELAY_MAX_S = 0.02  # from the last of them to the kill


@dataclass
class Kills:
    """What was acknowledged over all lives, and what was found wrong."""

    data_dir: Path
    rng: Random
    kills: int = 0
    puts: set[int] = field(default_factory=set)
    deletes: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def once(self) -> None:
        """One life, one kill, one look."""
        self.kills += 1
        start = self.kills * NUMBERS
        command = [sys.executable, "-m", "tests.adapters.store_killed", str(self.data_dir), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(self.rng.randint(1, ACKNOWLEDGEMENTS_MAX))]
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.rng.uniform(0, DELAY_MAX_S))
            process.kill()
            lines += [line for line in process.stdout if line.endswith("\n")]
        puts = {int(line.split()[1]) for line in lines if line.startswith("put")}
        deletes = {int(line.split()[1]) for line in lines if line.startswith("delete")}
        older = self.rng.sample(sorted(self.puts), min(LOOKED_AGAIN, len(self.puts)))
        self.puts |= puts
        self.deletes |= deletes
        self._look([*sorted(puts), *older])

    def finish(self) -> None:
        """Everything that was ever acknowledged; and nothing stands that is not whole, in rows or files."""
        self._look(sorted(self.puts), everything=True)

    def _look(self, numbers: list[int], *, everything: bool = False) -> None:
        stepped = SteppedStore(self.data_dir)
        for number in numbers:
            self._judge(stepped, number)
        if everything:
            self._read_all(stepped)
        stepped.close()

    def _judge(self, stepped: SteppedStore, number: int) -> None:
        part = stripe_of(number).parts[0]
        found = stepped.get(part)
        if number in self.deletes:
            if not isinstance(found, ShardMissing):
                self.wrong.append(f"{number} was deleted and is there")
            if not isinstance(stepped.put(part), LockboxError):
                self.wrong.append(f"{number} was deleted and came back")
        elif found != part and not (is_deleted(number) and isinstance(found, ShardMissing)):
            self.wrong.append(f"{number} was acknowledged and is not there: {found}")

    def _read_all(self, stepped: SteppedStore) -> None:
        after, seen = b"", 0
        page: object = [None]
        while page:
            page = stepped.ask(partial(stepped.store.summaries, after, 500))
            assert isinstance(page, list)
            for summary in page:
                assert isinstance(summary, StripeSummary)
                part = stepped.ask(partial(stepped.store.get, summary.address, summary.descriptor_hash))
                if isinstance(part, LockboxError):
                    self.wrong.append(f"a part stands that cannot be read: {part}")
                after, seen = summary.address + summary.descriptor_hash, seen + 1
        if seen != stepped.store.figures().stripes:
            self.wrong.append(f"{stepped.store.figures().stripes} stripes are counted, {seen} stand")
        stepped.rest()
        rows = {row[0] for row in stepped.store._writer._connection.execute("SELECT rid FROM part WHERE big = 1")}
        files = {int(path.name.rpartition("-")[2]) for path in (self.data_dir / "big").glob("*/*")}
        if files != rows:
            self.wrong.append(f"{len(files - rows)} files without a row, {len(rows - files)} rows without a file")
        if list((self.data_dir / "tmp").iterdir()):
            self.wrong.append("something is left in tmp")
