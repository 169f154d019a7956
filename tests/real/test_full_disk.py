"""A small file system that really fills up: 48 MB of ext4 on a loop device, mounted for one test.

What an injecting disk cannot show: SQLite's WAL index grows in shared memory that is a file too, and the kernel decides
how much room a write needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from lockbox_node.errors import LockboxError, StoreFull
from tests.adapters.store_workload import BIG, damage_of
from tests.fakes.stepped_store import PARAMS, SteppedStore
from tests.fakes.stripes import Stripe, make_stripe
from tests.real.loop_disk import loop_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.real]
DISK_BYTES = 48 * 1024 * 1024
WAL_INDEX_PAGES = 4062  # frames that the first 32 KiB of the WAL index name: sqlite.org/walformat.html

WITH_BALLAST = dataclasses.replace(PARAMS, ballast_bytes=8 * 1024 * 1024)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    with loop_disk(tmp_path / "image", mounted, DISK_BYTES):
        yield mounted


def free_bytes(disk: Path) -> int:
    """What an ordinary write may still take."""
    figures = os.statvfs(disk)
    return figures.f_bavail * figures.f_frsize


def fill(disk: Path, leave_bytes: int) -> None:
    """Another program writes until so much is left."""
    with (disk / "filler").open("ab") as stream:
        while free_bytes(disk) > leave_bytes:
            size = os.fstat(stream.fileno()).st_size
            with contextlib.suppress(OSError):  # the last blocks may go to the file system itself
                os.posix_fallocate(stream.fileno(), size, max(free_bytes(disk) - leave_bytes, 1))
            if os.fstat(stream.fileno()).st_size == size:
                return


def put_until_full(stepped: SteppedStore, refusals: int) -> list[Stripe]:
    """Put small and large parts until so many were refused, each with StoreFull; those that were taken."""
    taken = []
    number = 0
    while refusals:
        stripe = make_stripe(("filling", number), **(BIG if number % 5 == 0 else {"shard_bytes": 3000}))
        answer = stepped.put(stripe.parts[0])
        if isinstance(answer, LockboxError):
            assert isinstance(answer, StoreFull), answer
            refusals -= 1
        else:
            taken.append(stripe)
        number += 1
    return taken


def unreadable(stepped: SteppedStore, stripes: list[Stripe]) -> int:
    """How many of them cannot be had."""
    return sum(stepped.get(stripe.parts[0]) != stripe.parts[0] for stripe in stripes)


def test_a_full_disk_is_an_answer_and_deletes_make_room(disk: Path) -> None:
    data_dir = disk / "store"
    data_dir.mkdir()
    stepped = SteppedStore(data_dir, WITH_BALLAST)
    taken = put_until_full(stepped, 30)
    assert len(taken) > 500
    assert unreadable(stepped, taken) == 0
    stepped.rest()
    gone, kept = taken[:200], taken[200:]
    for stripe in gone:
        assert stepped.delete(stripe.signer.tombstone(1), stripe.parts[0], 1) is None
    stepped.rest()
    late = make_stripe("late", **BIG)
    assert not isinstance(stepped.put(late.parts[0]), LockboxError)
    assert stepped.store.broken == ""
    stepped.close()
    stepped = SteppedStore(data_dir, WITH_BALLAST)
    assert unreadable(stepped, [*kept, late]) == 0
    assert unreadable(stepped, gone) == len(gone)
    stepped.rest()
    stepped.close()
    assert damage_of(data_dir) == []


def test_no_room_for_the_index_of_the_wal_breaks_nothing(disk: Path) -> None:
    params = dataclasses.replace(PARAMS, checkpoint_wal_bytes=2**40)
    for leave_bytes in range(64 * 1024, 136 * 1024, 8 * 1024):
        data_dir = disk / "store"
        data_dir.mkdir()
        stepped = SteppedStore(data_dir, params)
        taken: list[Stripe] = []
        while stepped.store._writer.wal_pages < WAL_INDEX_PAGES - 10:
            taken.append(make_stripe(len(taken)))
            assert not isinstance(stepped.put(taken[-1].parts[0]), LockboxError)
        fill(disk, leave_bytes)
        taken += put_until_full(stepped, 3)
        assert stepped.store.broken == ""
        (disk / "filler").unlink()
        assert not isinstance(stepped.put(make_stripe("room again").parts[0]), LockboxError)
        assert unreadable(stepped, taken) == 0
        stepped.close()
        assert damage_of(data_dir) == []
        shutil.rmtree(data_dir)


def test_a_store_on_a_disk_that_others_filled_opens_and_deletes_by_its_ballast(disk: Path) -> None:
    data_dir = disk / "store"
    data_dir.mkdir()
    stepped = SteppedStore(data_dir, WITH_BALLAST)
    stripes = [make_stripe(number, **(BIG if number % 5 == 0 else {})) for number in range(60)]
    for stripe in stripes:
        assert not isinstance(stepped.put(stripe.parts[0]), LockboxError)
    stepped.rest()
    stepped.close()
    fill(disk, 0)
    stepped = SteppedStore(data_dir, WITH_BALLAST)
    assert isinstance(stepped.put(make_stripe("refused").parts[0]), StoreFull)
    assert unreadable(stepped, stripes) == 0
    for stripe in stripes[:30]:
        assert stepped.delete(stripe.signer.tombstone(1), stripe.parts[0], 1) is None
    assert stepped.store.broken == ""
    (disk / "filler").unlink()
    stepped.rest()
    assert stepped.store.figures().reserved_bytes == WITH_BALLAST.ballast_bytes
    assert not isinstance(stepped.put(make_stripe("taken again").parts[0]), LockboxError)
    assert unreadable(stepped, stripes[30:]) == 0
    stepped.close()
