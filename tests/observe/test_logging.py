"""The log: one line an event, on any kind of stream, and nothing in it that names an asset or a client."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from lockbox_node.observe import logging
from lockbox_node.observe.logging import REFUSED_WORDS, short_id

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_ID = bytes.fromhex("0123456789abcdef" * 4)


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture
def restored() -> Iterator[None]:
    """The configuration of the test run, again, after a test that changes it."""
    yield
    logging.configure(strict=True)


@pytest.fixture
def lines(restored: None) -> io.StringIO:
    """What the daemon's log wrote: lenient, as in production."""
    stream = io.StringIO()
    logging.configure("info", stream)
    return stream


def logged(stream: io.StringIO) -> dict[str, Any]:
    """The only line, parsed."""
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_an_event_is_one_json_line(lines: io.StringIO) -> None:
    structlog.get_logger().info("member_dead", node=short_id(NODE_ID), members=23, seconds=1.5, ok=None)
    line = logged(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "member_dead", "level": "info", "node": "01234567", "members": 23, "seconds": 1.5, "ok": None,
    }  # fmt: skip


def test_a_terminal_gets_words(restored: None) -> None:
    stream = Terminal()
    logging.configure(stream=stream)
    structlog.get_logger().info("member_dead", members=23)
    assert "member_dead" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_log_goes_to_stderr(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure()
    structlog.get_logger().info("started")
    out, err = capsys.readouterr()
    assert (out, json.loads(err)["event"]) == ("", "started")


def test_lines_below_the_level_are_left_out(restored: None) -> None:
    stream = io.StringIO()
    logging.configure("warning", stream)
    log = structlog.get_logger()
    log.info("quiet")
    log.warning("loud")
    assert logged(stream)["event"] == "loud"


@pytest.mark.parametrize("word", sorted(REFUSED_WORDS))
@pytest.mark.parametrize("form", ["{}", "{}_id", "the_{}", "{}_ip"])
def test_a_field_that_would_name_one_is_left_out(lines: io.StringIO, word: str, form: str) -> None:
    name = form.format(word)
    structlog.get_logger().info("put", **{name: "no one's business"}, stripes=2)
    line = logged(lines)
    assert (line["refused"], line["stripes"]) == ([name], 2)
    assert "business" not in lines.getvalue()


def test_counts_of_many_are_no_names(lines: io.StringIO) -> None:
    structlog.get_logger().info("put", shards=3, assets=1, clients=2)
    assert "refused" not in logged(lines)


def test_raw_bytes_are_left_out(lines: io.StringIO) -> None:
    structlog.get_logger().info("put", node=NODE_ID, buffer=bytearray(b"abc"))
    assert logged(lines)["refused"] == ["buffer", "node"]


def test_long_ids_inside_text_are_cut_out(lines: io.StringIO) -> None:
    text = f"peer {NODE_ID.hex()} said no"
    structlog.get_logger().info("refused", reason=text, many=[text], nested={"reason": text, "asset": "x"})
    line = logged(lines)
    assert line["reason"] == "peer [id] said no"
    assert line["many"] == ["peer [id] said no"]
    assert line["nested"] == {"reason": "peer [id] said no"}


def test_a_traceback_is_one_line_without_ids(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"bad {NODE_ID.hex()}")
    except ValueError:
        structlog.get_logger().exception("failed")
    line = logged(lines)
    assert "Traceback" in line["exception"]
    assert "ValueError: bad [id]" in line["exception"]


def test_in_tests_a_refused_field_fails(restored: None) -> None:
    logging.configure(stream=io.StringIO(), strict=True)
    with pytest.raises(AssertionError, match="client"):
        structlog.get_logger().info("put", client="x")


def test_every_test_runs_with_the_strict_log() -> None:
    with pytest.raises(AssertionError, match="asset"):
        structlog.get_logger().info("put", asset="x")


def test_the_daemon_does_not_load_rich_for_its_log() -> None:
    code = "import sys, lockbox_node.observe.logging; sys.exit(any(m.split('.')[0] == 'rich' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rich_can_be_loaded_afterwards() -> None:
    code = "import lockbox_node.observe.logging, rich.console"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
