"""What healing counts of itself."""

from __future__ import annotations

import pytest

from lockbox_node.core.repair import Cause
from lockbox_node.core.repair_figures import SHORT_S, Durations, RepairFigures


def test_durations_are_counted_up_to_each_bound_and_in_all() -> None:
    durations = Durations()
    for seconds in (0.0, 1.0, 1.5, 59.0, 10_000.0):
        durations.add(seconds)
    counted = dict(durations.cumulative())
    assert [counted[bound] for bound in ("1.0", "3.0", "30.0", "60.0", "3600.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert durations.sum_s == pytest.approx(10_061.5)
    assert len(durations.cumulative()) == len(SHORT_S) + 1


def test_margins_are_those_of_the_last_whole_sweep() -> None:
    figures = RepairFigures()
    assert RepairFigures().margin_worst is None
    figures.sweep_begins()
    for margin in (5, 2, 5):
        figures.saw(margin)
    assert figures.margins == {}
    figures.sweep_ends()
    assert (figures.margins, figures.margin_worst) == ({2: 1, 5: 2}, 2)
    figures.sweep_begins()
    figures.saw(0)
    assert figures.margin_worst == 2, "half a sweep says nothing of all"
    figures.sweep_ends()
    assert (figures.margins, figures.margin_worst) == ({0: 1}, 0)


def test_repairs_are_told_apart_by_cause() -> None:
    figures = RepairFigures()
    figures.repaired(Cause.LOSS, 0, 31.0, 0.5, 1000)
    figures.repaired(Cause.LOSS, 1, 5.0, 0.5, 500)
    figures.repaired(Cause.OUT_OF_PLACEMENT, 4, 2.0, 0.1, 10)
    assert figures.done == {Cause.LOSS: 2, Cause.OUT_OF_PLACEMENT: 1}
    assert figures.bytes_rebuilt == {Cause.LOSS: 1500, Cause.OUT_OF_PLACEMENT: 10}
    assert figures.short.sum_s == 38.0
    assert figures.urgent == 1
    figures.repaired(Cause.DAMAGE, 0, 1.0, 0.1, 10)
    assert figures.urgent == 1, "what is our own is mended at once anyhow"


def test_what_is_left_takes_as_long_as_what_was_done_or_as_the_rate_allows() -> None:
    figures = RepairFigures()
    assert figures.left_s(10, 4, 1e6) == 0.0
    figures.repaired(Cause.LOSS, 2, 60.0, 2.0, 1_000_000)
    assert figures.left_s(10, 4, 1e9) == pytest.approx(10 * 2 / 4)
    assert figures.left_s(10, 4, 1e6) == pytest.approx(10.0)
    assert figures.left_s(0, 4, 1e6) == 0.0
