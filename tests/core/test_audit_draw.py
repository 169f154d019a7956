"""The draw of judges: that all holders compute the same ring, that no judge is likelier than others."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.audit_draw import asked_first, day_of, point_of, ring_of
from protocol.ids import NodeId, distance
from tests.fakes.stripes import bytes_of, node_of

DAY_S = 86_400.0
ADDRESS = bytes_of("somewhere")
HOLDERS = [NodeId(node_of(number)) for number in range(10)]
DRAWER = node_of(20)


def test_a_day_is_a_period_of_unix_time() -> None:
    assert [day_of(moment, DAY_S) for moment in (0.0, 86_399.9, 86_400.0, 1e9)] == [0, 0, 1, 11_574]
    assert day_of(1e9, 60.0) == 16_666_666
    assert day_of(-5.0, DAY_S) == 0


def test_the_point_moves_with_the_address_and_with_the_day() -> None:
    points = {point_of(address, day) for address in (ADDRESS, bytes_of("elsewhere")) for day in range(50)}
    assert len(points) == 100
    assert all(len(point) == 32 for point in points)


@given(st.lists(st.integers(0, 19), min_size=2, max_size=20, unique=True), st.integers(0, 2**40))
def test_all_holders_compute_one_ring_in_which_each_index_is_judged_once_and_never_by_itself(
    indices: list[int], day: int
) -> None:
    ring = ring_of(ADDRESS, day, DRAWER, indices)
    random.Random(day).shuffle(indices)
    assert ring_of(ADDRESS, day, DRAWER, [*indices, indices[0]]) == ring
    wards = [ring.ward_of(judge) for judge in indices]
    assert sorted(ward for ward in wards if ward is not None) == sorted(indices)
    assert all(ward != judge for judge, ward in zip(indices, wards, strict=True))
    assert all(ring.judge_of(ward) == judge for judge, ward in zip(indices, wards, strict=True) if ward is not None)


def test_a_ring_goes_round_all_of_its_indices() -> None:
    ring = ring_of(ADDRESS, 7, DRAWER, range(10))
    met, index = [], 0
    for _ in range(10):
        met.append(index)
        ward = ring.ward_of(index)
        assert ward is not None
        index = ward
    assert sorted(met) == list(range(10))
    assert index == 0


def test_who_is_alone_or_no_holder_judges_nobody_and_is_judged_by_nobody() -> None:
    assert ring_of(ADDRESS, 1, DRAWER, [3, 3]).ward_of(3) is None
    assert ring_of(ADDRESS, 1, DRAWER, []).judge_of(3) is None
    ring = ring_of(ADDRESS, 1, DRAWER, range(4))
    assert ring.ward_of(5) is None
    assert ring.judge_of(5) is None


def test_every_sibling_judges_about_as_often_as_every_other() -> None:
    days = 1800
    judges = Counter(ring_of(ADDRESS, day, DRAWER, range(10)).judge_of(0) for day in range(days))
    assert set(judges) == set(range(1, 10))
    expected = days / 9  # 200, with a deviation of 13
    assert all(0.7 * expected < count < 1.3 * expected for count in judges.values()), judges


def test_the_day_the_address_and_the_drawer_each_make_another_ring() -> None:
    ring = ring_of(ADDRESS, 1, DRAWER, range(10))
    others = [
        ring_of(ADDRESS, 2, DRAWER, range(10)),
        ring_of(bytes_of("elsewhere"), 1, DRAWER, range(10)),
        ring_of(ADDRESS, 1, node_of(21), range(10)),
    ]
    assert len({one.indices for one in (ring, *others)}) == 4


def test_of_several_holders_of_an_index_the_nearest_that_did_not_fail_is_asked_first() -> None:
    holders = dict.fromkeys(HOLDERS[:4], 3) | dict.fromkeys(HOLDERS[4:], 5)
    nearest = sorted(HOLDERS[:4], key=lambda node: distance(node, ADDRESS))
    assert asked_first(holders, 3, ADDRESS, ()) == nearest
    assert asked_first(holders, 3, ADDRESS, {nearest[0]}) == nearest[1:]
    assert asked_first(holders, 4, ADDRESS, ()) == []
