"""Bad input from people: one line, the right exit code, nothing lost."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from benchmarks.local_network import BIN, PASSPHRASE, LocalNetwork, Person, command, local_network
from lockbox_node.adapters.identity import NetworkFile, pem_of
from protocol.certificates import Role
from protocol.issuing import Terms, build_role_leaf

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86400


def refused(person: Person, *words: str, code: str, exit_code: int) -> str:
    """Run `lockbox WORDS`, demand one line with `code` and that exit code; the line."""
    done = person.run(*words, expect=exit_code)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"lockbox: {code}: "), done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def asset(alice: Person, tmp_path_factory: pytest.TempPathFactory) -> str:
    source = tmp_path_factory.mktemp("asset") / "in"
    source.write_bytes(b"precious")
    return str(alice.json("lock", str(source), "--tier", "standard", "--label", "precious")["asset"])


def test_a_wrong_passphrase_opens_nothing(alice: Person, asset: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not the passphrase at all\n")
    words = "--passphrase-file", str(tmp_path / "wrong")
    refused(alice, "unlock", asset, "-o", str(tmp_path / "out"), *words, code="ACCESS_DENIED", exit_code=4)
    assert not (tmp_path / "out").exists()


def test_an_unknown_asset_is_not_found(alice: Person, tmp_path: Path) -> None:
    refused(alice, "unlock", "aaaaaaaaaaaaaaaa", "-o", str(tmp_path / "out"), code="NOT_FOUND", exit_code=3)


def test_an_existing_output_file_is_never_overwritten_without_force(alice: Person, asset: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"mine")
    refused(alice, "unlock", asset, "-o", str(output), code="USAGE", exit_code=2)
    assert output.read_bytes() == b"mine"
    alice.run("unlock", asset, "-o", str(output), "--force")
    assert output.read_bytes() == b"precious"


def test_a_directory_is_refused_with_a_hint(alice: Person, tmp_path: Path) -> None:
    line = refused(alice, "lock", str(tmp_path), "--tier", "basic", code="USAGE", exit_code=2)
    assert "tar" in line


def test_a_file_that_is_not_there_is_said_so(alice: Person, tmp_path: Path) -> None:
    done = alice.run("lock", str(tmp_path / "none"), "--tier", "basic", expect=None)
    assert done.returncode in (2, 3)
    assert done.stderr.count("\n") == 1


def test_standard_input_and_output_work(alice: Person, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(alice.home), "LOCKBOX_PASSPHRASE": PASSPHRASE}
    locked = subprocess.run(
        [str(BIN / "lockbox"), "lock", "-", "--tier", "basic", "--label", "piped"],
        input=b"through a pipe",
        capture_output=True,
        env=environment,
        check=True,
    )
    assert locked.stdout
    unlocked = subprocess.run(
        [str(BIN / "lockbox"), "unlock", "piped", "-o", "-"], capture_output=True, env=environment, check=True
    )
    assert unlocked.stdout == b"through a pipe"


def test_an_expired_client_certificate_still_reads_and_no_longer_writes(
    network: LocalNetwork, alice: Person, asset: str, tmp_path: Path
) -> None:
    authority = network.directory / "ca"
    root = NetworkFile.load(authority / "network.pem").root
    root_key = serialization.load_pem_private_key((authority / "root-key.pem").read_bytes(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    key = ed25519.Ed25519PrivateKey.generate()
    now = int(time.time())
    terms = Terms(12345, now - 10 * DAY_S, now - DAY_S)
    (tmp_path / "cert").write_bytes(
        pem_of(build_role_leaf(root, root_key, Role.CLIENT, key.public_key().public_bytes_raw(), terms))
    )
    (tmp_path / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "key").chmod(0o600)
    late = network.person("late")
    (late.home / "words").write_text(" ".join(alice.words))
    late.run(
        "recover", "--words-file", str(late.home / "words"), "--network", network.summary["network"],
        "--bootstrap", *network.summary["bootstrap"], "--cert", str(tmp_path / "cert"), "--key", str(tmp_path / "key"),
    )  # fmt: skip
    late.run("unlock", asset, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"precious"
    (tmp_path / "in").write_bytes(b"new")
    done = late.run("lock", str(tmp_path / "in"), "--tier", "basic", expect=4)
    assert "certificate" in done.stderr
    assert "not valid at this time" in done.stderr


def test_too_few_nodes_regions_and_operators_are_refused_and_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"x")
    with local_network(6, "--regions", "us-east-1,eu-west-1,ap-south-1") as network:
        person = network.person("one")
        person.init()
        line = refused(person, "lock", str(source), "--tier", "elite", code="INSUFFICIENT_NODES", exit_code=5)
        assert "20" in line
        person.run("lock", str(source), "--tier", "basic")
    with local_network(6, "--regions", "us-east-1,us-east-2") as network:
        person = network.person("two")
        person.init()
        refused(person, "lock", str(source), "--tier", "basic", code="INSUFFICIENT_REGIONS", exit_code=5)
        assert person.json("list")["assets"] == []


@pytest.mark.parametrize(
    ("line", "word"), [("colour = 'red'", "colour"), ("region = 7", "region"), ("listen = 'here'", "listen")]
)
def test_a_config_with_a_wrong_key_or_type_names_it(line: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(f"[node]\n{line}\n")
    done = command("lockbox-node", "run", "--config", str(tmp_path / "node.toml"), expect=78)
    assert f"node.{word}" in done.stderr
    assert done.stderr.count("\n") == 1
