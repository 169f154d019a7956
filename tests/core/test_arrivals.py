"""One place comes so often, others are not its concern, and a million places take bounded room."""

from __future__ import annotations

import pytest

from lockbox_node.core.arrivals import Arrivals


def test_a_place_has_its_burst_and_then_its_rate() -> None:
    one = Arrivals(10.0, 100.0)
    assert [one.take("192.0.2.1", 0.0) for _ in range(200)].count(0.0) == 100
    assert one.take("::ffff:192.0.2.1", 0.0) == pytest.approx(0.1)
    assert one.take("192.0.2.2", 0.0) == 0
    assert [one.take("192.0.2.1", 1.0) for _ in range(20)].count(0.0) == 10


def test_a_site_of_ipv6_is_one_place() -> None:
    one = Arrivals(1.0, 5.0)
    assert [one.take(f"2001:db8:1:{number:x}::1", 0.0) for number in range(10)].count(0.0) == 5
    assert one.take("2001:db8:2::1", 0.0) == 0


def test_a_million_places_stay_bounded() -> None:
    one = Arrivals(10.0, 100.0, sources_max=1000)
    for number in range(1_000_000):
        one.take(f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.1", 1.0)
    assert len(one) == 1000
