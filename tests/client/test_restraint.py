"""When "too often" is believed."""

from __future__ import annotations

from lockbox_node.client.restraint import Restraint


def test_the_sixth_time_within_a_minute_is_over_the_limit_for_that_address_alone() -> None:
    one = Restraint()
    assert [one.is_over(b"a", float(second)) for second in range(7)] == [False] * 5 + [True] * 2
    assert not one.is_over(b"b", 7.0)
    assert not one.is_over(b"a", 60.0)


def test_what_is_remembered_is_bounded_and_doubt_counts_against_us() -> None:
    one = Restraint(addresses_max=3)
    assert [one.is_over(bytes([number]), 0.0) for number in range(5)] == [False] * 3 + [True] * 2
