"""Counting buckets anew: equal to the books when they are right, and the wrong bucket is named when they are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.held_cells import Cells, start_of
from protocol.held import BUCKETS, bucket_of, held_digest, sum_bytes
from protocol.messages import BucketDigest
from tests.fakes.stripes import bytes_of

Held = tuple[bytes, int, bytes]


def held(number: int) -> Held:
    return bytes_of("address", number), 1, bytes_of("hash", number)


def books_of(parts: list[Held]) -> list[BucketDigest]:
    sums: dict[int, list[int]] = {}
    for part in parts:
        bucket = sums.setdefault(bucket_of(part[0]), [0, 0])
        bucket[0] += 1
        bucket[1] += held_digest(*part)
    return [BucketDigest(number, found[0], sum_bytes(found[1])) for number, found in sorted(sums.items())]


def counted(parts: list[Held]) -> Cells:
    cells = Cells()
    for part in parts:
        cells.add(*part)
    return cells


@given(st.lists(st.integers(0, 50), unique=True))
def test_a_count_equals_right_books(numbers: list[int]) -> None:
    parts = [held(number) for number in numbers]
    assert counted(parts).mismatches(books_of(parts), books_of(parts)) == []


def test_a_row_that_the_books_lack_or_have_too_much_is_found() -> None:
    parts = [held(number) for number in range(20)]
    wrong = bucket_of(parts[7][0])
    short = [*parts[:7], *parts[8:]]
    assert counted(parts).mismatches(books_of(short), books_of(short)) == [wrong]
    assert counted(short).mismatches(books_of(parts), books_of(parts)) == [wrong]


def test_a_bucket_that_changed_while_it_was_counted_is_no_mismatch() -> None:
    parts = [held(number) for number in range(20)]
    short = [*parts[:7], *parts[8:]]
    assert counted(short).mismatches(books_of(short), books_of(parts)) == []
    assert counted(parts).mismatches(books_of(short), books_of(parts)) == []


@given(st.integers(0, BUCKETS - 1))
def test_a_bucket_begins_after_its_start(bucket: int) -> None:
    first = (bucket << 4).to_bytes(2, "big") + bytes(30)
    assert bucket_of(first) == bucket
    assert start_of(bucket) < first + b"\x01" + bytes(31)
    if bucket:
        assert start_of(bucket) > ((bucket << 4) - 1).to_bytes(2, "big") + b"\xff" * 62
