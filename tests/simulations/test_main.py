"""What a person reads on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from simulations.__main__ import as_json, lines, main
from simulations.running import Plan, Report

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["earthquake"], 2, "USAGE: no scenario is named 'earthquake'; there are audited,"),
        ([], 2, "USAGE: the following arguments are required: SCENARIO"),
        (["steady", "--nodes", "9"], 5, "INSUFFICIENT_NODES: --nodes 9 cannot hold"),
        (["steady", "--nodes", "1001"], 2, "USAGE: --nodes 1001 are too many"),
        (["steady", "--hours", "-1"], 2, "USAGE: --hours -1 is not a time"),
        (["steady", "--hours", "nan"], 2, "USAGE: --hours nan is not a time"),
        (["steady", "--hours", "soon"], 2, "USAGE: argument --hours: invalid float value: 'soon'"),
        (["steady", "--seed", "-1"], 2, "USAGE: --seed -1 is negative"),
        (["steady", "--sweep", "0"], 2, "USAGE: --sweep 0 runs nothing"),
        (["steady", "--sweep", "1", "--json"], 2, "USAGE: --json is for one run"),
        (["steady", "--report", "x.md"], 2, "USAGE: --report needs --sweep"),
        (["all"], 2, "USAGE: all needs --sweep"),
        (["steady", "--sweep", "1", "--report", "/proc/none/x.md"], 1, "FAILED: cannot write /proc/none/x.md"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(f"simulations: {said}")
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_help_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m simulations churn --nodes 20 --seed 7 --hours 0.5" in capsys.readouterr().out


def test_json_holds_what_a_sweep_reads() -> None:
    said = json.loads(as_json(report("AssertionError: lost")))
    assert (said["scenario"], said["seed"], said["trace"], said["failure"]) == (
        "steady", 7, "ab" * 32, "AssertionError: lost"
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.real
def test_a_sweep_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "reports" / "sweep.md"
    assert main(["steady", "--nodes", "10", "--hours", "0.001", "--sweep", "2", "--report", str(page)]) == 0
    captured = capsys.readouterr()
    assert "| steady | 1-2 | 0 of 2 |" in captured.out
    assert "2 of 2: steady, 10 nodes, seed" in captured.err
    assert "| steady | 1-2 | 0 of 2 |" in page.read_text()
