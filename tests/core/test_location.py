"""What round trips refute and prove, whose word counts how much, and that nobody honest is ever refuted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.location import (
    ELECTORS,
    LIGHT_KM_PER_S,
    NOTHING_KNOWN,
    SLACK_KM,
    Judgement,
    Level,
    Sighting,
    contradicts,
    is_telling,
    judge,
    proves_near,
    quorum,
    reach_km,
    region_km,
)
from lockbox_node.core.regions import BUILT_IN, EARTH_RADIUS_KM, Region, distance_km
from protocol.ids import NodeId

FIBRE_KM_PER_S = 200_000.0
DETOUR = 1.4


@dataclass(frozen=True)
class Claim:
    """A member."""

    region: str
    operator: str


def node(number: int) -> NodeId:
    return NodeId(Random(f"node {number}").randbytes(32))


def network(*regions: str) -> dict[NodeId, Claim]:
    """Node i claims regions[i], each of an operator of its own."""
    return {node(number): Claim(region, f"op{number}") for number, region in enumerate(regions)}


def seen(claims: dict[NodeId, Claim], by: int, of: int, rtt_ms: float) -> Sighting:
    return Sighting(node(by), claims[node(by)].region, node(of), claims[node(of)].region, math.ceil(rtt_ms * 1000))


def fibre_ms(a: str, b: str) -> float:
    """A real round trip between two regions."""
    return distance_km(BUILT_IN.named(a), BUILT_IN.named(b)) * DETOUR * 2 / FIBRE_KM_PER_S * 1000


def third(claims: dict[NodeId, Claim], theirs: list[Sighting], own: NodeId | None = None) -> Judgement:
    return judge(own, claims, [], theirs)


# What one round trip means


def test_a_millisecond_is_149_9_km_at_most() -> None:
    assert reach_km(1000) == pytest.approx(149.896, abs=0.001)


def test_only_what_light_cannot_do_contradicts_and_only_what_it_must_have_done_proves() -> None:
    rtt_us = 10_000
    edge_km = reach_km(rtt_us) + 2 * SLACK_KM
    assert not contradicts(edge_km, rtt_us)
    assert contradicts(edge_km + 0.001, rtt_us)
    assert proves_near(0.0, 6_000)
    assert not proves_near(0.0, 6_005)
    assert not proves_near(900.1, 0)


def test_what_neither_proves_nor_refutes_is_not_telling() -> None:
    claims = network("eu-central-1", "ap-southeast-2", "eu-west-1", "nowhere")
    assert is_telling(seen(claims, 0, 1, 5.0), region_km)
    assert is_telling(Sighting(node(0), "eu-central-1", node(9), "eu-central-1", 500), region_km)
    assert not is_telling(seen(claims, 0, 2, 15.0), region_km)
    assert not is_telling(seen(claims, 0, 3, 1.0), region_km)


def test_an_honest_one_is_among_a_quorum() -> None:
    for network_size in range(2, ELECTORS + 2):
        assert quorum(network_size - 1, network_size - 1) > network_size / 5
    assert quorum(4, 4) == 3


def test_of_a_sample_more_may_be_liars_by_four_standard_deviations() -> None:
    assert quorum(128, 10**6) == 44
    assert quorum(128, 199) == 37
    sizes = [quorum(128, of) for of in range(128, 2000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 26


# One judge


def test_a_judge_refutes_whom_it_sees_itself() -> None:
    claims = network("eu-central-1", "ap-southeast-2", *["us-east-1"] * 12)
    found = judge(node(0), claims, [seen(claims, 0, 1, 2.0), seen(claims, 0, 2, 92.0)], [])
    assert list(found.refuted) == [node(1)]
    assert found.refuted[node(1)][0].within_km == pytest.approx(299.8, abs=0.1)
    assert found.level(node(1)) is Level.CLAIMED
    assert found.against(node(1)) == list(found.contradictions)
    assert found.against(node(2)) == []


def test_a_neighbour_is_measured_when_it_is_seen_near() -> None:
    claims = network("eu-central-1", "eu-central-1", "eu-west-3", "eu-west-1")
    ours = [seen(claims, 0, 1, 0.5), seen(claims, 0, 2, 2.0), seen(claims, 0, 3, 15.0)]
    found = judge(node(0), claims, ours, [])
    assert found.measured == {node(1), node(2)}
    assert found.level(node(1)) is Level.MEASURED
    assert found.refuted == {}


def test_what_was_measured_before_either_moved_counts_no_more() -> None:
    claims = network("eu-central-1", "ap-southeast-2")
    ours = [seen(claims, 0, 1, 2.0)]
    for moved in ({node(0): Claim("eu-west-1", "op0")}, {node(1): Claim("eu-central-1", "op1")}):
        assert judge(node(0), {**claims, **moved}, ours, []) == NOTHING_KNOWN
    assert judge(node(0), {node(0): claims[node(0)]}, ours, []) == NOTHING_KNOWN


def test_others_need_to_be_more_than_a_fifth_of_three_operators_and_two_regions() -> None:
    places = ["eu-central-1", "eu-west-1", "eu-central-1", "eu-west-3", "us-east-1", *["ap-northeast-1"] * 7]
    claims = network("ap-southeast-2", *places)
    accusers = [seen(claims, by, 0, 20.0) for by in (1, 2, 3, 4)]
    assert list(third(claims, accusers[:3]).refuted) == [node(0)]
    assert third(claims, accusers[:2]).refuted == {}
    one_place = [accusers[0], accusers[2], Sighting(node(4), "eu-central-1", node(0), "ap-southeast-2", 900)]
    assert third({**claims, node(4): Claim("eu-central-1", "op4")}, one_place).refuted == {}
    one_hand = {**claims, node(2): Claim("eu-central-1", "op1")}
    assert third(one_hand, accusers[:3]).refuted == {}
    assert list(third(one_hand, accusers).refuted) == [node(0)]
    nineteen = {**claims, **{node(30 + more): Claim("sa-east-1", f"op{30 + more}") for more in range(6)}}
    assert third(nineteen, accusers[:3]).refuted == {}
    assert list(third(nineteen, accusers).refuted) == [node(0)]


def test_many_nodes_of_few_operators_are_few() -> None:
    claims = network("ap-southeast-2", "eu-central-1", "eu-west-1", *["us-east-1"] * 18)
    claims |= {node(number): Claim("us-east-1", f"op{number % 2}") for number in range(3, 21)}
    accusers = [seen(claims, by, 0, 20.0) for by in range(3, 21)]
    assert third(claims, accusers).refuted == {}


def test_many_operators_of_one_node_each_are_few() -> None:
    claims = network("ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1", "us-east-2", *["us-east-1"] * 15)
    claims |= {node(number): Claim("us-east-1", f"big{number % 3}") for number in range(5, 20)}
    accusers = [seen(claims, by, 0, 20.0) for by in (1, 2, 3, 4)]
    assert third(claims, accusers).refuted == {}
    assert list(third(claims, [*accusers, seen(claims, 5, 0, 20.0)]).refuted) == [node(0)]


def test_whom_the_most_accuse_is_judged_first_and_loses_its_voice() -> None:
    """Three liars of twelve are more than a fifth; but who contradicts everybody is contradicted by everybody."""
    claims = network(*["eu-central-1", "eu-west-1", "us-east-1"] * 3, "ap-southeast-2", "ap-southeast-1", "sa-east-1")
    liars, victim = (9, 10, 11), 0
    honest = [seen(claims, by, of, 5.0) for by in range(9) for of in liars]
    framing = [seen(claims, by, victim, 5.0) for by in liars]
    support = [Sighting(node(by), claims[node(by)].region, node(1), "eu-west-1", 1) for by in liars]
    found = third(claims, [*framing, *support, *honest])
    assert set(found.refuted) == {node(liar) for liar in liars}
    assert list(third(claims, framing).refuted) == [node(victim)]


def test_who_is_refuted_proves_no_place() -> None:
    claims = network(*["eu-central-1"] * 4, *["us-east-1", "us-east-2", "eu-west-1"] * 2, "sa-east-1")
    support = [seen(claims, by, 0, 0.5) for by in (1, 2, 3)]
    against = [seen(claims, by, of, 1.0) for by in range(4, 11) for of in (1, 2, 3)]
    assert third(claims, support).measured == {node(0)}
    assert third(claims, [*support, *against]).measured == frozenset()


def test_nobody_bears_witness_on_its_own_operator() -> None:
    claims = network("ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1")
    claims[node(3)] = Claim("us-east-1", "op0")
    assert third(claims, [seen(claims, by, 0, 20.0) for by in (1, 2, 3)]).refuted == {}


def test_three_witnesses_prove_a_place_too() -> None:
    claims = network(*["eu-central-1"] * 4, "ap-southeast-2")
    support = [seen(claims, by, 0, 0.5) for by in (1, 2, 3)]
    assert third(claims, support).measured == {node(0)}
    assert third(claims, support[:2]).measured == frozenset()


def test_who_is_refuted_bears_no_witness() -> None:
    claims = network("eu-central-1", "ap-southeast-2", "ap-southeast-1", "sa-east-1", "us-west-2", *["us-east-1"] * 6)
    framing = [seen(claims, by, 10, 1.0) for by in (1, 2, 3)]
    assert list(third(claims, framing).refuted) == [node(10)]
    found = judge(node(0), claims, [seen(claims, 0, 1, 2.0)], framing)
    assert list(found.refuted) == [node(1)]


def test_who_contradicts_more_than_may_lie_doubts_itself() -> None:
    claims = network("ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1", "sa-east-1")
    ours = [seen(claims, 0, of, 2.0) for of in (1, 2, 3)]
    found = judge(node(0), claims, ours, [])
    assert found.doubted
    assert found.refuted == {}
    assert len(found.contradictions) == 3
    assert not judge(node(0), claims, ours[:2], []).doubted


def test_who_is_refuted_by_others_doubts_itself_and_believes_them() -> None:
    claims = network("ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1", "sa-east-1")
    accusers = [seen(claims, by, 0, 20.0) for by in (1, 2, 3)]
    found = judge(node(0), claims, [seen(claims, 0, 1, 20.0)], accusers)
    assert found.doubted
    assert list(found.refuted) == [node(0)]


def test_in_a_large_network_only_the_nearest_to_a_node_bear_witness_on_it() -> None:
    count = 400
    claims = network(*["us-east-1"] * count)
    claims[node(0)] = Claim("ap-southeast-2", "op0")
    claims |= {node(number): Claim("eu-west-1", f"op{number}") for number in range(1, count, 2)}
    order = sorted(range(1, count), key=lambda one: int.from_bytes(node(one), "big") ^ int.from_bytes(node(0), "big"))
    near, far = order[:ELECTORS], order[ELECTORS:]
    assert third(claims, [seen(claims, by, 0, 20.0) for by in far]).refuted == {}
    needed = quorum(ELECTORS, count - 1)
    assert third(claims, [seen(claims, by, 0, 20.0) for by in near[: needed - 1]]).refuted == {}
    assert list(third(claims, [seen(claims, by, 0, 20.0) for by in near[:needed]]).refuted) == [node(0)]


# Properties: a sphere, honest nodes within the slack of what they claim, and light at its fastest


@dataclass(frozen=True)
class Sphere:
    """Regions at random places, and where each node truly stands."""

    regions: list[Region]
    places: list[Region]

    @classmethod
    def of(cls, rng: Random, count: int) -> Sphere:
        regions = [
            Region(f"r{number}", "", math.degrees(math.asin(rng.uniform(-1, 1))), rng.uniform(-180, 180))
            for number in range(count)
        ]
        return cls(regions, [_moved(region, rng) for region in regions])

    def km(self, a: str, b: str) -> float | None:
        return distance_km(self.regions[int(a[1:])], self.regions[int(b[1:])])

    def rtt_us(self, a: int, b: int, rng: Random) -> int:
        """At least what light takes; often much more."""
        light_us = 2 * distance_km(self.places[a], self.places[b]) / LIGHT_KM_PER_S * 1e6
        return math.ceil(light_us + rng.choice([0.0, 0.0, rng.expovariate(1 / 50_000)]))


def _moved(region: Region, rng: Random) -> Region:
    """Within the slack of a region: along its meridian, away from the poles."""
    shift = math.degrees(rng.uniform(0, 0.999 * SLACK_KM) / EARTH_RADIUS_KM)
    return Region(region.name, "", region.latitude - math.copysign(shift, region.latitude), region.longitude)


def _honest(sphere: Sphere, claims: dict[NodeId, Claim], rng: Random) -> list[Sighting]:
    count = len(claims)
    return [
        Sighting(node(a), f"r{a}", node(b), f"r{b}", sphere.rtt_us(a, b, rng))
        for a in range(count)
        for b in range(count)
        if a != b
    ]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_among_honest_nodes_nobody_is_refuted_however_much_is_delayed(seed: int, count: int) -> None:
    rng = Random(seed)
    sphere, claims = Sphere.of(rng, count), network(*(f"r{number}" for number in range(count)))
    everything = _honest(sphere, claims, rng)
    for own in [None, *claims]:
        found = judge(own, claims, [one for one in everything if one.judge == own], everything, sphere.km)
        assert found.refuted == {}
        assert found.contradictions == ()
        assert not found.doubted


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(5, 22))
def test_a_fifth_of_liars_gets_nobody_honest_refuted(seed: int, count: int) -> None:
    rng = Random(seed)
    sphere, claims = Sphere.of(rng, count), network(*(f"r{number}" for number in range(count)))
    liars = rng.sample(range(count), count // 5)
    truth = _honest(sphere, claims, rng)
    victims = [number for number in range(count) if number not in liars]
    told = [one for one in truth if one.judge not in {node(liar) for liar in liars}]
    told += [Sighting(node(liar), f"r{liar}", node(victim), f"r{victim}", 1) for liar in liars for victim in victims]
    for own in [None, *(node(victim) for victim in victims)]:
        # A liar that stands beside the judge, whatever it claims: the judge sees it near.
        ours = [one for one in truth if one.judge == own]
        ours = [
            Sighting(one.judge, one.judge_region, one.subject, one.subject_region, 100)
            if one.subject in {node(liar) for liar in liars}
            else one
            for one in ours
        ]
        found = judge(own, claims, ours, told, sphere.km)
        assert not found.doubted
        assert {number for number in victims if node(number) in found.refuted} == set()


@given(st.integers(0, 2**32))
def test_more_delay_never_refutes_more(seed: int) -> None:
    rng = Random(seed)
    claims = network(*(rng.choice(sorted(BUILT_IN.regions)) for _ in range(12)))
    own = node(0)
    ours = [seen(claims, 0, of, rng.uniform(0.1, 200)) for of in range(1, 4)]
    before = judge(own, claims, ours, [])
    slower = [
        Sighting(one.judge, one.judge_region, one.subject, one.subject_region, one.rtt_us + rng.randrange(10**6))
        for one in ours
    ]
    after = judge(own, claims, slower, [])
    assert {one.subject for one in after.contradictions} <= {one.subject for one in before.contradictions}
