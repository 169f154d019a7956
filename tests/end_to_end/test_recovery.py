"""24 words bring everything back: on a bare home, with and without a client certificate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.local_network import LocalNetwork, Person


@pytest.fixture(scope="module")
def bob(network: LocalNetwork, tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, dict[str, bytes]]:
    """Bob, with an empty file, a small secret and a file of many segments locked."""
    person = network.person("bob")
    person.init()
    contents: dict[str, bytes] = {}
    for size, tier in ((0, "basic"), (33, "elite"), (1_000, "standard"), (7_000_000, "premium")):
        source = tmp_path_factory.mktemp("bob") / f"{size}.bin"
        source.write_bytes(os.urandom(size))
        said = person.json("lock", str(source), "--tier", tier, "--label", f"{size} bytes")
        contents[said["asset"]] = source.read_bytes()
    return person, contents


@pytest.mark.parametrize("certificate", [True, False], ids=["as a client", "as a guest"])
def test_every_asset_unlocks_after_recovery_on_an_empty_home(
    certificate: bool, network: LocalNetwork, bob: tuple[Person, dict[str, bytes]], tmp_path: Path
) -> None:
    person, contents = bob
    bare = network.person(f"bare-{certificate}")
    found = bare.recover(person.words, certificate=certificate)
    assert {asset["asset"] for asset in found["assets"]} == set(contents)
    for asset, content in contents.items():
        output = tmp_path / asset
        bare.json("unlock", asset, "-o", str(output))
        assert output.read_bytes() == content


def test_a_recovered_wallet_goes_on_locking_where_the_old_one_stopped(
    network: LocalNetwork, bob: tuple[Person, dict[str, bytes]], tmp_path: Path
) -> None:
    person, contents = bob
    bare = network.person("heir")
    bare.recover(person.words)
    source = tmp_path / "new"
    source.write_bytes(b"one more")
    asset = bare.json("lock", str(source), "--tier", "standard")["asset"]
    assert asset not in contents
    bare.json("unlock", asset, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"one more"


def test_a_wrong_word_is_said_to_be_wrong_and_never_printed(
    network: LocalNetwork, bob: tuple[Person, dict[str, bytes]]
) -> None:
    person, _ = bob
    bare = network.person("typo")
    words = [*person.words[:-1], "xylophonist"]
    (bare.home / "words").write_text(" ".join(words))
    done = bare.run(
        "recover",
        "--words-file",
        str(bare.home / "words"),
        "--network",
        network.summary["network"],
        "--bootstrap",
        network.summary["bootstrap"][0],
        expect=None,
    )
    assert done.returncode != 0
    assert "word" in done.stderr
    assert not any(word in done.stdout + done.stderr for word in ("xylophonist", *person.words[:3]))
