"""Placement: the rules of every tier, the order, the search behind greed, and what a refusal says."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.placement import (
    Candidate,
    Kept,
    is_legal,
    is_well_placed,
    keeps_rules,
    most_legal,
    neighbourhood,
    place,
    replacement,
    window,
)
from lockbox_node.core.regions import BUILT_IN, spread_regions
from lockbox_node.core.tiers import BASIC, ELITE, PREMIUM, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.ids import distance

ADDRESS = bytes(32)


def node(number: int, region: str, operator: str = "") -> Candidate:
    """Number = the distance from ADDRESS."""
    return Candidate(number.to_bytes(32, "big"), region, operator or f"operator {number}")


def network(count: int, regions: list[str], seed: int = 0) -> list[Candidate]:
    rng = random.Random(seed)
    return [Candidate(rng.randbytes(32), regions[i % len(regions)], f"operator {i}") for i in range(count)]


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
@pytest.mark.parametrize("seed", range(20))
def test_holders_in_a_test_network_are_legal_and_near(tier: Tier, seed: int) -> None:
    nodes = network(24, spread_regions(7), seed)
    address = random.Random(-seed).randbytes(32)
    holders = place(tier, address, nodes)
    assert is_legal(tier, holders)
    assert is_well_placed(tier, address, nodes, holders)
    by_index = [distance(holders[index].node, address) for index in range(tier.n)]
    assert by_index == sorted(by_index), "the lowest index goes to the nearest"
    assert place(tier, address, nodes[::-1]) == holders, "the order of the candidates does not matter"


def test_greed_takes_the_nearest_that_are_legal() -> None:
    a, b, c = spread_regions(3)
    nodes = [node(i, region) for i, region in enumerate([a, a, a, b, b, c], start=1)]
    assert [holder.node[-1] for holder in place(BASIC, ADDRESS, nodes).values()] == [1, 2, 4, 5, 6]


def test_two_regions_too_near_are_never_used_together() -> None:
    nodes = [node(i + 1, region) for i, region in enumerate(["eu-west-1", "eu-west-2", "us-east-1", "us-east-2"] * 2)]
    nodes += [node(20, "ap-south-1")]
    holders = place(BASIC, ADDRESS, nodes)
    assert is_legal(BASIC, holders)
    assert {holder.region for holder in holders.values()} == {"eu-west-1", "us-east-1", "ap-south-1"}


def test_the_search_finds_the_set_that_greed_walks_past() -> None:
    # The nearest is in London, which is too near to both Dublin and Frankfurt; without it there are three regions.
    regions = ["eu-west-2", "eu-west-1", "eu-west-1", "eu-central-1", "eu-central-1", "us-east-1", "us-east-1"]
    nodes = [node(i + 1, region) for i, region in enumerate(regions)]
    holders = place(BASIC, ADDRESS, nodes)
    assert is_legal(BASIC, holders)
    assert "eu-west-2" not in {holder.region for holder in holders.values()}


def test_the_search_moves_an_operator_to_another_region() -> None:
    a, b, c = spread_regions(3)
    # Greed spends operator X in region a, where Y could serve; region b and c have nobody but X.
    nodes = [node(1, a, "X"), node(2, a, "X"), node(3, a, "Y"), node(4, a, "Y")]
    nodes += [node(5, b, "X"), node(6, b, "Z"), node(7, c, "X")]
    holders = place(BASIC, ADDRESS, nodes)
    assert is_legal(BASIC, holders)
    assert Counter(holder.operator for holder in holders.values()) == {"X": 2, "Y": 2, "Z": 1}


def test_the_window_grows_until_it_holds_a_legal_set() -> None:
    a, b, c = spread_regions(3)
    nodes = [node(i, a) for i in range(1, 100)] + [node(100, b), node(101, b), node(102, c)]
    holders = place(BASIC, ADDRESS, nodes)
    assert is_legal(BASIC, holders)
    assert not is_well_placed(BASIC, ADDRESS, nodes, holders)
    assert window(BASIC) == 20
    assert window(ELITE) == 80


def test_an_unknown_region_is_never_used() -> None:
    nodes = [*network(5, spread_regions(3)), node(1, "atlantis-1")]
    assert "atlantis-1" not in {holder.region for holder in place(BASIC, ADDRESS, nodes).values()}


def refusal(tier: Tier, nodes: list[Candidate]) -> LockboxError:
    with pytest.raises(LockboxError) as caught:
        place(tier, ADDRESS, nodes)
    return caught.value


@pytest.mark.parametrize(
    ("nodes", "code", "words"),
    [
        ([], ErrorCode.INSUFFICIENT_NODES, "eligible nodes found: 0"),
        (network(9, spread_regions(5)), ErrorCode.INSUFFICIENT_NODES, "eligible nodes found: 9"),
        (network(24, spread_regions(2)), ErrorCode.INSUFFICIENT_REGIONS, "such regions found: 2"),
        (network(24, ["eu-west-1", "eu-west-2", "eu-west-3"]), ErrorCode.INSUFFICIENT_REGIONS, "such regions found: 1"),
        (
            [node(i, "us-east-1") for i in range(1, 20)] + [node(30, "eu-west-1"), node(31, "ap-south-1")],
            ErrorCode.INSUFFICIENT_NODES,
            "legal nodes found: 6",
        ),
        (
            [node(i + 1, region, "AB"[i % 2]) for i, region in enumerate(spread_regions(7) * 3)],
            ErrorCode.INSUFFICIENT_OPERATORS,
            "operators found: 2",
        ),
    ],
)
def test_a_refusal_says_what_is_missing(nodes: list[Candidate], code: ErrorCode, words: str) -> None:
    error = refusal(STANDARD, nodes)
    assert error.code is code
    assert error.message.startswith("Standard needs 10 nodes in at least 3 regions 1000 km apart with at most 4 per")
    assert words in error.message
    assert "smaller tier" in error.hint
    assert refusal(TIERS[0], []).hint == "wait until more nodes have joined"


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_a_dead_holder_is_replaced_beside_the_living(tier: Tier) -> None:
    nodes = network(24, spread_regions(7), seed=3)
    holders = place(tier, ADDRESS, nodes)
    for index, dead in holders.items():
        taken = {other: holder for other, holder in holders.items() if other != index}
        eligible = [one for one in nodes if one != dead]
        new = place(tier, ADDRESS, eligible, taken)
        assert list(new) == [index]
        assert is_legal(tier, taken | new)
        assert replacement(tier, ADDRESS, eligible, taken, index) == new[index]


def test_a_replacement_is_found_even_when_not_all_can_be() -> None:
    a, b, c = spread_regions(3)
    taken = {0: node(1, a), 1: node(2, a), 2: node(3, b)}
    assert replacement(BASIC, ADDRESS, [node(9, c)], taken, 4) == node(9, c)
    with pytest.raises(LockboxError) as caught:
        replacement(BASIC, ADDRESS, [node(9, a)], taken, 4)
    assert caught.value.code is ErrorCode.INSUFFICIENT_REGIONS


def test_holders_that_stand_too_near_one_another_gain_no_third() -> None:
    taken = {0: node(1, "eu-west-1"), 1: node(2, "eu-west-2")}
    nodes = [node(3, "eu-west-3"), node(4, "eu-west-1"), node(5, "us-east-1"), node(6, "ap-south-1")]
    chosen = place(BASIC, ADDRESS, nodes, taken)
    assert [holder.node[-1] for holder in chosen.values()] == [4, 5, 6]
    assert not is_legal(BASIC, taken | chosen)


def test_each_rule_alone_makes_a_set_illegal() -> None:
    a, b, c = spread_regions(3)
    legal = dict(enumerate([node(1, a), node(2, a), node(3, b), node(4, b), node(5, c)]))
    assert is_legal(BASIC, legal)
    assert not is_legal(BASIC, {})
    for index, holder in [
        (4, node(1, c)),  # one node twice
        (4, node(5, a)),  # three in a region
        (4, node(5, "us-east-2")),  # too near to us-east-1
        (4, node(5, "atlantis-1")),
    ]:
        assert not is_legal(BASIC, legal | {index: holder})
    assert not is_legal(BASIC, {index: node(i.node[-1], i.region, "one") for index, i in legal.items()})
    assert not is_legal(BASIC, {index + 1: holder for index, holder in legal.items()})
    assert not is_legal(PREMIUM, legal)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["eu-west-1", "eu-west-2", "eu-central-1", "us-east-1", "us-east-2", "ap-south-1"]),
            st.sampled_from("ABC"),
        ),
        max_size=9,
    )
)
def test_a_legal_set_is_found_exactly_when_there_is_one(places: list[tuple[str, str]]) -> None:
    nodes = [node(i + 1, region, operator) for i, (region, operator) in enumerate(places)]
    exists = any(is_legal(BASIC, dict(enumerate(five))) for five in itertools.combinations(nodes, BASIC.n))
    try:
        assert is_legal(BASIC, place(BASIC, ADDRESS, nodes))
        assert exists
    except LockboxError:
        assert not exists


def stored(*holdings: dict[int, Candidate] | list[Kept]) -> dict[str, set[int]]:
    """Region -> the indices that stand on its disks."""
    found: dict[str, set[int]] = {}
    for holding in holdings:
        for index, holder in holding.items() if isinstance(holding, dict) else holding:
            found.setdefault(holder.region, set()).add(index)
    return found


def test_what_a_dead_holder_stores_leaves_its_region_room_for_one_index_fewer() -> None:
    a, b, c = spread_regions(3)
    taken = {1: node(1, a), 2: node(2, b), 4: node(3, c)}
    kept = [(0, node(4, a)), (3, node(5, b))]
    nodes = [node(6, b), node(7, c), node(8, a), node(9, c)]
    assert [holder.region for holder in place(BASIC, ADDRESS, nodes, taken).values()] == [b, c]
    chosen = place(BASIC, ADDRESS, nodes, taken, kept)
    assert chosen == {0: nodes[1], 3: nodes[0]}, "3 stood in b: there it costs nothing"
    assert replacement(BASIC, ADDRESS, nodes, taken, 0, kept) == nodes[1]
    gone = [*kept, (2, node(10, c))]
    assert place(BASIC, ADDRESS, nodes, taken, gone) == {0: nodes[2], 3: nodes[0]}, "c stores 2 and 4 already"
    with pytest.raises(LockboxError) as caught:
        place(BASIC, ADDRESS, nodes[1:2], {**taken, 0: node(11, b)}, [*gone, (1, node(12, b))])
    assert caught.value.code is ErrorCode.INSUFFICIENT_NODES


def test_an_index_that_only_some_region_may_take_goes_there_though_it_was_not_asked_for_all() -> None:
    a, b, c = spread_regions(3)
    taken = {1: node(1, a), 2: node(2, b)}
    kept = [(0, node(4, a)), (3, node(5, b)), (4, node(6, c))]
    assert replacement(BASIC, ADDRESS, [node(7, a)], taken, 0, kept) == node(7, a)
    with pytest.raises(LockboxError):
        replacement(BASIC, ADDRESS, [node(7, a)], taken, 3, kept)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_beside_what_others_keep_a_set_is_found_exactly_when_there_is_one(data: st.DataObject) -> None:
    places = st.tuples(st.sampled_from(["eu-west-1", "us-east-1", "us-east-2", "ap-south-1"]), st.sampled_from("ABC"))
    holders = [node(i + 1, *where) for i, where in enumerate(data.draw(st.lists(places, min_size=5, max_size=9)))]
    live = data.draw(st.integers(0, 3))
    taken, nodes = dict(enumerate(holders[:live])), holders[live:]
    lost = data.draw(st.lists(st.integers(0, 4), max_size=4, unique=True))  # each by one holder, so with one home
    kept = [(index, node(100 + index, *data.draw(places))) for index in lost]
    missing = [index for index in range(BASIC.n) if index not in taken]

    def legal(new: dict[int, Candidate]) -> bool:
        before, after = stored(taken, kept), stored(taken, kept, new)
        room = all(len(after[one]) <= max(2, len(before.get(one, ()))) for one in after)
        return is_legal(BASIC, taken | new) and room

    orders = itertools.permutations(nodes, len(missing))
    exists = any(legal(dict(zip(missing, order, strict=True))) for order in orders)
    try:
        chosen = place(BASIC, ADDRESS, nodes, taken, kept)
    except LockboxError:
        assert not exists
    else:
        assert list(chosen) == missing
        assert legal(chosen) or not is_legal(BASIC, taken | chosen)
        for region, indices in stored(taken, kept, chosen).items():
            before = len(stored(taken, kept).get(region, ()))
            assert len(indices) <= max(BASIC.shards_per_region_max, before)


def test_neighbourhood_is_the_order_of_xor() -> None:
    nodes = network(50, spread_regions(7))
    address = bytes(range(32))
    assert neighbourhood(address, nodes) == sorted(nodes, key=lambda one: distance(one.node, address))


def test_what_keeps_the_rules_may_be_fewer_than_all() -> None:
    a, b, _ = spread_regions(3)
    four = [node(i, a) for i in range(1, 5)]
    assert keeps_rules(STANDARD, [])
    assert keeps_rules(STANDARD, [*four, node(9, b)])
    assert not keeps_rules(STANDARD, [*four, node(5, a)]), "five in one region"
    assert not keeps_rules(STANDARD, [node(i, region, "one") for i, region in enumerate([a, a, a, b, b])])
    assert not keeps_rules(STANDARD, [node(1, "eu-west-1"), node(2, "eu-west-2")])
    assert not keeps_rules(STANDARD, [node(1, "atlantis")])


def test_of_holders_that_cannot_all_stay_the_most_stay_and_the_nearer_of_equals() -> None:
    near = [node(1, "eu-west-2"), node(2, "eu-west-1"), node(3, "eu-west-1"), node(4, "ap-south-1")]
    assert most_legal(STANDARD, ADDRESS, near) == near[1:]
    assert most_legal(STANDARD, ADDRESS, near[:2]) == near[:1]
    assert most_legal(STANDARD, ADDRESS, []) == []
    assert most_legal(STANDARD, ADDRESS, [node(1, "atlantis")]) == []


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(BUILT_IN.regions)), st.sampled_from("abc")),
        min_size=1,
        max_size=7,
    )
)
def test_nothing_larger_keeps_the_rules_than_what_stays(places: list[tuple[str, str]]) -> None:
    holders = [node(i, region, operator) for i, (region, operator) in enumerate(places, start=1)]
    kept = most_legal(BASIC, ADDRESS, holders)
    assert keeps_rules(BASIC, kept)
    larger = itertools.combinations(holders, len(kept) + 1)
    assert not any(keeps_rules(BASIC, some) for some in larger)
