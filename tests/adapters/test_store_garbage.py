"""What leaves: marked first, gone later, in bounded steps."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_changes import Changes
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_requests import Bury, Drop, EmptyTrash, Expire, Merge, Put, Write
from lockbox_node.core.slots import TOMBSTONE_MARGIN_S
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import StoreFull
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, OWNER, FixedClock, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

OVER = NOW_UNIX_S + 30 * DAY_S


def changes_at(path: Path, params: StoreParams = StoreParams(idle_rows_max=4)) -> Changes:  # noqa: B008  # frozen
    files = BigFiles(path)
    files.prepare()
    changes = Changes(store_schema.open_database(path, b""), files, params, FixedClock())
    changes.room_bytes = 2**40
    return changes


def perform(changes: Changes, request: Write) -> object:
    return changes.perform(request, None, careful=False)


def test_ended_leases_go_to_trash_step_by_step(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    for number in range(6):
        perform(changes, Put(make_stripe(number).parts[0], (), OWNER))
    assert perform(changes, Expire(OVER - 1, 100)) == 0
    assert [perform(changes, Expire(OVER, 100)) for _ in range(3)] == [4, 2, 0]
    assert changes.books.tally.trash_stripes == changes.books.tally.stripes == 6


def test_trash_goes_when_its_uptime_is_over(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    for number in range(6):
        perform(changes, Put(make_stripe(number).parts[0], (), OWNER))
    while perform(changes, Expire(OVER, 100)):
        pass
    assert perform(changes, EmptyTrash(99)) == 0
    assert perform(changes, EmptyTrash(-1)) == 0
    assert [perform(changes, EmptyTrash(100)) for _ in range(3)] == [4, 2, 0]
    tally = changes.books.tally
    assert (tally.stripes, tally.logical_bytes, tally.trash_stripes, tally.trash_bytes) == (0, 0, 0, 0)


def test_tombstones_beyond_their_number_take_room_from_what_is_put(tmp_path: Path) -> None:
    changes = changes_at(tmp_path, StoreParams(capacity_bytes=6000, tombstones_max=2))

    def in_turn(number: int) -> None:
        stripe = make_stripe(number)
        perform(changes, Put(stripe.parts[0], (), OWNER))
        perform(changes, Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, NOW_UNIX_S))

    for number in range(3):
        in_turn(number)
    with pytest.raises(StoreFull):
        list(map(in_turn, range(3, 30)))
    assert changes.books.tally.stripes == 0


def test_with_too_many_tombstones_no_pointer_comes(tmp_path: Path) -> None:
    changes = changes_at(tmp_path, StoreParams(tombstones_max=2))
    for number in range(5):
        stripe = make_stripe(number)
        perform(changes, Merge((stripe.table,), ()))
        with contextlib.suppress(StoreFull):
            perform(changes, Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, NOW_UNIX_S))
    assert changes.books.tally.tombstones == 3


def test_a_tombstone_outlives_the_longest_lease_that_it_buried(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    stripe = make_stripe(1)
    perform(changes, Put(stripe.parts[0], (), OWNER))
    perform(changes, Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, NOW_UNIX_S))
    assert perform(changes, Expire(OVER + TOMBSTONE_MARGIN_S - 1, 1)) == 0
    assert perform(changes, Expire(OVER + TOMBSTONE_MARGIN_S, 1)) == 1
    assert changes.books.tally.tombstones == 0


def test_the_same_tombstone_with_a_longer_time_stays_longer(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    stripe = make_stripe(1)
    for until in (100, 300, 200):
        perform(changes, Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, until))
    assert perform(changes, Expire(299, 1)) == 0
    assert perform(changes, Expire(300, 1)) == 1


def test_one_part_is_dropped_and_its_sibling_stays(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    one, two = (make_stripe(1, salt=salt).parts[0] for salt in (1, 2))
    for part in (one, two):
        perform(changes, Put(part, (), OWNER))
    for _ in range(2):
        perform(changes, Drop(one.address, one.descriptor_hash))
    assert changes.books.tally.stripes == 1
