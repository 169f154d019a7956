"""`lockbox` at a shell: help, usage, error lines, exit codes, what is offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.cli.answers import file_name, lease_seconds
from lockbox_node.cli.authority import create_authority, create_client, issue
from lockbox_node.cli.people import main
from lockbox_node.client.wallet import AssetEntry, Wallet
from lockbox_node.errors import UsageError
from protocol.ids import Address

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "correct horse battery staple"
COMMANDS = (
    "csr", "delete", "init", "list", "lock", "passphrase", "recover", "renew", "show", "unlock", "verify",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bare home with a network and a client certificate."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCKBOX_PASSPHRASE", PASSPHRASE)
    create_authority(tmp_path / "ca", "test")
    create_client(tmp_path / "me.key", tmp_path / "me.csr")
    issue(tmp_path / "ca", tmp_path / "me.csr", "client", tmp_path / "me.pem")
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        main(list(words), "lockbox")
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def network(home: Path) -> list[str]:
    return ["--network", str(home / "ca/network.pem"), "--bootstrap", "127.0.0.1:1", "127.0.0.1:2"]


def client(home: Path) -> list[str]:
    return ["--cert", str(home / "me.pem"), "--key", str(home / "me.key")]


@pytest.fixture
def made(home: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """A wallet in the home; its words."""
    code, out, err = run(capfd, "init", *network(home), *client(home), "--json")
    assert (code, err) == (0, "")
    words: list[str] = json.loads(out)["words"]
    return words


def an_asset(index: int, label: str = "") -> AssetEntry:
    address = Address(bytes([index]) * 32)
    return AssetEntry(index, address, 1, 1, 1234, label, 1_700_000_000, 1_731_536_000, bytes(32))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, command, "--help")
    assert code == 0
    assert f"Example: lockbox {command}" in out


def test_help_and_version_import_nothing_heavy() -> None:
    script = (
        "import sys; from lockbox_node.cli.people import main\n"
        "try: main(['--version'], 'lockbox')\n"
        "except SystemExit: pass\n"
        "print(sorted({'trio', 'cryptography', 'rich', 'nacl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout.splitlines()[-1] == "[]"


def test_init_makes_a_wallet_of_24_words_with_every_bootstrap_address(home: Path, made: list[str]) -> None:
    assert len(made) == 24
    with Wallet.open(home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        assert wallet.bootstrap == ("127.0.0.1:1", "127.0.0.1:2")
        assert wallet.credential is not None


def test_init_shows_the_words_numbered_when_no_script_asks(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "init", *network(home), *client(home))
    assert code == 0
    assert " 1 " in out
    assert "24 " in out
    assert "Write these words down now" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lock"], 2, "lockbox: USAGE: Missing argument"),
        (["lock", "x"], 2, "lockbox: USAGE: Missing option '--tier'"),
        (["lock", "x", "--tier", "gold"], 2, "lockbox: USAGE: "),
        (["lock", "nothing-there", "--tier", "basic"], 3, "lockbox: NOT_FOUND: "),
        (["lock", ".", "--tier", "basic"], 2, "lockbox: USAGE: . is a directory; pack it: tar"),
        (["unlock", "nobody"], 3, "lockbox: NOT_FOUND: "),
        (["show", "nobody"], 3, "lockbox: NOT_FOUND: "),
        (["frobnicate"], 2, "lockbox: USAGE: No such command"),
    ],
)
def test_errors_are_one_line_with_a_code_and_the_exit_code_of_the_contract(
    made: list[str], capfd: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    got, out, err = run(capfd, *words)
    assert (got, out) == (code, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_an_unreachable_network_is_exit_7_and_with_json_an_object(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "secret").write_bytes(b"x")
    code, out, err = run(capfd, "lock", str(home / "secret"), "--tier", "basic", "--json")
    error = json.loads(out)["error"]
    assert (code, err) == (7, "")
    assert error["code"] == "NETWORK_PARTITIONED"
    assert set(error) == {"code", "message", "hint", "retryable", "retry_after_s"}


def test_list_and_show_need_no_network(home: Path, made: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with Wallet.open(home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        wallet.remember(an_asset(3, "keys"), an_asset(4))
    code, out, _ = run(capfd, "list", "--json")
    assert code == 0
    assert [asset["label"] for asset in json.loads(out)["assets"]] == ["keys", ""]
    code, out, _ = run(capfd, "show", "keys", "--json")
    assert code == 0
    assert json.loads(out)["tier"] == "standard"


def test_a_wrong_passphrase_is_refused_with_exit_4(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKBOX_PASSPHRASE", "another passphrase")
    code, _, err = run(capfd, "list")
    assert code == 4
    assert "another passphrase" not in err


def test_a_changed_passphrase_opens_the_wallet(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "new").write_text("quite another one\n")
    assert run(capfd, "passphrase", "--new-passphrase-file", str(home / "new"))[0] == 0
    monkeypatch.setenv("LOCKBOX_PASSPHRASE", "quite another one")
    assert run(capfd, "list")[0] == 0


def test_unlock_refuses_to_overwrite_before_it_asks_the_network(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with Wallet.open(home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        wallet.remember(an_asset(3, "keys"))
    (home / "there").write_bytes(b"precious")
    code, _, err = run(capfd, "unlock", "keys", "-o", str(home / "there"))
    assert code == 2
    assert "exists already" in err
    assert (home / "there").read_bytes() == b"precious"


def test_recover_says_which_word_is_wrong_by_number_and_never_prints_one(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "words").write_text(" ".join([*made[:-1], "xylophonist"]))
    wallet = str(home / "bare")
    code, out, err = run(capfd, "recover", "--wallet", wallet, "--words-file", str(home / "words"), *network(home))
    assert code == 2
    assert "number 24" in err
    assert "xylophonist" not in out + err
    assert not (home / "bare").exists()


@pytest.mark.parametrize(("text", "seconds"), [("1d", 86_400), ("2w", 1_209_600), ("1y", 31_536_000), (None, None)])
def test_leases_are_read_in_days_weeks_and_years(text: str | None, seconds: int | None) -> None:
    assert lease_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "30", "30m", "-1d", "1.5d", "\u0663d", "99999999d"])
def test_what_is_no_lease_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        lease_seconds(text)


@pytest.mark.parametrize("label", ["../../etc/passwd", "/etc/passwd", "a/passwd", "passwd"])
def test_a_label_never_leads_out_of_the_directory(label: str) -> None:
    assert file_name(an_asset(1, label)) == "passwd"
    assert file_name(an_asset(1, "..")).endswith(".bin")


def test_recover_that_met_no_network_can_be_run_again_and_never_over_another_wallet(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "words").write_text(" ".join(made))
    words = ["recover", "--wallet", str(home / "bare"), "--words-file", str(home / "words"), *network(home)]
    for _ in range(2):
        code, _, err = run(capfd, *words)
        assert (code, err.count("\n")) == (7, 1)
    (home / "other").write_text("zoo " * 23 + "vote")
    words[4] = str(home / "other")
    code, _, err = run(capfd, *words)
    assert code == 2
    assert "never overwritten" in err


@pytest.mark.parametrize("name", ["two\nlines", "bad\udcff", "\u00e4" * 100])
def test_a_file_of_any_name_can_be_locked(
    home: Path, made: list[str], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (home / name).write_bytes(b"x")
    code, _, err = run(capfd, "lock", str(home / name), "--tier", "basic")
    assert code == 7, err  # as far as the network that is not there
    assert err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_traceback(home: Path, made: list[str]) -> None:
    shell = f"{sys.executable} -m lockbox_node.cli.people list --json | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=os.getcwd(), check=True)
    assert "Traceback" not in done.stderr
