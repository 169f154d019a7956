"""The draw of judges: who may draw, that all holders compute the same ring, that no judge is likelier than others."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.audit_draw import day_of, drawer_of, point_of, ring_of
from protocol.ids import NodeId
from tests.fakes.stripes import bytes_of, node_of

DAY_S = 86_400.0
ADDRESS = bytes_of("somewhere")
HOLDERS = [NodeId(node_of(number)) for number in range(10)]
LEAF = b"a certificate"


def test_a_day_is_a_period_of_unix_time() -> None:
    assert [day_of(moment, DAY_S) for moment in (0.0, 86_399.9, 86_400.0, 1e9)] == [0, 0, 1, 11_574]
    assert day_of(1e9, 60.0) == 16_666_666
    assert day_of(-5.0, DAY_S) == 0


def test_the_point_moves_with_the_address_and_with_the_day() -> None:
    points = {point_of(address, day) for address in (ADDRESS, bytes_of("elsewhere")) for day in range(50)}
    assert len(points) == 100
    assert all(len(point) == 32 for point in points)


def test_the_nearest_who_holds_nothing_draws() -> None:
    strangers = [NodeId(node_of(number)) for number in (20, 21)]
    assert drawer_of([HOLDERS[0], HOLDERS[4], *strangers], HOLDERS) == strangers[0]
    assert drawer_of(HOLDERS, HOLDERS) is None
    assert drawer_of([], HOLDERS) is None


@given(st.lists(st.integers(0, 60), min_size=2, max_size=40, unique=True), st.integers(0, 2**40))
def test_all_holders_compute_one_ring_in_which_each_is_judged_once_and_never_by_itself(
    numbers: list[int], day: int
) -> None:
    holders = [NodeId(node_of(number)) for number in numbers]
    ring = ring_of(ADDRESS, day, LEAF, holders)
    random.Random(day).shuffle(holders)
    assert ring_of(ADDRESS, day, LEAF, holders) == ring
    wards = [ring.ward_of(judge) for judge in holders]
    assert sorted(ward for ward in wards if ward is not None) == sorted(holders)
    assert all(ward != judge for judge, ward in zip(holders, wards, strict=True))
    assert all(ring.judge_of(ward) == judge for judge, ward in zip(holders, wards, strict=True) if ward is not None)


def test_a_ring_goes_round_all_of_its_holders() -> None:
    ring = ring_of(ADDRESS, 7, LEAF, HOLDERS)
    met, node = [], HOLDERS[0]
    for _ in HOLDERS:
        met.append(node)
        node = ring.ward_of(node) or node
    assert sorted(met) == sorted(HOLDERS)
    assert node == HOLDERS[0]


def test_who_is_alone_or_no_holder_judges_nobody_and_is_judged_by_nobody() -> None:
    assert ring_of(ADDRESS, 1, LEAF, HOLDERS[:1]).ward_of(HOLDERS[0]) is None
    assert ring_of(ADDRESS, 1, LEAF, []).judge_of(HOLDERS[0]) is None
    ring = ring_of(ADDRESS, 1, LEAF, HOLDERS[:4])
    assert ring.ward_of(HOLDERS[5]) is None
    assert ring.judge_of(HOLDERS[5]) is None


def test_every_sibling_judges_about_as_often_as_every_other() -> None:
    days = 1800
    judges: Counter[NodeId | None] = Counter(
        ring_of(ADDRESS, day, LEAF, HOLDERS).judge_of(HOLDERS[0]) for day in range(days)
    )
    assert set(judges) == set(HOLDERS[1:])
    expected = days / len(HOLDERS[1:])  # 200, with a deviation of 13
    assert all(0.7 * expected < count < 1.3 * expected for count in judges.values()), judges


def test_the_day_the_address_and_the_drawer_each_make_another_ring() -> None:
    ring = ring_of(ADDRESS, 1, LEAF, HOLDERS)
    others = [
        ring_of(ADDRESS, 2, LEAF, HOLDERS),
        ring_of(bytes_of("elsewhere"), 1, LEAF, HOLDERS),
        ring_of(ADDRESS, 1, b"another certificate", HOLDERS),
    ]
    assert len({one.nodes for one in (ring, *others)}) == 4
