"""Where passphrases and words come from: a file, the environment, a prompt; never the command line.

One given passphrase serves for wallet and recovery unless the recovery passphrase is given apart: CONTRACT, Programs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE_VARIABLE = "LOCKBOX_PASSPHRASE"  # noqa: S105 - the name, not the passphrase
FILE_BYTES_MAX = 64 * 1024


def given_passphrase(file: Path | None) -> str | None:
    """The passphrase of `--passphrase-file` or of LOCKBOX_PASSPHRASE; None when neither is there."""
    if file is not None:
        return _line_of(file, "passphrase")
    return os.environ.get(PASSPHRASE_VARIABLE)


def wallet_passphrase(file: Path | None) -> str:
    """The passphrase that opens the wallet, asked for on a terminal when none is given."""
    given = given_passphrase(file)
    return given if given is not None else _prompt("Passphrase of the wallet")


def new_passphrases(file: Path | None, recovery_file: Path | None, *, ask: bool) -> tuple[str, str]:
    """(recovery passphrase, wallet passphrase) of a wallet to be made."""
    given = given_passphrase(file)
    recovery = _line_of(recovery_file, "recovery passphrase") if recovery_file is not None else given
    if recovery is None:
        _check_asking(ask)
        recovery = _prompt("Recovery passphrase (at least 12 characters; needed with the words)", confirm=True)
    return recovery, given if given is not None else recovery


def recovery_passphrases(file: Path | None, recovery_file: Path | None) -> tuple[str, str]:
    """The same for a wallet to be recovered: nothing new is chosen, so nothing is asked twice."""
    given = given_passphrase(file)
    recovery = _line_of(recovery_file, "recovery passphrase") if recovery_file is not None else given
    if recovery is None:
        recovery = _prompt("Recovery passphrase")
    return recovery, given if given is not None else recovery


def given_words(file: Path | None) -> str:
    """The 24 words of `--words-file`, or asked for without showing them."""
    return _read(file, "words") if file is not None else _prompt("The 24 words, separated by spaces")


def _check_asking(ask: bool) -> None:
    if not ask:
        raise UsageError("no passphrase was given", f"set {PASSPHRASE_VARIABLE} or give --passphrase-file")


def _prompt(words: str, *, confirm: bool = False) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{words.split(' (')[0].lower()} is wanted and there is no terminal to ask on",
            f"set {PASSPHRASE_VARIABLE}, or give --passphrase-file or --words-file",
        )
    answer: str = click.prompt(words, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _line_of(file: Path, what: str) -> str:
    lines = _read(file, what).splitlines()
    if not lines or not lines[0]:
        raise UsageError(f"{file} holds no {what}", "write it into the first line")
    return lines[0]


def _read(file: Path, what: str) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(FILE_BYTES_MAX).decode()
    except OSError as error:
        raise UsageError(f"cannot read the {what} from {file}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError:  # it holds the secret
        raise UsageError(f"the {what} in {file} is not UTF-8 text", "save it as UTF-8") from None
