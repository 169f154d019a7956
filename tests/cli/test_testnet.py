"""`lockbox-testnet` at a shell: help, usage, nobody there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.testnet import main

if TYPE_CHECKING:
    from pathlib import Path

VERBS = (
    "up",
    "kill",
    "restart",
    "stop",
    "cont",
    "kill-region",
    "add",
    "corrupt",
    "policy",
    "partition",
    "heal",
    "status",
)


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        main(list(words), "lockbox-testnet")
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, verb, "--help")
    assert code == 0
    assert f"Example: lockbox-testnet {verb}" in " ".join(out.split())


@pytest.mark.parametrize(
    "words",
    [
        ("up", "--nodes", "0"),
        ("up", "--nodes", "x"),
        ("up", "--nodes", "251"),
        ("up",),
        ("up", "--nodes", "3", "--regions", "atlantis"),
        ("up", "--nodes", "3", "--policy", "healing=perhaps"),
        ("up", "--nodes", "3", "--latency", "moon"),
        ("up", "--nodes", "3", "--latency", "world", "--client-region", "atlantis"),
        ("up", "--nodes", "3", "--latency", "world", "--liar", "n01"),
        ("up", "--nodes", "3", "--client-region", "eu-west-1"),
        ("up", "--nodes", "3", "--liar", "n01=eu-west-1"),
        ("kill",),
        ("add", "0"),
        ("corrupt", "n01", "--share", "2"),
        ("explode",),
        ("partition",),
        ("partition", "n01"),
        ("partition", "n01", "n02", "n03"),
        ("partition", "n01", "n02", "--client", "C"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_2(
    words: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capfd, *words, "--dir", str(tmp_path / "net"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "words",
    [("status",), ("kill", "n01"), ("add", "1"), ("policy", "healing=on"), ("partition", "n01", "n02"), ("heal",)],
    ids=" ".join,
)
def test_without_a_network_every_verb_says_so(
    words: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capfd, *words, "--dir", str(tmp_path))
    assert (code, out) == (7, "")
    assert "no daemon answers" in err


@pytest.mark.real
@pytest.mark.parametrize(
    "directory", ["/dev/null/net", "/proc/self/net", "/proc", "x" * 256], ids=lambda name: name[:15]
)
def test_a_directory_that_cannot_be_written_is_one_line(
    directory: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capfd, "up", "--nodes", "1", "--dir", str(tmp_path / directory))
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot be used" in err
