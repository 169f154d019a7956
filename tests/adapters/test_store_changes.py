"""The bounds that changes keep: tombstones, pointers, and which parts get a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.store_changes import Changes, is_big
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_garbage import standing_at
from lockbox_node.adapters.store_requests import Bury, Merge, Put, Write
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import StoreFull
from tests.fakes.stripes import OWNER, FixedClock, Stripe, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

FAR = 2**40
PARAMS = StoreParams(ballast_bytes=4096, tombstones_max=2, pointers_max=3)


def changes_at(path: Path, params: StoreParams = PARAMS) -> Changes:
    files = BigFiles(path)
    files.prepare()
    changes = Changes(store_schema.open_database(path, b""), files, params, FixedClock())
    changes.room_bytes = 2**40
    return changes


def perform(changes: Changes, request: Write) -> object:
    return changes.perform(request, None, careful=False)


def bury(stripe: Stripe) -> Bury:
    return Bury(stripe.signer.tombstone(1), stripe.signer.address, 1, FAR)


def test_tombstones_where_nothing_stands_are_bounded_others_are_always_kept(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    held, known = make_stripe("held"), make_stripe("known")
    perform(changes, Put(held.parts[0], (), OWNER))
    perform(changes, Merge((known.table,), ()))
    for number in range(2):
        perform(changes, bury(make_stripe(number)))
    with pytest.raises(StoreFull):
        perform(changes, bury(make_stripe("one more")))
    perform(changes, bury(held))
    perform(changes, bury(known))
    assert changes.books.tally.tombstones == 4


def test_pointers_are_bounded(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    perform(changes, Merge(tuple(make_stripe(number).table for number in range(5)), ()))
    assert changes.books.tally.pointers == 3


def test_no_pointer_is_written_below_the_floor(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    changes.room_bytes = 0
    perform(changes, Merge((make_stripe(1).table,), ()))
    assert changes.books.tally.pointers == 0


def test_the_room_of_a_group_is_spent_by_its_puts(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    one, two = (Put(make_stripe(number).parts[0], (), OWNER) for number in (1, 2))
    changes.room_bytes = one.payload_bytes + two.payload_bytes - 1
    perform(changes, one)
    with pytest.raises(StoreFull):
        perform(changes, two)


def test_a_careful_change_leaves_the_old_body_where_it_is(tmp_path: Path) -> None:
    changes = changes_at(tmp_path)
    stripe = make_stripe(1)
    perform(changes, Put(stripe.parts[0], (), OWNER))
    changes.perform(bury(stripe), None, careful=True)
    assert standing_at(changes._connection, stripe.signer.address) == []
    assert changes.books.tally.stripes == 0


def test_a_part_above_the_limit_gets_a_file() -> None:
    part = make_stripe(1, groups=4, shard_bytes=16 * 1024).parts[0]
    assert not is_big(Put(part, (), OWNER), StoreParams())
    assert is_big(Put(replace(part, shards=(*part.shards, b"x")), (), OWNER), StoreParams())
