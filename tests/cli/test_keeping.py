"""`lockbox renew` and `delete` at a shell, without a network: usage, what is asked, what stays."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.cli.authority import create_authority
from lockbox_node.cli.people import main
from lockbox_node.client.burials import Burial
from lockbox_node.client.wallet import AssetEntry, Wallet
from lockbox_node.client.words import new_words
from protocol.ids import Address

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "correct horse battery staple"
ASSET = AssetEntry(3, Address(bytes([3]) * 32), 1, 1, 1234, "keys", 1_700_000_000, 1_731_536_000, bytes(32))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a wallet of one asset, of a network that is not there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCKBOX_PASSPHRASE", PASSPHRASE)
    create_authority(tmp_path / "ca", "test")
    pem, entropy = (tmp_path / "ca/network.pem").read_bytes(), OsEntropy()
    words = new_words(entropy)
    with Wallet.create(
        tmp_path / ".lockbox", words, PASSPHRASE, PASSPHRASE, pem, ["127.0.0.1:1"], None, None, entropy
    ) as wallet:
        wallet.remember(ASSET)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        main(list(words), "lockbox")
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["renew"], 2, "lockbox: USAGE: one asset is renewed, or all; give ASSET or --all"),
        (["renew", "keys", "--all"], 2, "lockbox: USAGE: one asset is renewed, or all"),
        (["renew", "keys", "--lease", "soon"], 2, "lockbox: USAGE: 'soon' is not a lease"),
        (["renew", "nobody"], 3, "lockbox: NOT_FOUND: "),
        (["renew", "keys"], 7, "lockbox: NETWORK_PARTITIONED: "),
        (["renew", "--all"], 7, "lockbox: NETWORK_PARTITIONED: "),
        (["delete"], 2, "lockbox: USAGE: Missing argument"),
        (["delete", "nobody"], 3, "lockbox: NOT_FOUND: "),
        (["delete", "keys", "--yes"], 7, "lockbox: NETWORK_PARTITIONED: "),
    ],
)
def test_errors_are_one_line_with_the_exit_code_of_the_contract(
    home: Path, capfd: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    got, out, err = run(capfd, *words)
    assert (got, out) == (code, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def on_a_terminal(home: Path, typed: bytes, *words: str) -> tuple[int, bytes]:
    """(exit code, stderr) of a command whose standard input is a terminal where `typed` is typed."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed)
        command = [sys.executable, "-m", "lockbox_node.cli.people", *words]
        done = subprocess.run(command, stdin=theirs, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stderr
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_person_is_asked_and_no_ends_it_before_the_network_is(home: Path) -> None:
    code, err = on_a_terminal(home, b"n\n", "delete", "keys")
    assert code == 1
    assert b"(keys)? Nobody can bring it back." in err
    assert b"nothing was deleted" in err
    assert b"NETWORK" not in err


def test_a_person_is_asked_about_siblings_too(home: Path) -> None:
    code, err = on_a_terminal(home, b"n\n", "delete", "keys", "--with-siblings")
    assert code == 1
    assert b"(keys) and what else stands under its index? Nobody" in err


@pytest.mark.parametrize(("typed", "words"), [(b"y\n", ()), (b"", ("--yes",)), (b"", ("--json",))])
def test_yes_goes_on_and_a_script_is_not_asked(home: Path, typed: bytes, words: tuple[str, ...]) -> None:
    code, err = on_a_terminal(home, typed, "delete", "keys", *words)
    assert code == 7
    assert (b"Nobody can bring it back" in err) is bool(typed)


def test_list_shows_until_when_and_what_is_being_deleted(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Wallet.open(home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        wallet.bury(Burial(ASSET.address, bytes(32), 1, 1, 1, []))
    (one,) = json.loads(run(capfd, "list", "--json")[1])["assets"]
    assert (one["lease_until"], one["deleting"]) == ("2024-11-13", True)
    assert "(being deleted)" in run(capfd, "list")[1]
