"""When our wall clock may end leases: votes, jumps, freezes, thaws, restarts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.clock_trust import ClockTrust, ClockTrustParams, Noted, PeerClock
from lockbox_node.errors import ConfigError

PARAMS = ClockTrustParams()
WALL = 1_800_000_000.0
START = 500.0
HOUR_S, DAY_S = 3600.0, 86400.0
LEAD_S = WALL - START


def peer(number: int, offset_s: float = 0.0, operator: str = "", measured_at: float = START) -> PeerClock:
    """A peer whose clock was `offset_s` ahead of the true time."""
    return PeerClock(bytes([number]) * 32, operator or f"op{number}", LEAD_S + offset_s, measured_at)


def peers(*offsets_s: float) -> list[PeerClock]:
    return [peer(number, offset_s) for number, offset_s in enumerate(offsets_s)]


THREE = peers(0.0, 0.0, 0.0)


def clock(noted: Noted | None = None, wall: float = WALL) -> ClockTrust:
    return ClockTrust(PARAMS, noted, wall, START)


def watched(one: ClockTrust, since_s: float, until_s: float, ahead_s: float = 0.0) -> bool:
    """Look every minute with three peers that agree with the true time, ours being `ahead_s`; the last answer."""
    trusted = False
    for minute in range(int(since_s // 60), int(until_s // 60) + 1):
        trusted = one.look(WALL + 60 * minute + ahead_s, START + 60 * minute, THREE).trusted
    return trusted


def test_three_peers_that_agree_are_enough_and_two_are_not() -> None:
    assert clock().look(WALL, START, THREE).trusted
    refused = clock().look(WALL, START, THREE[:2])
    assert not refused.trusted
    assert refused.reason == "only 2 of 3 peers that are needed have told their time"


@pytest.mark.parametrize(("offset_s", "trusted"), [(60.0, True), (60.5, False), (-60.0, True), (-60.5, False)])
def test_it_must_be_within_a_minute_of_the_median(offset_s: float, trusted: bool) -> None:
    answer = clock().look(WALL, START, peers(offset_s, -5000.0, 5000.0))
    assert answer.trusted is trusted
    assert answer.offset_s == pytest.approx(offset_s)
    assert bool(answer.reason) is not trusted


def test_the_reason_says_who_is_ahead() -> None:
    assert clock().look(WALL, START, peers(90.0, 90.0, 90.0)).reason == "it is 90 s behind the median of 3 peers"
    assert clock().look(WALL, START, peers(-90.0, -90.0, -90.0)).reason == "it is 90 s ahead of the median of 3 peers"


def test_a_minority_of_wrong_clocks_moves_nothing() -> None:
    assert clock().look(WALL, START, peers(0.0, 10.0, -10.0, 9e8, 9e8)).trusted


def test_one_operator_with_many_nodes_has_one_vote() -> None:
    many = [peer(number, 1e7, "big") for number in range(100)]
    assert clock().look(WALL, START, [*many, peer(200), peer(201)]).trusted


def test_with_fewer_than_three_operators_every_node_has_a_vote() -> None:
    answer = clock().look(WALL, START, [peer(1, 0, "a"), peer(2, 0, "a"), peer(3, 0, "b")])
    assert answer.trusted
    assert answer.votes == 3


def test_a_jump_of_ours_shows_at_once_as_disagreement_with_peers_measured_before() -> None:
    one = clock()
    assert one.look(WALL, START, THREE).trusted
    assert not one.look(WALL + 10 + 61, START + 10, THREE).trusted
    assert not one.frozen, "under an hour it is disagreement, not a jump"
    assert one.look(WALL + 20, START + 20, THREE).trusted


@pytest.mark.parametrize("jump_s", [HOUR_S + 1, -HOUR_S - 1, 10 * 365 * DAY_S])
def test_a_jump_over_an_hour_freezes_even_when_all_peers_jump_along(jump_s: float) -> None:
    one = clock()
    assert one.look(WALL, START, THREE).trusted
    answer = one.look(WALL + 1 + jump_s, START + 1, peers(jump_s, jump_s, jump_s))
    assert not answer.trusted
    assert one.frozen
    assert answer.reason.startswith(f"it jumped by {jump_s:.0f} s")


def test_many_small_leaps_are_one_jump() -> None:
    one = clock()
    for leap in range(1, 63):
        now = START + 60 * leap
        ahead = 59.0 * leap
        trusted = one.look(WALL + 60 * leap + ahead, now, peers(ahead, ahead, ahead)).trusted
        assert trusted is not one.frozen
    assert one.frozen


def test_it_thaws_after_an_hour_of_agreement() -> None:
    one = clock()
    watched(one, 0, 0)
    watched(one, 60, 120, ahead_s=2 * HOUR_S)
    assert not watched(one, 180, 180 + HOUR_S - 60)
    assert one.frozen
    assert watched(one, 180 + HOUR_S, 180 + HOUR_S)


def test_disagreement_or_another_jump_begins_the_hour_anew() -> None:
    one = clock()
    watched(one, 0, 60, ahead_s=2 * HOUR_S)
    watched(one, 120, 1800)
    one.look(WALL + 1860, START + 1860, THREE[:2])
    assert not watched(one, 1920, 1920 + HOUR_S - 60)
    one.look(WALL + 5520 - 2 * HOUR_S, START + 5520, THREE)
    assert not watched(one, 5580, 5580 + HOUR_S - 60)
    assert watched(one, 5580 + HOUR_S, 5580 + HOUR_S)


def test_time_that_nobody_looked_at_is_no_agreement() -> None:
    one = clock(Noted(WALL, frozen=True))
    assert not one.look(WALL, START, THREE).trusted
    assert not one.look(WALL + HOUR_S, START + HOUR_S, THREE).trusted
    assert watched(one, HOUR_S, 2 * HOUR_S)


def test_a_start_long_before_the_noted_time_is_a_jump_and_one_after_it_is_none() -> None:
    assert clock(Noted(WALL + HOUR_S + 1, frozen=False)).frozen
    assert not clock(Noted(WALL + HOUR_S, frozen=False)).frozen
    assert not clock(Noted(WALL - 30 * DAY_S, frozen=False)).frozen


def test_a_freeze_outlives_a_restart() -> None:
    one = clock()
    one.look(WALL + 2 * HOUR_S, START, THREE)
    assert one.noted == Noted(WALL + 2 * HOUR_S, frozen=True)
    again = clock(Noted(WALL, frozen=True))
    assert again.look(WALL, START, THREE).reason == "it jumped before the restart; peers must agree with it for 3600 s"
    assert watched(again, 0, HOUR_S)


def test_what_was_measured_long_ago_has_no_vote_and_is_asked_anew_before() -> None:
    one = clock()
    later = START + 2 * DAY_S + 1
    clocks = [*THREE[:2], peer(9, measured_at=START - 5)]
    assert one.overdue(START + DAY_S, clocks) is None
    assert one.overdue(later, clocks) == bytes([9]) * 32
    assert one.look(WALL + 2 * DAY_S + 1, later, clocks).trusted
    gone = 3 * DAY_S
    assert one.look(WALL + gone, START + gone, clocks).votes == 2


@given(
    st.lists(st.floats(-1e9, 1e9), max_size=12),
    st.lists(st.tuples(st.floats(0, 600), st.floats(-1e6, 1e6)), max_size=30),
)
def test_it_is_never_trusted_outside_a_minute_of_the_median_nor_soon_after_a_jump(
    offsets_s: list[float], steps: list[tuple[float, float]]
) -> None:
    one, now, wall, jumped_at = clock(), START, WALL, -1e9
    for passed_s, leap_s in steps:
        now, wall = now + passed_s, wall + passed_s + leap_s
        if abs(leap_s) > 2 * PARAMS.jump_s:
            jumped_at = now
        answer = one.look(wall, now, peers(*offsets_s))
        if answer.trusted:
            true = WALL + now - START
            near = sorted(abs(true + offset_s - wall) for offset_s in offsets_s)
            assert len(offsets_s) >= PARAMS.peers_min
            assert abs(answer.offset_s) <= PARAMS.agree_s
            assert near[0] <= 60 or len(offsets_s) % 2 == 0
            assert now - jumped_at >= PARAMS.thaw_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"peers_min": 0},
        {"operators_apart": 0},
        {"agree_s": 0.0},
        {"agree_s": 7200.0},
        {"jump_s": float("nan")},
        {"thaw_s": -1.0},
        {"gap_max_s": float("inf")},
        {"measured_kept_s": 1.0},
    ],
)
def test_params_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"clock\."):
        dataclasses.replace(PARAMS, **wrong)  # type: ignore[arg-type]
