"""What a failing disk makes of one part."""

from __future__ import annotations

import pytest

from simulations.kept import Kept, size_of
from tests.fakes.stripes import make_stripe

PART = make_stripe(1).parts[0]


def test_a_part_knows_its_place_and_its_size() -> None:
    kept = Kept(PART)
    assert kept.key == (PART.address, PART.descriptor_hash)
    assert kept.size == size_of(PART) == 2 * 300 + 1024 + len(PART.descriptor.body)
    assert kept.table == make_stripe(1).table
    assert (kept.summary.index, kept.summary.corrupt, kept.summary.trashed) == (PART.index, False, False)


def test_one_bit_flips_and_nothing_else() -> None:
    kept = Kept(PART)
    kept.flip(1, 299, 7)
    assert kept.part.shards[0] == PART.shards[0]
    assert kept.part.shards[1][:299] == PART.shards[1][:299]
    assert kept.part.shards[1][299] == PART.shards[1][299] ^ 128


@pytest.mark.parametrize("whole", [0, 1, 299, 300, 301, 599, 600])
def test_a_tear_leaves_the_beginning_and_zeros(whole: int) -> None:
    kept = Kept(PART)
    kept.tear(whole)
    assert [len(shard) for shard in kept.part.shards] == [300, 300]
    assert b"".join(kept.part.shards) == b"".join(PART.shards)[:whole] + bytes(600 - whole)
