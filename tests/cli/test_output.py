"""What every command shares: results, error lines, exit codes."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

from lockbox_node.cli.output import Program, answerable, code_of, emit, json_option, program, reporting
from lockbox_node.errors import (
    ConfigError,
    ExitCode,
    KeyStoreError,
    LockboxError,
    PeerUnreachable,
    RequestRefused,
    UsageError,
)
from protocol.errors import ErrorCode, RemoteProtocolError


def made(error: BaseException | None = None, result: object = None) -> Program:
    """A program with one command `go` that raises or returns this."""

    @program("lockbox")
    def main() -> None:
        """A program."""

    @main.command()
    @json_option
    @reporting
    def go(as_json: bool) -> object:
        """Go."""
        if error is not None:
            raise error
        emit(as_json, {"done": True}, "done")
        return result

    return main


@pytest.mark.parametrize(("flag", "output"), [([], "done\n"), (["--json"], '{"done": true}\n')])
def test_a_result_is_words_or_one_object(flag: list[str], output: str) -> None:
    result = CliRunner().invoke(made(), ["go", *flag])
    assert (result.exit_code, result.stdout, result.stderr) == (0, output, "")


def test_a_command_may_end_with_another_code() -> None:
    assert CliRunner().invoke(made(result=ExitCode.DEGRADED), ["go"]).exit_code == 8


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (UsageError("x"), "USAGE", 2),
        (ConfigError("x"), "CONFIG", 78),
        (KeyStoreError("x"), "KEYSTORE", 4),
        (PeerUnreachable("x"), "NETWORK_PARTITIONED", 7),
        (PeerUnreachable("x", code=ErrorCode.NOT_A_MEMBER), "NOT_A_MEMBER", 4),
        (RequestRefused("x", code=ErrorCode.RATE_LIMITED), "RATE_LIMITED", 4),
        (LockboxError("x"), "FAILED", 1),
    ],
)
def test_an_error_is_one_line_with_its_code(error: LockboxError, code: str, exit_code: int) -> None:
    result = CliRunner().invoke(made(error), ["go"])
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", f"lockbox: {code}: x\n")
    assert code_of(error) == code


def test_an_error_with_json_is_one_object_on_stdout() -> None:
    error = RequestRefused("too many", "wait", ErrorCode.RATE_LIMITED)
    error.retry_after_s = 1.5
    result = CliRunner().invoke(made(error), ["go", "--json"])
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "error": {
            "code": "RATE_LIMITED",
            "message": "too many",
            "hint": "wait",
            "retryable": True,
            "retry_after_s": 1.5,
        }
    }


def test_lines_in_a_message_are_joined() -> None:
    result = CliRunner().invoke(made(ConfigError("one\ntwo", "do\nthis")), ["go"])
    assert result.stderr == "lockbox: CONFIG: one two; do this\n"


def test_the_error_inside_groups_is_the_one_reported() -> None:
    inner = PeerUnreachable("nobody", "wait")
    group = BaseExceptionGroup("a", [ExceptionGroup("b", [ValueError("detail"), inner])])
    assert answerable(group) is inner


def test_a_protocol_error_keeps_its_words_and_code() -> None:
    error = answerable(RemoteProtocolError("a wrong chain", ErrorCode.NOT_A_MEMBER))
    assert (error.message, error.code) == ("a wrong chain", ErrorCode.NOT_A_MEMBER)


def test_an_unknown_error_never_shows_its_text() -> None:
    result = CliRunner().invoke(made(ValueError("abandon abandon about")), ["go"])
    assert result.exit_code == 1
    assert result.stderr.startswith("lockbox: INTERNAL: ValueError at ")
    assert "abandon" not in result.output


@pytest.mark.parametrize("words", [["nothing"], ["go", "--nothing"], ["go", "more"]])
def test_wrong_usage_is_one_line_and_two(words: list[str]) -> None:
    result = CliRunner().invoke(made(), words)
    assert result.exit_code == 2
    assert result.stderr.startswith("lockbox: USAGE: ")
    assert result.stderr.count("\n") == 1
    assert "see: lockbox" in result.stderr
    assert ("lockbox go --help" in result.stderr) is (words[0] == "go")


def test_no_command_at_all_shows_the_help() -> None:
    result = CliRunner().invoke(made(), [])
    assert result.exit_code == 2
    assert "Usage: lockbox" in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_reported_without_a_traceback(error: BaseException) -> None:
    result = CliRunner().invoke(made(error), ["go"])
    assert (result.exit_code, result.stderr.strip()) == (1, "lockbox: FAILED: interrupted; run it again")


def test_an_instance_is_the_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lockbox", "go"])
    with pytest.raises(SystemExit) as caught:
        made()()
    assert caught.value.code == 0
    assert capsys.readouterr().out == "done\n"
