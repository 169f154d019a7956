"""`lockbox-node ca revoke | release | region | policy | publish` at a shell: what they print, and how they refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from lockbox_node.cli import documents
from lockbox_node.cli.authority import create_authority, create_client, issue, open_authority
from lockbox_node.cli.output import program
from lockbox_node.cli.signing import Signing
from lockbox_node.core.regions import Region, RegionTable
from protocol.documents import REGIONS_MAX

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


def regions(ca: Path, verb: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["ca", "region", verb, "--dir", str(ca), *words])


def test_a_region_is_added_moved_and_removed(ca: Path) -> None:
    added = json.loads(regions(ca, "add", "lisbon", "38.7200004", "-9.14", "--json").stdout)
    assert added["regions"]["lisbon"] == {"latitude": 38.72, "longitude": -9.14, "near": []}
    assert (added["new"], len(added["regions"])) == (True, 23)
    again = json.loads(regions(ca, "add", "lisbon", "38.72", "-9.14", "--json").stdout)
    assert (again["new"], again["version"]) == (False, added["version"])
    moved = json.loads(regions(ca, "add", "lisbon", "-33.9", "18.4", "--json").stdout)
    assert moved["regions"]["lisbon"]["near"] == ["af-south-1"]
    assert moved["version"] > added["version"]
    assert "ca publish" in regions(ca, "remove", "lisbon").stdout
    shown = regions(ca, "list").stdout
    assert "lisbon" not in shown
    assert "ca publish" not in shown
    assert "us-east-2              39.960000  -83.000000  ca-central-1, us-east-1" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "lisbon", "90.1", "0"), "latitude 90.1 is not on Earth"),
        (("add", "lisbon", "nan", "0"), "latitude nan is not on Earth"),
        (("add", "lisbon", "0", "-inf"), "longitude -inf is not on Earth"),
        (("add", "Lisbon", "0", "0"), "'Lisbon' cannot name a region"),
        (("add", "lisbon", "north", "0"), "north"),
        (("add", "lisbon", "0"), "LONGITUDE"),
        (("remove", "lisbon"), "no region 'lisbon'"),
    ],
)
def test_a_region_that_cannot_be_is_refused_in_one_line_and_nothing_is_signed(
    ca: Path, words: tuple[str, ...], said: str
) -> None:
    before = asked_regions(ca)
    refused = regions(ca, *words)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert said in refused.stderr
    assert asked_regions(ca) == before


def asked_regions(ca: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(regions(ca, "list", "--json").stdout)
    return answer


def test_a_table_that_is_full_and_the_last_region_of_one_are_refused(ca: Path) -> None:
    root, key = open_authority(ca)
    Signing(ca, root, key).set_regions(RegionTable.of(Region(f"r{n}", "", 0.0, n / 3) for n in range(REGIONS_MAX)))
    assert "a table of 513 regions" in regions(ca, "add", "one-more", "1", "1").stderr
    Signing(ca, root, key).set_regions(RegionTable.of([Region("alone", "", 0.0, 0.0)]))
    assert "a table of 0 regions" in regions(ca, "remove", "alone").stderr


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
