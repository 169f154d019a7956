"""One bit flipped anywhere in database, WAL or a large file: never a wrong byte, never a silent loss, never the end.

Every so many bytes, from a start that the seed draws, a bit that it draws; the long form takes some thousands.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from tests.adapters.flipping import Flipped, Seen, filled, problems

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real
MEMORY = Path("/dev/shm")  # only for speed
DATABASE, WAL = store_schema.DATABASE, f"{store_schema.DATABASE}-wal"
HEAD_BYTES = 100  # of a database and of a WAL: each byte means something


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, where there is one."""
    base = MEMORY / f"flips-{os.getpid()}" if os.access(MEMORY, os.W_OK) else tmp_path_factory.mktemp("flips")
    base.mkdir(exist_ok=True)
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def clean(room: Path) -> Flipped:
    """Closed: all is in the database."""
    return Flipped(filled(room / "clean", clean=True), room / "clean-flipped")


@pytest.fixture(scope="module")
def killed(room: Path) -> Flipped:
    """Killed: half of it is in the WAL."""
    return Flipped(filled(room / "open", clean=False), room / "killed-flipped")


def flip_each(flipped: Flipped, name: str, every: int, rng: random.Random) -> list[Seen]:
    """Every so many bytes a random bit, and one in each second byte of the head."""
    size = flipped.sizes()[name]
    heads = range(rng.randrange(2), min(HEAD_BYTES, size), 2 if every > 1 else 1)
    found = []
    for offset in sorted({*heads, *range(rng.randrange(every), size, every)}):
        bit = rng.randrange(8)
        seen = flipped.check(name, offset, bit)
        assert problems(seen) == [], f"{name}, byte {offset}, bit {bit}"
        found.append(seen)
    return found


def flips_of(flipped: Flipped, database: int, wal: int, large: int, seed: int = 0) -> Counter[str]:
    """Flips of all files; how many cost nothing, were reported, cost parts."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for name in flipped.sizes():
        every = {DATABASE: database, WAL: wal}.get(name, large)
        for seen in flip_each(flipped, name, every, rng):
            outcomes["missing"] += bool(seen.missing)
            outcomes["told"] += bool(seen.told or seen.lost)
            outcomes["all"] += 1
    return outcomes


def test_without_a_flip_all_is_there(clean: Flipped, killed: Flipped) -> None:
    for flipped in (clean, killed):
        flipped.refresh()
        seen = flipped.use()
        assert (seen.missing, seen.lost, seen.told, seen.tombstones, seen.pointers) == ([], [], set(), 3, 3)
        assert problems(seen) == []
    assert {DATABASE, WAL} < killed.sizes().keys()
    assert WAL not in clean.sizes()


@pytest.mark.slow
def test_a_flip_in_a_store_at_rest_is_never_a_wrong_byte(clean: Flipped) -> None:
    outcomes = flips_of(clean, 1499, 1, 9973)
    assert outcomes["all"] > outcomes["told"] > outcomes["missing"] > 10


@pytest.mark.slow
def test_a_flip_in_a_store_that_was_killed_is_never_a_wrong_byte(killed: Flipped) -> None:
    outcomes = flips_of(killed, 9973, 19_997, 49_999)
    assert outcomes["all"] > outcomes["told"] > outcomes["missing"] > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_more_flips_are_never_a_wrong_byte(clean: Flipped, killed: Flipped, seed: int) -> None:
    flips_of(clean, 269, 1, 1009, seed)
    flips_of(killed, 523, 4001, 10_007, seed)
