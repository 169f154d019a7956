"""`lockbox-node report` at a shell: tables, JSON, a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.report import lines_of
from tests.cli.test_node import run
from tests.observe.test_report_page import report
from tests.test_daemon import make_node, running

if TYPE_CHECKING:
    from pathlib import Path


def test_the_tables_put_the_worst_first_and_say_how_much_is_known() -> None:
    lines = list(lines_of(report()))
    text = "\n".join(lines)
    assert "1,234 known to this node: 1,200 standard, 34 elite" in text
    assert "the least margin is 4; 0 lost; 7 short of a shard, 2 out of placement" in text
    first = next(number for number, line in enumerate(lines) if line.startswith("IF THIS REGION VANISHED"))
    assert lines[first + 1].split() == ["eu-west-1", "Dublin", "-1", "2", "5", "0", "0", "90", "4", "12", "3", "0"]
    assert lines[first + 3].split()[2] == "-"
    assert "and 17 more" in lines
    assert lines[-1].split() == ["00ff00ff00ff00ff", "basic", "2", "0", "region", "eu-west-1"]


def test_columns_stand_under_their_heads() -> None:
    lines = list(lines_of(report()))
    first = next(number for number, line in enumerate(lines) if line.startswith("IF THIS REGION VANISHED"))
    ends = [at + len(head) for head in ("WORST", "LOST", "STRIPES", "DEAD") if (at := lines[first].index(head))]
    for line in lines[first + 1 : first + 5]:
        assert len(line) == len(lines[first])
        assert all(line[end - 1] != " " for end in ends)


def test_a_doubted_view_is_said_on_a_terminal_too() -> None:
    assert any("doubted" in line for line in lines_of(report(view_trusted=False)))


def test_json_and_a_page_exclude_one_another(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "report", "--html", "x.html", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["error"]["code"] == "USAGE"


@pytest.mark.real
def test_a_running_daemon_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_node(tmp_path, "n01")
    config = ("--config", str(data / "node.toml"))
    target = tmp_path / "report.html"
    with running(data) as daemon:
        daemon.told()
        code, out, _ = run(capfd, "report", *config)
        assert (code, "0 known to this node" in out) == (0, True)
        assert json.loads(run(capfd, "report", "--json", *config)[1])["stripes"] == 0
        assert run(capfd, "report", "--html", str(target), *config)[:2] == (0, "")
        assert target.read_text().startswith("<!doctype html>")
        assert run(capfd, "report", *config, "--html")[1].startswith("<!doctype html>")
        code, out, err = run(capfd, "report", *config, "--html", str(tmp_path / "none" / "report.html"))
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert list(tmp_path.glob(".report*")) == [], "no half page is left"
        daemon.end()
