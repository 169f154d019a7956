"""The search behind greed: complete against brute force, every maximal set once, and an end that is admitted."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.placement import Candidate, Kept, is_legal, neighbourhood, place, replacement
from lockbox_node.core.placement_search import SEARCH_STEPS_MAX, Demand, FarSets, SearchEnded, Steps, find
from lockbox_node.core.regions import BUILT_IN, Region, RegionTable
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol.documents import REGIONS_MAX
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADDRESS = bytes(32)
SMALL = replace(BASIC, k=3, n=4, regions_min=2)  # small enough to try everything
WIDE = replace(ELITE, n=30, shards_per_region_max=1, regions_min=30)
PLACES = ("eu-west-1", "eu-west-2", "eu-central-1", "us-east-1", "us-east-2")  # Dublin and Frankfurt alone are far


def node(number: int, region: str, operator: str = "") -> Candidate:
    """Number = the distance from ADDRESS."""
    return Candidate(number.to_bytes(32, "big"), region, operator or f"operator {number}")


def keeps_the_rules(
    tier: Tier,
    table: RegionTable,
    taken: Mapping[int, Candidate],
    kept: Sequence[Kept],
    new: Mapping[int, Candidate],
) -> bool:
    """DESIGN, section 6, word by word, of what is new: what stands already may break them, and no more than it does."""
    cap = tier.shards_per_region_max
    holders = {**taken, **new}
    used = {holder.region for holder in taken.values()}
    regions, operators = (Counter(getattr(one, what) for one in holders.values()) for what in ("region", "operator"))
    before: dict[str, set[int]] = {}
    after: dict[str, set[int]] = {}
    for index, holder in [*taken.items(), *kept]:
        before.setdefault(holder.region, set()).add(index)
        after.setdefault(holder.region, set()).add(index)
    for index, holder in new.items():
        after.setdefault(holder.region, set()).add(index)
    return len({holder.node for holder in holders.values()}) == len(holders) and all(
        one.region in table
        and regions[one.region] <= cap
        and operators[one.operator] <= cap
        and (one.region in used or table.near[one.region].isdisjoint(regions))
        and len(after[one.region]) <= max(cap, len(before.get(one.region, ())))
        for one in new.values()
    )


drawn_place = st.tuples(st.sampled_from(PLACES), st.sampled_from("ABC"))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(drawn_place, max_size=7),
    st.lists(drawn_place, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), drawn_place), max_size=5),
)
def test_a_set_is_found_exactly_when_there_is_one_beside_what_is_taken_and_what_others_keep(
    free: list[tuple[str, str]], live: list[tuple[str, str]], away: list[tuple[int, tuple[str, str]]]
) -> None:
    nodes = [node(number + 1, *where) for number, where in enumerate(free)]
    taken = {index: node(100 + index, *where) for index, where in enumerate(live)}
    kept = [(index, node(200 + number, *where)) for number, (index, where) in enumerate(away)]
    missing = [index for index in range(SMALL.n) if index not in taken]

    def lawful(new: Mapping[int, Candidate]) -> bool:
        return keeps_the_rules(SMALL, BUILT_IN, taken, kept, new)

    exists = any(
        lawful(dict(zip(missing, order, strict=True))) for order in itertools.permutations(nodes, len(missing))
    )
    alone = {index: any(lawful({index: one}) for one in nodes) for index in missing}
    try:
        chosen = place(SMALL, ADDRESS, nodes, taken, kept)
    except LockboxError:
        assert not exists
    else:
        assert exists
        assert list(chosen) == missing
        assert lawful(chosen)
    for index in missing:
        try:
            holder = replacement(SMALL, ADDRESS, nodes, taken, index, kept)
        except LockboxError:
            assert not alone[index]
        else:
            assert lawful({index: holder})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=10, unique=True), st.data())
def test_every_maximal_set_is_tried_once_and_those_that_are_too_small_are_not(
    places: list[int], data: st.DataObject
) -> None:
    # A lattice of 7 degrees: each is near to the next north, south, east and west, and to nobody else.
    table = RegionTable.of([Region(f"r{one}", "", 7.0 * (one // 4), 7.0 * (one % 4)) for one in places])
    names = [*table.regions]
    weights = {name: data.draw(st.integers(1, 4)) for name in names}
    wanted = data.draw(st.integers(0, 12))
    sets = list(FarSets(names, table.near, Steps()).maximal(weights, wanted))

    def is_maximal(chosen: frozenset[str]) -> bool:
        return all((one in chosen) is table.near[one].isdisjoint(chosen) for one in names)

    every = [frozenset(some) for size in range(len(names) + 1) for some in itertools.combinations(names, size)]
    heavy = [one for one in every if is_maximal(one) and sum(weights[name] for name in one) >= wanted]
    assert sorted(map(sorted, sets)) == sorted(map(sorted, heavy))
    far = [one for one in every if is_maximal(one)]
    assert FarSets(names, table.near, Steps()).heaviest(weights) == max(
        sum(weights[name] for name in one) for one in far
    )


def test_the_built_in_table_has_96_maximal_sets_of_at_most_14() -> None:
    weights = dict.fromkeys(BUILT_IN.regions, 1)
    sets = list(FarSets([*BUILT_IN.regions], BUILT_IN.near, Steps()).maximal(weights, 0))
    assert len(sets) == len(set(sets)) == 96
    assert max(map(len, sets)) == 14


def test_an_index_that_two_regions_keep_goes_where_room_is() -> None:
    # 0 stands in both regions; only Dublin has a node for it, though Ashburn comes first by name.
    taken = {1: node(11, "eu-west-1"), 2: node(12, "us-east-1"), 3: node(13, "us-east-1")}
    kept = [(0, node(14, "af-south-1")), (0, node(15, "eu-west-1")), (3, node(16, "eu-west-1"))]
    free = [node(1, "eu-west-1")]
    assert place(SMALL, ADDRESS, free, taken, kept) == {0: free[0]}
    assert replacement(SMALL, ADDRESS, free, taken, 0, kept) == free[0]


@pytest.mark.parametrize("before", [0, 20], ids=["in the first window", "once it has grown"])
def test_the_search_comes_before_nodes_that_are_farther_away(before: int) -> None:
    # Greed begins in London, which rules out Dublin and Frankfurt, and then has to go as far as the 60th for a third.
    near = ["eu-west-2", "eu-west-1", "eu-west-1", "eu-central-1", "eu-central-1", "us-east-1", "us-east-1"]
    order = ["eu-west-2"] * before + near
    order += ["eu-west-2"] * (60 - len(order)) + ["sa-east-1"]
    holders = place(BASIC, ADDRESS, [node(number + 1, region) for number, region in enumerate(order)])
    assert {holder.region for holder in holders.values()} == {"eu-west-1", "eu-central-1", "us-east-1"}


def crowd(count: int, seed: int = 1) -> RegionTable:
    """A table of places in a square of 5000 km: with so many of them, no search of all its sets would ever end."""
    rng = random.Random(seed)
    return RegionTable.of([Region(f"r{n}", "", rng.uniform(-22, 22), rng.uniform(-22, 22)) for n in range(count)])


def test_in_the_largest_table_a_set_is_found_where_greed_walks_past() -> None:
    table = crowd(REGIONS_MAX)
    nodes = [node(number + 1, name) for number, name in enumerate(table.regions)]
    holders = place(ELITE, ADDRESS, nodes, regions=table)
    assert is_legal(ELITE, holders, table)
    # One operator per two regions: greed alone spends the operators that the later regions need.
    nodes = [node(number + 1, name, f"o{number // 9}") for number, name in enumerate(table.regions)]
    assert is_legal(STANDARD, place(STANDARD, ADDRESS, nodes, regions=table), table)


def test_a_search_that_is_ended_says_so_and_claims_nothing() -> None:
    table = crowd(REGIONS_MAX)
    # Twenty far regions are soon found, above 41 there cannot be; whether there are thirty is hard to say.
    nodes = [node(number + 1, name) for number, name in enumerate(table.regions)]
    with pytest.raises(LockboxError) as caught:
        place(WIDE, ADDRESS, nodes, regions=table)
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert f"the search was ended after {SEARCH_STEPS_MAX:,} steps" in caught.value.message
    assert "found" not in caught.value.message
    assert "smaller tier" in caught.value.hint


def test_what_is_known_to_be_impossible_is_not_called_undecided_where_only_the_reason_is_hard_to_find() -> None:
    table = crowd(REGIONS_MAX)
    nodes = [node(number + 1, name, "ABC"[number % 3]) for number, name in enumerate(table.regions)]
    with pytest.raises(LockboxError) as caught:
        place(WIDE, ADDRESS, nodes, regions=table)
    assert caught.value.code is ErrorCode.INSUFFICIENT_NODES
    assert "no legal set among the eligible nodes, of which there are 512" in caught.value.message


def test_where_indices_have_no_room_operators_are_not_blamed() -> None:
    # Each region has room for index 0 alone, which both keep: 1 has nowhere to go, whoever runs the nodes.
    taken = {2: node(11, "eu-west-1"), 3: node(12, "us-east-1")}
    kept = [(0, node(13, "eu-west-1")), (0, node(14, "us-east-1"))]
    with pytest.raises(LockboxError) as caught:
        place(SMALL, ADDRESS, [node(1, "eu-west-1"), node(2, "us-east-1")], taken, kept)
    assert caught.value.code is ErrorCode.INSUFFICIENT_NODES
    assert "no legal set among the eligible nodes, of which there are 4" in caught.value.message


def test_steps_are_counted_to_the_last() -> None:
    steps = Steps(3)
    steps.take(3)
    with pytest.raises(SearchEnded):
        steps.take(1)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_every_search_over_the_built_in_table_ends(tier: Tier) -> None:
    """The hardest that we know: what few operators leave over only others have, one in each of many near regions."""
    rng, cap, worst = random.Random(tier.number), tier.shards_per_region_max, 0
    names = [*BUILT_IN.regions]
    for _ in range(20):
        everywhere = [f"o{number}" for number in range((tier.n - rng.randrange(1, min(tier.n, 13))) // cap)]
        rest = tier.n - cap * len(everywhere)
        nodes = [node(n + 1, rng.choice(names), rng.choice(everywhere)) for n in range(400) if everywhere]
        some = rng.sample(names, min(len(names), rest + rng.randrange(8)))
        nodes += [node(1000 + number, name, f"alone in {name}") for number, name in enumerate(some)]
        steps = Steps()
        find(Demand(tier, neighbourhood(ADDRESS, nodes), {}, [], range(tier.n)), BUILT_IN, steps)
        worst = max(worst, SEARCH_STEPS_MAX - steps.left)
    assert worst < SEARCH_STEPS_MAX // 2
