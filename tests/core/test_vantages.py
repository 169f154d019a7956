"""Which reports are kept, which are told to whom; limits, replays, age."""

from __future__ import annotations

from random import Random

import pytest

from lockbox_node.core.location import Sighting
from lockbox_node.core.vantages import AHEAD_S, APART_S, HELD_MAX, LIFE_S, Objection, VantageTable
from protocol.ids import NodeId, distance
from protocol.messages import Signed
from protocol.vantage import VANTAGES_MAX, KnownVantage, RoundTrip, Vantage

NOW = 1_800_000_000
OWN = NodeId(bytes(32))


def node(number: int) -> NodeId:
    return NodeId(Random(f"node {number}").randbytes(32))


def report(judge: NodeId, at: int = NOW, *trips: RoundTrip) -> Vantage:
    return Vantage(judge, "eu-west-1", at, list(trips), [b"chain"])


def signed(vantage: Vantage) -> Signed:
    return Signed(vantage.judge + str(vantage.signed_unix_s).encode(), bytes(64))


def table_of(*reports: Vantage) -> VantageTable:
    table = VantageTable(OWN)
    for one in reports:
        assert table.objection(one, NOW, {NodeId(one.judge)}) is None
        table.keep(signed(one), one)
    return table


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW, Objection.STALE),  # a replay
        (NOW + APART_S - 1, Objection.STALE),
        (NOW - 100, Objection.STALE),
        (NOW + APART_S, None),
        (NOW + AHEAD_S, None),
        (NOW + AHEAD_S + 1, Objection.FUTURE),
        (NOW - LIFE_S - 1, Objection.EXPIRED),
    ],
)
def test_of_one_judge_only_what_is_newer_counts(at: int, expected: Objection | None) -> None:
    table = table_of(report(node(1)))
    assert table.objection(report(node(1), at), NOW, {node(1)}) is expected
    assert (node(1) in table.wanted([KnownVantage(node(1), at)], NOW, {node(1)})) == (expected is None)


def test_only_members_are_heard() -> None:
    table = VantageTable(OWN)
    assert table.objection(report(node(1)), NOW, {node(2)}) is Objection.STRANGER
    assert table.wanted([KnownVantage(node(1), NOW)], NOW, {node(2)}) == []


def test_nobody_is_asked_for_our_own() -> None:
    assert VantageTable(OWN).wanted([KnownVantage(OWN, NOW)], NOW, {OWN}) == []


def test_the_newest_takes_the_place_of_all_before_it() -> None:
    trips = [RoundTrip(node(2), "sa-east-1", 900, 20, NOW), RoundTrip(node(3), "sa-east-1", 800, 20, NOW - LIFE_S - 1)]
    table = table_of(report(node(1), NOW, *trips), report(node(1), NOW + APART_S, *trips))
    assert len(table) == 1
    assert table.sightings(NOW) == [Sighting(node(1), "eu-west-1", node(2), "sa-east-1", 900)]
    assert table.sightings(NOW, without=node(1)) == []
    assert table.known() == [KnownVantage(node(1), NOW + APART_S)]


def test_what_is_old_or_of_nobody_is_forgotten() -> None:
    table = table_of(report(node(1), NOW - LIFE_S), report(node(2)), report(node(3)))
    before = table.version
    table.expire(NOW, {node(1), node(2)})
    assert {one.judge for one in table.known()} == {node(1), node(2)}
    table.expire(NOW + 1, {node(1), node(2)})
    assert {one.judge for one in table.known()} == {node(2)}
    assert table.version == before + 2


def test_when_all_is_full_the_nearest_stay() -> None:
    judges = sorted((node(number) for number in range(HELD_MAX + 1)), key=lambda one: distance(one, OWN))
    table = table_of(*(report(judge) for judge in judges[1:]))
    assert len(table) == HELD_MAX
    assert table.objection(report(NodeId(b"\xff" * 32)), NOW, {NodeId(b"\xff" * 32)}) is Objection.FAR
    assert table.objection(report(judges[0]), NOW, {judges[0]}) is None
    table.keep(signed(report(judges[0])), report(judges[0]))
    assert len(table) == HELD_MAX
    assert {one.judge for one in table.known()} == set(judges[:-1])


def test_others_are_told_what_they_lack_the_nearest_to_them_first() -> None:
    table = table_of(*(report(node(number)) for number in range(VANTAGES_MAX + 3)))
    asker = node(0)
    found, more = table.newer_than([KnownVantage(node(1), NOW), KnownVantage(node(2), NOW - APART_S)], asker)
    assert (len(found), more) == (VANTAGES_MAX, True)
    told = [NodeId(one.body[:32]) for one in found]
    assert asker not in told
    assert node(1) not in told
    assert told == sorted(told, key=lambda one: distance(one, asker))
    known = [KnownVantage(judge, NOW) for judge in told]
    rest, more = table.newer_than([KnownVantage(node(1), NOW), *known], asker)
    assert (len(rest), more) == (1, False)
    assert table.of([node(1), NodeId(b"\xff" * 32)]) == [signed(report(node(1)))]


def test_who_is_full_is_told_of_nobody_farther_than_what_it_has() -> None:
    table = table_of(report(NodeId(b"\xff" * 32)), report(node(1)))
    full = [KnownVantage(number.to_bytes(32, "big"), NOW) for number in range(1, HELD_MAX)]
    full.append(KnownVantage(b"\x80" + bytes(31), NOW))
    found, _ = table.newer_than(full, OWN)
    assert [one.body[:32] for one in found] == ([node(1)] if node(1) < b"\x80" + bytes(31) else [])
