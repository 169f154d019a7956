"""Displaced shards: the fewest that have to move, and when our own copy is one too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.displaced import placed
from lockbox_node.core.placement import Candidate, keeps_rules
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.repair import Cause, Health, health
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS, Tier
from protocol.ids import NodeId
from protocol.messages import HolderEntry


def node_id(number: int) -> NodeId:
    """Number = the distance from the address of the stripes here."""
    return NodeId(number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Where:
    """Where a member stands."""

    region: str
    operator: str


@dataclass(frozen=True)
class Held:
    """A stripe held here."""

    address: bytes
    index: int
    corrupt: bool
    entries: list[HolderEntry]


def seen_by(
    own: int, tier: Tier, where: dict[int, Where], table: dict[int, int], failing: tuple[int, ...] = ()
) -> Health:
    """`table` = node -> index; everybody in `where` lives."""
    members = {node_id(node): place for node, place in where.items()}
    entries = [HolderEntry(index, node_id(node), 1) for node, index in table.items()]
    stripe = Held(bytes(32), table[own], False, entries)
    found = health(stripe, tier, members, node_id(own), {node_id(node) for node in failing})
    return placed(found, tier, bytes(32), node_id(own), members)


FAR = ("eu-west-1", "ap-south-1", "sa-east-1", "us-east-1", "ap-southeast-2")


def spread(tier: Tier) -> tuple[dict[int, Where], dict[int, int]]:
    """Index i at node i + 1, two of each region and operator after the other, so that no cap is met."""
    where = {node: Where(FAR[node % len(FAR)], f"op{node % 7}") for node in range(1, tier.n + 1)}
    return where, {node: node - 1 for node in where}


def test_a_legal_stripe_stays_as_it_is() -> None:
    where, table = spread(STANDARD)
    seen = seen_by(1, STANDARD, where, table)
    assert not seen.short
    assert seen.displaced == ()
    assert not seen.surplus


def test_the_one_over_the_cap_of_its_region_moves_and_the_margin_stays() -> None:
    where, table = spread(STANDARD)
    crowd = [node for node, place in where.items() if place.region == FAR[1]]
    for node in [node for node in where if node not in crowd][:3]:
        where[node] = Where(FAR[1], where[node].operator)
    seen = seen_by(1, STANDARD, where, table)
    assert len(seen.displaced) == 1
    assert seen.missing == seen.displaced
    assert seen.margin == 5
    assert seen.cause is Cause.OUT_OF_PLACEMENT
    ((_, holders),) = ((index, seen.going[index]) for index in seen.displaced)
    assert where[int.from_bytes(holders[0], "big")].region == FAR[1]
    assert holders[0] in [node for _, node in seen.sources()]


def test_an_operator_over_the_cap_gives_up_what_is_over_it() -> None:
    where, table = spread(BASIC)
    for node in (2, 3, 4):
        where[node] = Where(where[node].region, "grown")
    assert len(seen_by(1, BASIC, where, table).displaced) == 1


def test_of_two_regions_that_are_too_near_the_smaller_moves() -> None:
    where, table = spread(ELITE)
    where[5] = Where("eu-west-2", where[5].operator)
    seen = seen_by(1, ELITE, where, table)
    assert seen.displaced == (4,), "London is 464 km from Dublin, where three others stand"


def test_a_region_that_the_table_does_not_know_is_left() -> None:
    where, table = spread(STANDARD)
    where[3] = Where("atlantis", "op3")
    assert seen_by(1, STANDARD, where, table).displaced == (2,)


def test_a_dead_holder_beside_a_displaced_one_is_a_loss() -> None:
    where, table = spread(STANDARD)
    where[3] = Where("atlantis", "op3")
    del where[7]
    seen = seen_by(1, STANDARD, where, table)
    assert seen.missing == (2, 6)
    assert seen.displaced == (2,)
    assert seen.cause is Cause.LOSS
    assert seen.margin == 4


def test_a_better_copy_of_a_displaced_index_ends_it_and_makes_the_old_one_surplus() -> None:
    where, table = spread(STANDARD)
    where[3] = Where("atlantis", "op3")
    where[90] = Where(FAR[0], "op90")
    table[90] = 2
    for own in (1, 3, 90):
        seen = seen_by(own, STANDARD, where, table)
        assert not seen.short
        assert seen.live[2] == (node_id(90), node_id(3)), "the legal one first, whoever is nearer"
        assert seen.surplus is (own == 3)


def test_a_copy_out_of_place_that_is_farther_than_the_better_one_is_surplus_too() -> None:
    where, table = spread(STANDARD)
    where[90] = Where("atlantis", "op90")
    table[90] = 2
    seen = seen_by(90, STANDARD, where, table)
    assert not seen.short
    assert seen.live[2] == (node_id(3), node_id(90))
    assert seen.surplus
    assert not seen_by(3, STANDARD, where, table).surplus


def test_nothing_is_surplus_while_another_index_is_missing() -> None:
    where, table = spread(STANDARD)
    where[3] = Where("atlantis", "op3")
    where[90] = Where(FAR[0], "op90")
    table[90] = 2
    del where[7]
    assert not seen_by(3, STANDARD, where, table).surplus


def test_a_copy_that_goes_is_no_better_copy() -> None:
    where, table = spread(STANDARD)
    where[3] = Where("atlantis", "op3")
    where[90] = Where(FAR[0], "op90")
    table[90] = 2
    seen = seen_by(3, STANDARD, where, table, failing=(90,))
    assert seen.displaced == (2,)
    assert seen.going[2] == (node_id(3), node_id(90))
    assert not seen.surplus


def test_a_second_legal_copy_is_not_surplus() -> None:
    where, table = spread(STANDARD)
    where[90] = Where(where[3].region, "op90")
    table[90] = 2
    assert not seen_by(90, STANDARD, where, table).surplus


PLACES = st.builds(Where, st.sampled_from(sorted(BUILT_IN.regions)[:9]), st.sampled_from(["a", "b", "c", "d"]))


@given(st.lists(PLACES, min_size=5, max_size=5), st.sampled_from([BASIC]))
def test_no_smaller_move_would_do(places: list[Where], tier: Tier) -> None:
    where = dict(enumerate(places, start=1))
    seen = seen_by(1, tier, where, {node: node - 1 for node in where})
    holders = [Candidate(node_id(node), place.region, place.operator) for node, place in where.items()]
    most = max(size for size in range(6) if any(keeps_rules(tier, some) for some in combinations(holders, size)))
    assert len(seen.displaced) == tier.n - most
    assert keeps_rules(tier, [holder for index, holder in enumerate(holders) if index not in seen.displaced])


@given(st.data(), st.sampled_from(TIERS))
def test_every_holder_names_the_same_indices(data: st.DataObject, tier: Tier) -> None:
    places = data.draw(st.lists(PLACES, min_size=tier.n, max_size=tier.n))
    where = dict(enumerate(places, start=1))
    table = {node: node - 1 for node in where}
    counts = Counter(seen_by(own, tier, where, table).displaced for own in where)
    assert len(counts) == 1


def test_where_every_index_has_a_better_copy_nothing_moves_again() -> None:
    where, table = spread(ELITE)
    for node in range(1, ELITE.n + 1):
        where[node + 50] = Where(where[node].region, where[node].operator)
        where[node] = Where("atlantis", where[node].operator)
        table[node + 50] = node - 1
    assert seen_by(51, ELITE, where, table).displaced == ()
    assert all(seen_by(own, ELITE, where, table).surplus for own in range(1, ELITE.n + 1))


def test_a_node_is_counted_once_however_many_copies_others_keep() -> None:
    where, table = spread(BASIC)
    for node in range(10, 200):
        where[node] = Where("atlantis", "op9")
        table[node] = node % BASIC.n
    assert seen_by(1, BASIC, where, table).displaced == ()


def test_lines_that_those_named_never_said_make_no_holder_surplus() -> None:
    regions = ("us-east-1", "eu-west-1", "ap-south-1", "us-east-1", "eu-west-1")
    where = {100 + index: Where(region, f"op{index}") for index, region in enumerate(regions)}
    table = {node: node - 100 for node in where}
    assert not seen_by(100, BASIC, where, table).surplus
    # Two innocent nodes that are nearer, in a region that is taken, and a thief elsewhere that "holds" our index.
    where |= {1: Where("us-east-1", "x1"), 2: Where("us-east-1", "x2"), 3: Where("sa-east-1", "x3")}
    assert not seen_by(100, BASIC, where, table | {1: 1, 2: 3, 3: 0}).surplus
