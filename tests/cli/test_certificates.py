"""`lockbox-node verify-certificate` at a shell: what it proves, what it says, its exit codes; without any network."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from lockbox_node.adapters.identity import NetworkFile
from lockbox_node.cli.node import main
from lockbox_node.core.audit import Verdict
from lockbox_node.core.tiers import STANDARD
from protocol.possession_file import file_digest
from simulations.identities import FakeNetwork
from tests.fakes.granting import network, verifier
from tests.fakes.possession import Paper, statement_by
from tests.fakes.stripes import bytes_of, node_of

if TYPE_CHECKING:
    from pathlib import Path

LATER = bytes_of("later")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with network.pem alone, on a machine without a network."""
    write_network(tmp_path / "network.pem", network())
    monkeypatch.chdir(tmp_path)

    def no_socket(*_args: object, **_more: object) -> None:
        raise AssertionError("a certificate is checked without a network")

    monkeypatch.setattr(socket, "socket", no_socket)
    return tmp_path


def write_network(path: Path, authority: FakeNetwork) -> None:
    guest = authority.guest()
    path.write_bytes(NetworkFile(authority.root, guest.chain[0], guest.key).to_pem())


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        main(["verify-certificate", *words], "lockbox-node")
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def said(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, err = run(capfd, *words, "--json")
    assert err == ""
    answer: dict[str, Any] = json.loads(out)
    return code, answer


def test_a_certificate_that_holds_says_who_saw_what(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paper = Paper(STANDARD)
    (here / "a.cert").write_bytes(paper.file())
    code, out, err = run(capfd, "a.cert")
    assert (code, err) == (0, "")
    for words in (
        network().root.network_id.hex(),
        paper.audit().address.hex(),
        paper.audit().descriptor_hash.hex(),
        "standard: any 5 of 10 shards",
        "5 shards may still vanish",
        "first of its chain",
        f"{verifier(0).id.hex()[:8]} of {verifier(0).operator} in eu-west-1",
        "3 of 3      12.0 ms",
        "eu-central-1    measured  listed",
    ):
        assert words in out
    assert "not by a quorum" not in out


def test_the_same_as_an_object(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "a.cert").write_bytes(Paper(stripes=2).file())
    code, answer = said(capfd, "a.cert", "--network", "network.pem")
    assert (code, answer["valid"], answer["contradictions"]) == (0, True, [])
    [one] = answer["certificates"]
    assert (one["held"], one["margin"], one["tier"], one["quorum"], one["previous"]) == (True, 2, "basic", 2, None)
    assert [stripe["stripe"] for stripe in one["stripes"]] == [0, 1]
    assert {index["held_by"] for stripe in one["stripes"] for index in stripe["indices"]} == {3}
    assert one["stripes"][0]["indices"][0]["location"] == ["measured"]


def test_what_no_quorum_saw_held_ends_as_degraded(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paper = Paper()
    missing = [statement_by(verifier(n), paper.audit(), dict.fromkeys((0, 1, 2), Verdict.MISSING)) for n in range(2)]
    (here / "a.cert").write_bytes(paper.stated(*missing).file())
    code, out, _ = run(capfd, "a.cert")
    assert code == 8
    assert out.count("<- not by a quorum") == 3
    assert "LOST: 1 shard too few" in out
    assert f"{node_of(1).hex()[:8]} was missing to 2 verifiers" in out
    code, answer = said(capfd, "a.cert")
    [failing] = answer["certificates"][0]["stripes"][0]["indices"][1]["failing"]
    assert failing == {"node": node_of(1).hex(), "verdict": "missing", "verifiers": 2}


@pytest.mark.parametrize("spoil", ["flipped", "cut", "longer", "empty", "other"])
def test_a_spoilt_file_is_refused_in_one_line(here: Path, capfd: pytest.CaptureFixture[str], spoil: str) -> None:
    file = Paper().file()
    spoilt = {
        "flipped": file[:400] + bytes([file[400] ^ 4]) + file[401:],
        "cut": file[:-10],
        "longer": file + b"x",
        "empty": b"",
        "other": b"-----BEGIN CERTIFICATE-----\n",
    }[spoil]
    (here / "a.cert").write_bytes(spoilt)
    code, out, err = run(capfd, "a.cert")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert err.startswith("lockbox-node: PROOF_INVALID: a.cert: ")
    code, answer = said(capfd, "a.cert")
    assert (code, answer["error"]["code"]) == (4, "PROOF_INVALID")


def test_certificates_of_another_network_are_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "a.cert").write_bytes(Paper().file())
    write_network(here / "other.pem", FakeNetwork(9))
    code, _, err = run(capfd, "a.cert", "--network", "other.pem")
    assert code == 4
    assert "of another network" in err


def test_usage_and_files_that_are_not_there(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "a.cert").write_bytes(Paper().file())
    assert run(capfd)[0] == 2
    assert run(capfd, "no.cert")[0] == 2
    assert run(capfd, "a.cert", "--network", "no.pem")[0] == 78
    (here / "network.pem").write_bytes(b"nonsense")
    assert run(capfd, "a.cert")[0] == 78


def test_a_chain_of_certificates_is_followed(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = Paper()
    after = Paper(certificate=LATER, previous=file_digest(first.file()), time_unix_s=first.time_unix_s + 9, life=2)
    (here / "a.cert").write_bytes(first.file())
    (here / "b.cert").write_bytes(after.file())
    code, out, _ = run(capfd, "b.cert", "a.cert")
    assert code == 0
    assert "follows     a.cert" in out
    code, out, _ = run(capfd, "b.cert")
    assert code == 0
    assert f"{file_digest(first.file()).hex()}, which is not among these files" in out
    foreign = Paper(seed="another", certificate=LATER, previous=file_digest(first.file()), life=3)
    (here / "c.cert").write_bytes(foreign.file())
    code, _, err = run(capfd, "a.cert", "c.cert")
    assert code == 4
    assert "another asset" in err


def test_two_stories_of_one_signer_are_a_proof_against_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = Paper(), Paper(certificate=LATER)
    honest = [statement_by(verifier(n), second.audit(), life=2) for n in (1, 2)]
    lie = statement_by(verifier(0), second.audit(), {0: Verdict.MISSING})  # number 1 of its life 1, again
    (here / "a.cert").write_bytes(first.file())
    (here / "b.cert").write_bytes(second.stated(lie, *honest).file())
    assert [run(capfd, name)[0] for name in ("a.cert", "b.cert")] == [0, 0]
    code, out, err = run(capfd, "a.cert", "b.cert")
    assert code == 4
    assert f"CONTRADICTION: node {verifier(0).id.hex()}" in out
    assert (err.count("\n"), "keep them as proof" in err) == (1, True)
    code, answer = said(capfd, "a.cert", "b.cert")
    assert (code, answer["valid"]) == (4, False)
    assert [proof["node"] for proof in answer["contradictions"]] == [verifier(0).id.hex()]


def test_what_others_wrote_cannot_move_the_cursor(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paper = Paper()
    hostile = statement_by(verifier(0), paper.audit(), region="eu\x1b[2J\nheld by all")
    honest = statement_by(verifier(1), paper.audit())
    (here / "a.cert").write_bytes(paper.stated(hostile, honest).file())
    code, out, _ = run(capfd, "a.cert")
    assert (code, "\x1b" in out) == (0, False)
    assert "in eu?[2J?held by all," in out


def test_the_same_file_twice_is_no_contradiction(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "a.cert").write_bytes(Paper().file())
    assert run(capfd, "a.cert", "a.cert")[0] == 0
