"""What if: margins after the loss of a region, an operator or a release, counted stripe by stripe."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.tiers import BASIC, STANDARD, TIERS, Tier
from lockbox_node.core.what_if import WORST_LISTED_MAX, Case, Kind, WhatIf, lost_of
from protocol.ids import NodeId
from protocol.messages import HolderEntry

FAR = ("eu-west-1", "ap-south-1", "sa-east-1", "us-east-1", "ap-southeast-2")


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Where:
    """What a member says of itself."""

    region: str
    operator: str = "op"
    software: bytes = bytes(32)


@dataclass(frozen=True)
class Held:
    """A stripe held here."""

    address: bytes
    index: int
    corrupt: bool
    entries: list[HolderEntry]


def stripe(holders: dict[int, int], own: int = 1, address: bytes = bytes(32), corrupt: bool = False) -> Held:
    """`holders` = node -> index."""
    entries = [HolderEntry(index, node_id(node), 1) for node, index in holders.items()]
    return Held(address, holders[own], corrupt, entries)


def spread(count: int, regions: int = 5) -> dict[NodeId, Where]:
    """Nodes 1, 2, ... of one region after the other, each of its own operator."""
    return {node_id(node): Where(FAR[(node - 1) % regions], f"op{node}") for node in range(1, count + 1)}


def in_order(tier: Tier) -> dict[int, int]:
    return {node: node - 1 for node in range(1, tier.n + 1)}


def named(found: WhatIf, kind: Kind, name: str) -> Case:
    return next(case for case in found.cases(kind) if case.name == name)


def test_a_region_takes_all_of_its_shards_with_it() -> None:
    found = WhatIf(node_id(1), spread(10))
    found.add(stripe(in_order(STANDARD)), STANDARD)
    case = named(found, Kind.REGION, "eu-west-1")
    assert found.margins == {5: 1}
    assert case.margins == {3: 1}
    assert (case.nodes, case.shards, case.stripes, case.worst, case.lost) == (2, 2, 1, 3, 0)


def test_an_operator_and_a_release_count_alike() -> None:
    members = {node: Where(where.region, "big", bytes([1]) * 32) for node, where in spread(10).items()}
    members[node_id(10)] = Where("ap-southeast-2", "small", bytes([2]) * 32)
    found = WhatIf(node_id(1), members)
    found.add(stripe(in_order(STANDARD)), STANDARD)
    assert named(found, Kind.OPERATOR, "big").margins == {-4: 1}
    assert named(found, Kind.OPERATOR, "big").lost == 1
    assert named(found, Kind.RELEASE, "02" * 32).margins == {4: 1}


def test_an_index_with_a_second_holder_elsewhere_is_not_lost() -> None:
    members = spread(12)
    holders = in_order(STANDARD) | {12: 0}  # node 1 stands in Dublin, node 12 in Mumbai
    found = WhatIf(node_id(1), members)
    found.add(stripe(holders), STANDARD)
    assert named(found, Kind.REGION, "eu-west-1").margins == {4: 1}, "only node 6 is missed"


def test_the_dead_count_now_and_not_again() -> None:
    members = spread(10)
    gone = [members.pop(node_id(node)) for node in (2, 7)]  # all of Mumbai
    found = WhatIf(node_id(1), members, gone=gone)
    found.add(stripe(in_order(STANDARD)), STANDARD)
    assert found.margins == {3: 1}
    assert found.short == 1
    mumbai = named(found, Kind.REGION, "ap-south-1")
    assert (mumbai.nodes, mumbai.gone, mumbai.worst, mumbai.shards) == (0, 2, None, 0)
    assert found.cases(Kind.REGION)[-1] is mumbai, "what holds nothing stands last"
    assert named(found, Kind.REGION, "eu-west-1").margins == {1: 1}


def test_our_own_damaged_part_counts_as_lost() -> None:
    found = WhatIf(node_id(1), spread(10))
    found.add(stripe(in_order(STANDARD), corrupt=True), STANDARD)
    assert found.margins == {4: 1}


def test_holders_that_drain_still_count() -> None:
    found = WhatIf(node_id(1), spread(10), failing={node_id(3)})
    found.add(stripe(in_order(STANDARD)), STANDARD)
    assert found.margins == {5: 1}
    assert found.short == 1


def test_what_is_whole_but_out_of_place_is_counted() -> None:
    members = spread(10)
    members[node_id(3)] = Where("atlantis", "op3")
    found = WhatIf(node_id(1), members)
    found.add(stripe(in_order(STANDARD)), STANDARD)
    assert (found.displaced, found.short) == (1, 0)


def test_the_worst_case_comes_first() -> None:
    found = WhatIf(node_id(1), spread(10))
    found.add(stripe(in_order(STANDARD)), STANDARD)
    found.add(stripe({1: 0, 2: 1, 7: 2, 3: 3, 4: 4}, address=bytes([1]) * 32), BASIC)
    cases = found.cases(Kind.REGION)
    assert [case.worst for case in cases] == [0, 1, 1, 1, 3]
    assert cases[0].name == "ap-south-1"
    assert found.worst[0].address == bytes([1]) * 32
    assert (found.worst[0].margin, found.worst[0].after, found.worst[0].name) == (2, 0, "ap-south-1")
    assert found.tiers == {"standard": 1, "basic": 1}


def test_a_release_that_everybody_runs_makes_no_stripe_the_worst() -> None:
    found = WhatIf(node_id(1), spread(10))
    found.add(stripe(in_order(STANDARD)), STANDARD)
    assert found.cases(Kind.RELEASE)[0].worst == -5
    assert found.worst[0].kind is Kind.REGION


def test_siblings_at_one_address_stand_side_by_side() -> None:
    found = WhatIf(node_id(1), spread(10))
    for _ in range(3):
        found.add(stripe(in_order(STANDARD)), STANDARD)
    assert len(found.worst) == 3


def test_of_many_stripes_only_the_worst_are_kept() -> None:
    found = WhatIf(node_id(1), spread(10))
    for number in range(3 * WORST_LISTED_MAX):
        found.add(stripe(in_order(STANDARD), address=number.to_bytes(32, "big")), STANDARD)
    crowded = {1: 0, 2: 1, 7: 2, 3: 3, 4: 4}
    found.add(stripe(crowded, address=bytes([255]) * 32), BASIC)
    assert len(found.worst) == WORST_LISTED_MAX
    assert found.worst[0].address == bytes([255]) * 32
    assert found.worst[1].address == bytes(32), "of equals the lowest address, so that two reports are alike"


def test_lost_counts_what_is_below_zero() -> None:
    assert lost_of(Counter({-2: 3, -1: 1, 0: 7, 4: 9})) == 4


@given(st.data(), st.sampled_from(TIERS))
def test_a_case_leaves_what_is_left_when_its_nodes_are_taken_out(data: st.DataObject, tier: Tier) -> None:
    places = st.builds(Where, st.sampled_from(FAR), st.sampled_from("abcde"), st.sampled_from([b"x" * 32, b"y" * 32]))
    count = data.draw(st.integers(tier.n, tier.n + 6))
    members = {node_id(number): data.draw(places) for number in range(1, count + 1)}
    holders = {number: (number - 1) % tier.n for number in range(1, count + 1)}
    found = WhatIf(node_id(1), members)
    found.add(stripe(holders), tier)
    for case in found.cases(Kind.REGION):
        left = {holders[number] for number in holders if members[node_id(number)].region != case.name}
        assert set(case.margins) <= {len(left) - tier.k}
        assert len(left) == tier.n - case.shards
