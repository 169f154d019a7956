"""One place is one place, however its address is written."""

from __future__ import annotations

import pytest

from lockbox_node.core.origins import KEPT_MAX, SITE_BITS, origin_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("192.0.2.7", "::ffff:c000:207"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8:0001:0002::9", "2001:db8:1:2::9"),
        ("fe80::1%eth0", "fe80::2"),
        ("node7", "node7"),
    ],
)
def test_hosts_of_one_place_are_equal(one: str, other: str) -> None:
    assert origin_of(one) == origin_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.7", "192.0.2.8"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8"),
        ("::192.0.2.7", "192.0.2.7"),
        ("node7", "node8"),
        ("4\xc0", "192.0.2.7"),
    ],
)
def test_hosts_of_two_places_are_not(one: str, other: str) -> None:
    assert origin_of(one) != origin_of(other)


def test_a_site_is_one_place_where_sites_are_counted() -> None:
    assert origin_of("2001:db8:1:2::1", SITE_BITS) == origin_of("2001:db8:1:3::1", SITE_BITS)
    assert origin_of("2001:db8:1:2::1", SITE_BITS) != origin_of("2001:db8:2:2::1", SITE_BITS)
    assert origin_of("192.0.2.7", SITE_BITS) != origin_of("192.0.2.8", SITE_BITS)


def test_what_is_kept_of_hosts_is_bounded() -> None:
    for number in range(KEPT_MAX + 100):
        origin_of(f"host{number}")
    assert origin_of.cache_info().currsize <= KEPT_MAX
