"""A small network's day: found is who lives, nobody dead is returned, and one seed is one story."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest

from benchmarks.day import table
from simulations.day import Day, DayParams, Period

SMALL = DayParams(nodes=120, hours=4.0, online_h=6.0, lookups_per_h=20.0, refresh_h=2.0, period_h=2.0)


def fresh(seed: int, told_s: float = math.inf) -> list[Period]:
    return list(Day(replace(SMALL, told_s=told_s), seed).run())


periods = cache(fresh)


@pytest.mark.parametrize("told_s", [math.inf, 30.0])
def test_who_lives_is_found_all_day_and_nobody_dead(told_s: float) -> None:
    for period in periods(1, told_s):
        assert period.joined > 10
        assert period.died > 10
        assert len(period.recalls) > 20
        assert period.recall >= 0.99
        assert period.dead == 0
        assert max(period.hops) <= 8
        assert max(period.asked) <= 128


def test_tables_fill_with_the_dead_when_nobody_is_told_and_do_not_when_all_are() -> None:
    alone, told = periods(1)[-1], periods(1, 30.0)[-1]
    assert alone.dead_share > 0.01
    assert alone.silent > 100
    assert told.dead_share < 0.005
    assert told.silent < alone.silent / 10


def test_tables_take_newcomers_in() -> None:
    assert all(0.01 < period.new_share < 0.9 for period in periods(2))


def test_one_seed_is_one_story() -> None:
    assert fresh(1) == periods(1)
    assert periods(1) != periods(2)


def test_the_command_prints_a_line_for_each_period() -> None:
    assert [line.split()[1] for line in list(table(replace(SMALL, nodes=60), 1))[2:]] == ["2", "4"]
