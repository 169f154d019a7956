"""What a sweep shows while it runs, in its table and on its page."""

from __future__ import annotations

import io

from simulations.running import Plan
from simulations.sweep import Outcome
from simulations.sweep_report import page, progress, table

COMMAND = ".venv/bin/python -m simulations churn --nodes 20 --seed 3 --hours 0.2"
FAILED = Outcome(
    Plan("churn", 20, 3, 0.2), "Traceback\nAssertionError: [bold]lost", "cd" * 32, 720.0, 24.0, ("1.0 goes", "2.0 ends")
)
OUTCOMES = [
    *(Outcome(Plan("churn", 20, seed, 0.2), "", "ab" * 32, 720.0, 24.0) for seed in (1, 2, 7)),
    FAILED,
    Outcome(Plan("steady", 20, 1, 0.2), "", "ab" * 32, 720.0, 12.0),
]


class Terminal(io.StringIO):
    """A file that says it is one."""

    def isatty(self) -> bool:
        return True


def test_the_table_has_a_line_for_each_scenario_and_the_command_of_each_failure() -> None:
    assert table(OUTCOMES)[2:] == [
        "| churn | 1-3, 7 | 1 of 4 | 0.80 | 30 |",
        "| steady | 1 | 0 of 1 | 0.20 | 60 |",
        "",
        f"- `{COMMAND}`: AssertionError: [bold]lost",
    ]


def test_the_table_of_a_clean_sweep_ends_with_its_last_scenario() -> None:
    assert table(OUTCOMES[-1:])[-1].startswith("| steady")


def test_the_page_shows_the_events_before_a_failure() -> None:
    told = page(OUTCOMES, "python -m simulations all --sweep 7", 60.0)
    assert "`python -m simulations all --sweep 7`: 5 runs in 60 s, 1 failed." in told
    assert (
        f"## churn, seed 3\n\n`{COMMAND}`, trace `{'cd' * 32}`\n\n    1.0 goes\n    2.0 ends\n    Traceback\n" in told
    )


def test_plain_lines_where_no_terminal_is() -> None:
    out = io.StringIO()
    with progress(2, out) as told:
        told(FAILED)
        told(OUTCOMES[0])
    assert out.getvalue().splitlines() == [
        "1 of 2: churn, 20 nodes, seed 3, 24 s: FAILED: AssertionError: [bold]lost",
        "2 of 2: churn, 20 nodes, seed 1, 24 s: held",
    ]


def test_a_bar_on_a_terminal_which_leaves_only_the_failures() -> None:
    out = Terminal()
    with progress(2, out) as told:
        told(FAILED)
        told(OUTCOMES[0])
    assert "AssertionError: [bold]lost" in out.getvalue()
    assert "held" not in out.getvalue()
