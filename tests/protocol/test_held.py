"""Held digests: sums that forget the order, and buckets by the first bits of the address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.held import BUCKETS, bucket_of, held_digest, sum_bytes

ids = st.binary(min_size=32, max_size=32)


def test_the_bucket_is_the_first_12_bits() -> None:
    assert [bucket_of(start + bytes(30)) for start in (b"\x00\x00", b"\x00\x0f", b"\x00\x10", b"\x12\x34")] == [
        0,
        0,
        1,
        0x123,
    ]
    assert bucket_of(b"\xff" * 32) == BUCKETS - 1


def test_each_part_of_the_identity_counts() -> None:
    one = held_digest(b"a" * 32, 1, b"b" * 32)
    assert len({one, held_digest(b"b" * 32, 1, b"b" * 32), held_digest(b"a" * 32, 1, b"a" * 32)}) == 3
    assert held_digest(b"a" * 32, 2, b"b" * 32) != one


@given(st.lists(st.tuples(ids, st.integers(0, 2**63 - 1), ids), max_size=6))
def test_what_comes_and_goes_leaves_no_trace_in_the_sum(slots: list[tuple[bytes, int, bytes]]) -> None:
    total = sum(held_digest(*slot) for slot in slots)
    for slot in sorted(slots, key=repr):
        total -= held_digest(*slot)
    assert total == 0
    assert sum_bytes(total) == bytes(32)


def test_a_sum_travels_in_32_bytes_whatever_its_size_and_sign() -> None:
    assert sum_bytes(2**256 + 5) == sum_bytes(5) == (5).to_bytes(32, "big")
    assert sum_bytes(-1) == b"\xff" * 32
