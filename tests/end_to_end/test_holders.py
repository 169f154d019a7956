"""Which losses an asset survives: the promise of each tier, kept by real processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.demo import certified, until_healthy
from benchmarks.local_network import command
from lockbox_node.core.tiers import TIERS, Tier, tier_named

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.local_network import LocalNetwork, Person

FILE_BYTES = 3_000_000


def holders_of(person: Person, asset: str) -> list[str]:
    """Full ids of the holders of the root stripe, by shard index."""
    said = person.json("verify", asset)
    assert said["state"] == "healthy"
    stripes = {holder["stripe"] for holder in said["holders"]}
    assert stripes == {0}, "the file of this test fits one stripe"
    return [holder["node"] for holder in sorted(said["holders"], key=lambda holder: holder["index"])]


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_unlocks_with_n_minus_k_holders_stopped_and_says_what_is_missing_with_one_more(
    tier: Tier, whole: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(FILE_BYTES))
    asset = alice.json("lock", str(source), "--tier", tier.name)["asset"]
    holders = [whole.named(node) for node in holders_of(alice, asset)]
    assert len(set(holders)) == tier.n

    whole.verb("stop", *holders[: tier.n - tier.k])
    alice.json("unlock", asset, "-o", str(output))
    assert output.read_bytes() == source.read_bytes()

    whole.verb("stop", holders[tier.n - tier.k])
    refused = alice.run("unlock", asset, "-o", str(tmp_path / "more"), expect=5)
    assert refused.stderr.startswith("lockbox: INSUFFICIENT_SHARDS: ")
    assert f"{tier.k - 1} of {tier.k}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "more").exists()


def test_a_stranger_with_two_files_checks_who_holds_an_asset_and_finds_a_changed_byte(
    alice: Person, tmp_path: Path
) -> None:
    source, stranger = tmp_path / "in", tmp_path / "stranger"
    source.write_bytes(os.urandom(1_000))
    asset = alice.json("lock", str(source), "--tier", "basic")["asset"]
    assert certified(alice, asset, stranger).startswith("basic: 5 of 5 indices held, signed by 3 verifiers")
    file = stranger / "asset.cert"
    spoilt = bytearray(file.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    file.write_bytes(spoilt)
    done = command("lockbox-node", "verify-certificate", file.name, home=stranger, directory=stranger, expect=4)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_two_killed_holders_are_healed_without_anybody_asking(
    whole: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.write_bytes(os.urandom(1_000))
    asset = alice.json("lock", str(source), "--tier", "standard")["asset"]
    holders = [whole.named(node) for node in holders_of(alice, asset)]
    whole.verb("policy", "healing=on")
    try:
        whole.verb("kill", *holders[:2])
        assert alice.json("verify", asset, expect=8)["state"] == "degraded"
        _, said = until_healthy(alice, asset)
        indices = sorted(holder["index"] for holder in said["holders"] if holder["verdict"] == "held")
        assert indices == list(range(tier_named("standard").n))
    finally:
        whole.verb("policy", "healing=off")


def test_a_lock_acknowledged_just_before_kill_9_of_every_node_is_there_after_all_are_restarted(
    whole: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(400_000))
    names = [node["name"] for node in whole.nodes]
    asset = alice.json("lock", str(source), "--tier", "elite")["asset"]
    whole.verb("kill", *names)
    assert alice.run("unlock", asset, "-o", str(output), expect=None).returncode in (5, 7)
    whole.verb("restart", *names)
    alice.json("unlock", asset, "-o", str(output))
    assert output.read_bytes() == source.read_bytes()
