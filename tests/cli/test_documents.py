"""`lockbox-node ca revoke | release | policy | publish` at a shell: what they print, and how they refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from lockbox_node.cli import documents
from lockbox_node.cli.authority import create_authority, create_client, issue
from lockbox_node.cli.output import program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

HASH = "ab" * 32


@program("lockbox-node")
def main() -> None:
    """The commands under test as one program."""


main.add_command(documents.ca)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca", "test")
    return tmp_path / "ca"


def run(ca: Path, verb: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["ca", verb, "--dir", str(ca), *words])


def asked(ca: Path, verb: str, *words: str) -> dict[str, Any]:
    result = run(ca, verb, *words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_whoever_was_issued_a_certificate_can_be_revoked_once_and_gets_no_other(ca: Path, tmp_path: Path) -> None:
    create_client(tmp_path / "me.key", tmp_path / "me.csr")
    peer = issue(ca, tmp_path / "me.csr", "client", tmp_path / "me.pem")
    first = asked(ca, "revoke", peer, "--reason", "key lost")
    assert (first["id"], first["reason"], first["new"]) == (peer, "key lost", True)
    again = asked(ca, "revoke", peer, "--reason", "other words")
    assert (again["reason"], again["new"], again["version"]) == ("key lost", False, first["version"])
    words = ["--csr", str(tmp_path / "me.csr"), "--role", "client", "-o", str(tmp_path / "new.pem")]
    refused = run(ca, "issue", *words)
    assert refused.exit_code == 4
    assert "REVOKED" in refused.stderr
    assert not (tmp_path / "new.pem").exists()


def test_a_release_is_listed_with_its_end(ca: Path) -> None:
    said = asked(ca, "release", "--version", "1.2", "--hash", HASH, "--not-after", "2030-01-01")
    assert (said["software"], said["not_after_unix_s"], said["releases"]) == (HASH, 1_893_456_000, 1)
    assert asked(ca, "release", "--version", "1.2", "--hash", HASH, "--not-after", "1893456000")["releases"] == 1
    assert asked(ca, "release", "--version", "1.2", "--hash", HASH)["not_after_unix_s"] is None


def test_a_policy_is_shown_as_it_stands(ca: Path) -> None:
    assert asked(ca, "policy", "hold-off=60")["policy"] == {"hold-off": "60"}
    assert "policy: guard=9 hold-off=60" in run(ca, "policy", "guard=9").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("revoke", HASH, "--reason", "x"), 3, "issued nothing"),
        (("revoke", "ab", "--reason", "x"), 2, "64 hex digits"),
        (("revoke", "zz" * 32, "--reason", "x"), 2, "64 hex digits"),
        (("revoke", HASH, "--reason", "", "--unknown"), 2, "--reason"),
        (("release", "--version", "1", "--hash", "ab"), 2, "--hash"),
        (("release", "--version", "1", "--hash", HASH, "--not-after", "soon"), 2, "--not-after"),
        (("policy", "colour=red"), 2, "colour=red"),
        (("policy",), 2, "Missing argument"),
        (("publish", "--to", "nowhere"), 2, "HOST:PORT"),
        (("publish", "--to", "127.0.0.1:9"), 7, "127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_one_line(ca: Path, words: tuple[str, ...], code: int, said: str) -> None:
    before = {path: path.read_bytes() for path in (ca / "documents").iterdir()}
    result = run(ca, *words)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert {path: path.read_bytes() for path in (ca / "documents").iterdir()} == before


def test_without_the_key_nothing_is_signed(ca: Path) -> None:
    (ca / "root-key.pem").unlink()
    assert run(ca, "policy", "guard=9").exit_code == 78


@pytest.mark.parametrize("verb", ["revoke", "release", "policy", "publish"])
def test_every_help_shows_an_example(ca: Path, verb: str) -> None:
    assert f"Example: lockbox-node ca {verb}" in run(ca, verb, "--help").stdout
