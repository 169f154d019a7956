"""Passphrases and words: from a file, the environment, a prompt; what cannot be read is said without showing it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.secrets_in import (
    PASSPHRASE_VARIABLE,
    given_passphrase,
    given_words,
    new_passphrases,
    recovery_passphrases,
    wallet_passphrase,
)
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no terminal."""
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def written(tmp_path: Path, content: bytes, name: str = "secret") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_the_first_line_of_a_file_is_the_passphrase_and_goes_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "from the environment")
    assert given_passphrase(None) == "from the environment"
    assert given_passphrase(written(tmp_path, "grün und blau \r\nsecond".encode())) == "grün und blau "


@pytest.mark.parametrize("content", [b"", b"\n", b"\nsecond"])
def test_an_empty_file_holds_no_passphrase(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="holds no passphrase"):
        given_passphrase(written(tmp_path, content))


def test_what_is_not_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        given_passphrase(written(tmp_path, b"s3cret\xff\xfe"))
    assert "s3cret" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        given_passphrase(tmp_path / "nowhere")


def test_a_file_without_end_is_not_read_without_end(tmp_path: Path) -> None:
    assert len(given_passphrase(written(tmp_path, b"x" * 200_000)) or "") == 64 * 1024


def test_without_a_terminal_nothing_is_asked() -> None:
    for ask in (lambda: wallet_passphrase(None), lambda: given_words(None), lambda: recovery_passphrases(None, None)):
        with pytest.raises(UsageError, match="no terminal"):
            ask()
    with pytest.raises(UsageError, match="no passphrase was given"):
        new_passphrases(None, None, ask=False)


def test_one_passphrase_serves_for_both_unless_the_recovery_one_differs(tmp_path: Path) -> None:
    wallet = written(tmp_path, b"wallet passphrase\n", "wallet")
    recovery = written(tmp_path, b"recovery passphrase\n", "recovery")
    assert new_passphrases(wallet, None, ask=False) == ("wallet passphrase", "wallet passphrase")
    assert new_passphrases(wallet, recovery, ask=False) == ("recovery passphrase", "wallet passphrase")
    assert recovery_passphrases(wallet, recovery) == ("recovery passphrase", "wallet passphrase")


def test_words_are_read_from_their_file(tmp_path: Path) -> None:
    assert given_words(written(tmp_path, b"one two\nthree")) == "one two\nthree"
