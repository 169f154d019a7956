"""Whom to ask first: what was seen, what its region promises, what a dial costs, what silence says."""

from __future__ import annotations

from msgspec import structs

from lockbox_node.client.nearness import KNOWN_MAX, Nearness
from protocol.records import NodeRecord, parse
from simulations.identities import FakeNetwork

AUTHORITY = FakeNetwork()
NEVER = float("inf")


def node(number: int, region: str = "eu-west-1") -> NodeRecord:
    signed = AUTHORITY.node(number, operator="op1", region=region, address="host:1").record
    assert signed is not None
    return parse(signed, NodeRecord)


ONE, OTHER, FAR = node(1), node(2), node(3, "ap-southeast-2")


def test_nothing_is_expected_of_the_unknown() -> None:
    assert Nearness().expected_s(ONE, warm=True) == NEVER
    assert Nearness().expected_s(ONE, warm=False) == NEVER


def test_a_node_is_as_near_as_it_was_seen_and_a_dial_costs_more() -> None:
    nearness = Nearness()
    nearness.heard(ONE, 0.125)
    assert nearness.expected_s(ONE, warm=True) == 0.125
    assert nearness.expected_s(ONE, warm=False) == 0.5


def test_small_differences_are_none() -> None:
    nearness = Nearness()
    nearness.heard(ONE, 0.002)
    nearness.heard(OTHER, 0.007)
    assert nearness.expected_s(ONE, warm=True) == nearness.expected_s(OTHER, warm=True)


def test_a_node_that_was_never_asked_is_as_near_as_others_of_its_region() -> None:
    nearness = Nearness()
    nearness.heard(ONE, 0.125)
    assert nearness.expected_s(OTHER, warm=True) == 0.125
    assert nearness.expected_s(FAR, warm=True) == NEVER


def test_quicker_counts_at_once_and_slower_little_by_little() -> None:
    nearness = Nearness()
    for took_s in (0.5, 0.125, 0.625):
        nearness.heard(ONE, took_s)
    assert nearness.expected_s(ONE, warm=True) == 0.125 + 0.5 / 8


def test_who_keeps_us_waiting_comes_last_until_it_answers() -> None:
    nearness = Nearness()
    nearness.heard(ONE, 0.125)
    nearness.late(ONE, 5.0)
    assert nearness.expected_s(ONE, warm=True) == 5.0
    nearness.late(ONE, 1.0)
    assert nearness.expected_s(ONE, warm=True) == 5.0
    assert nearness.expected_s(OTHER, warm=True) == 0.125, "its region did nothing"
    nearness.heard(ONE, 0.25)
    assert nearness.expected_s(ONE, warm=True) == 0.25


def test_only_so_many_are_remembered_and_those_heard_last_are() -> None:
    nearness = Nearness()
    nearness.heard(FAR, 0.125)
    for number in range(KNOWN_MAX):
        if number == KNOWN_MAX // 2:
            nearness.heard(OTHER, 0.375)
        nearness.heard(another(number), 1.0)
    assert nearness.expected_s(FAR, warm=True) == NEVER
    assert nearness.expected_s(OTHER, warm=True) == 0.375
    for number in range(KNOWN_MAX):
        nearness.late(another(KNOWN_MAX + number), 2.0)
    nearness.late(ONE, 2.0)
    assert nearness.expected_s(another(KNOWN_MAX), warm=True) == NEVER


def another(number: int) -> NodeRecord:
    return structs.replace(FAR, node=number.to_bytes(32, "big"), region=f"region{number}")
