"""A month of repairs: nothing is lost, no region stores enough to rebuild, and what moved too much goes again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulations.month import DAY_S, Month, MonthParams, Told, table

FEW = MonthParams(nodes=42, stripes=60, days=4.0, loss_every_s=1.5 * DAY_S, trim_s=DAY_S / 4)


def held(told: Told) -> bool:
    return (told.lost, told.unreadable, told.crowded, told.short) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(1, 6))
def test_some_days_lose_nothing(seed: int) -> None:
    told = Month(FEW, seed).run()
    assert held(told)
    assert told.losses == 2
    assert told.reboots > 100
    assert told.moved >= told.moved_for_losses > 0
    assert told.trimmed > 0


def test_one_seed_is_one_story() -> None:
    assert Month(FEW, 1).run() == Month(FEW, 1).run()
    assert Month(FEW, 1).run() != Month(FEW, 2).run()


def test_a_month_in_which_nobody_notices_loses() -> None:
    blind = replace(FEW, detect_s=1e9, days=8.0, loss_every_s=DAY_S / 4)
    assert not held(Month(blind, 1).run())


def test_short_reboots_move_nothing() -> None:
    calm = replace(FEW, reboot_s=3.0, loss_every_s=1e9, dark_s=10.0)
    told = Month(calm, 1).run()
    assert (told.losses, told.moved) == (0, 0)


def test_the_report_has_a_row_for_everything() -> None:
    rows = list(table(replace(FEW, days=1.0), 1))
    assert rows[0] == "| 1 days, 42 nodes, 60 stripes, seed 1 | |"
    assert len(rows) == 8


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_month_loses_nothing(seed: int) -> None:
    told = Month(MonthParams(), seed).run()
    assert held(told)
    assert told.losses == 4
