"""What a person reads on the terminal."""

from __future__ import annotations

import pytest

from simulations.__main__ import lines, main
from simulations.running import Plan, Report


def report(failure: str = "") -> Report:
    return Report(Plan("steady", 20, 7, 0.5), "ab" * 32, 1234, 1800.0, 20.0, failure, ["1.0 crash node2"])


def test_the_last_line_is_the_trace() -> None:
    assert lines(report()) == [
        "seed 7: steady, 20 nodes, 0.5 h",
        "1800.0 virtual seconds in 20.0 s (90.0 times), 1234 events",
        f"trace {'ab' * 32}",
    ]


def test_a_failure_is_told_behind_the_events_that_led_to_it() -> None:
    told = lines(report("AssertionError: lost"))
    assert told[1:3] == ["1.0 crash node2", "AssertionError: lost"]
    assert told[-1].startswith("trace ")


def test_a_scenario_that_does_not_exist_is_an_error_that_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no such scenario"])
    assert "partition" in capsys.readouterr().err
