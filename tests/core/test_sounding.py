"""Whom to measure next; which pings count, and what they come to."""

from __future__ import annotations

import pytest

from lockbox_node.core.sounding import TRIES_FACTOR, Burst, MeasuringParams, Soundings
from lockbox_node.errors import ConfigError
from protocol.ids import NodeId
from protocol.vantage import RoundTrip

PARAMS = MeasuringParams()
A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
LIVES = {A: ("eu-west-1", b"one"), B: ("sa-east-1", b"one"), C: ("us-east-1", b"one")}


def trip(node: NodeId, rtt_us: int = 900) -> RoundTrip:
    return RoundTrip(node, LIVES[node][0], rtt_us, 20, 7)


def measured(soundings: Soundings, *nodes: NodeId, at: float = 0.0) -> None:
    for node in nodes:
        soundings.measured(node, LIVES[node], trip(node), at)


def test_the_shortest_of_enough_counts_rounded_up() -> None:
    burst = Burst(PARAMS)
    for number in range(PARAMS.pings - 1):
        assert burst.add(0.020 + number / 1000, 0.0)
    assert not burst.enough
    assert burst.add(0.0123450001, 0.0)
    assert burst.over
    assert burst.trip(A, "eu-west-1", 7.9) == RoundTrip(A, "eu-west-1", 12_346, 20, 7)


def test_a_ping_around_which_we_stood_still_is_thrown_away() -> None:
    burst = Burst(PARAMS)
    assert not burst.add(0.001, PARAMS.stall_s * 1.01)
    assert not burst.add(None, 0.0)
    for _ in range(PARAMS.pings):
        assert burst.add(0.5, PARAMS.stall_s)
    assert burst.trip(A, "eu-west-1", 0).rtt_us == 500_000


def test_after_many_in_vain_a_measurement_is_given_up() -> None:
    burst = Burst(PARAMS)
    for _ in range(TRIES_FACTOR * PARAMS.pings):
        assert not burst.over
        burst.add(0.001, 1.0)
    assert burst.over
    assert not burst.enough


def test_who_is_silent_is_given_up_soon() -> None:
    burst = Burst(PARAMS)
    for round_trip_s in (None, None, 0.001, None, None):
        burst.add(round_trip_s, 0.0)
        assert not burst.over
    burst.add(None, 0.0)
    assert burst.over


def test_even_no_time_at_all_is_a_microsecond() -> None:
    burst = Burst(PARAMS)
    for _ in range(PARAMS.pings):
        burst.add(0.0, 0.0)
    assert burst.trip(A, "", 0).rtt_us == 1


def test_everybody_is_measured_in_turn_and_again_after_hours() -> None:
    soundings = Soundings(PARAMS)
    for expected in (A, B, C):
        assert soundings.next(LIVES, 0.0) == expected
        measured(soundings, expected)
    assert soundings.next(LIVES, PARAMS.again_s - 1) is None
    measured(soundings, B, at=1.0)
    assert soundings.next(LIVES, PARAMS.again_s) == A
    assert [one.subject for one in soundings.trips()] == [A, B, C]


def test_who_lives_anew_is_unknown_and_next() -> None:
    soundings = Soundings(PARAMS)
    measured(soundings, A, B, C)
    for life in (("eu-west-1", b"two"), ("eu-west-2", b"two")):
        before = soundings.version
        assert soundings.next({**LIVES, A: life}, 1.0) == A
        assert soundings.version > before
        assert A not in {one.subject for one in soundings.trips()}
        soundings.measured(A, life, trip(A), 1.0)


def test_who_is_gone_is_forgotten() -> None:
    soundings = Soundings(PARAMS)
    measured(soundings, A, B)
    assert soundings.next({B: LIVES[B]}, 1.0) is None
    assert [one.subject for one in soundings.trips()] == [B]


def test_a_failure_waits_ever_longer_and_takes_nothing_back() -> None:
    soundings = Soundings(PARAMS)
    lives = {A: LIVES[A]}
    measured(soundings, A)
    now = PARAMS.again_s
    for wait_s in (60.0, 120.0, 240.0):
        assert soundings.next(lives, now) == A
        soundings.failed(A, LIVES[A], now)
        assert soundings.next(lives, now + wait_s - 1) is None
        now += wait_s
    for _ in range(40):
        soundings.failed(A, LIVES[A], now)
    assert soundings.next(lives, now + PARAMS.again_s) == A
    assert soundings.trips() == [trip(A)]
    soundings.failed(A, ("eu-west-2", b"two"), now)
    assert soundings.trips() == []


@pytest.mark.parametrize("wrong", [{"pings": 19}, {"pings": 256}, {"pings_per_s": 0.0}, {"again_s": float("inf")}])
def test_params_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MeasuringParams(**wrong)  # type: ignore[arg-type]
