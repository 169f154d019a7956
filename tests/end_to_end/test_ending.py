"""Renew and delete with real daemons: what a lease becomes, and that a deleted asset stays deleted."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.local_network import PASSPHRASE, LocalNetwork, Person, local_network
from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.cli.session import in_network
from lockbox_node.client.granting import Leave
from lockbox_node.client.wallet import Wallet
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import RequestRefused
from protocol.errors import ErrorCode
from protocol.messages import GetShards, GetSlot, PutStripe, Shards, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lockbox_node.client.vault import Vault

NODES = 12
DAY_S = 86_400


@pytest.fixture(scope="module")
def small() -> Iterator[LocalNetwork]:
    with local_network(NODES, "--policy", "healing=off") as network:
        yield network


@pytest.fixture(scope="module")
def carol(small: LocalNetwork) -> Person:
    person = small.person("carol")
    person.init()
    return person


def locked(person: Person, tmp_path: Path, size: int = 1_000) -> str:
    source = tmp_path / "in"
    source.write_bytes(os.urandom(size))
    asset: str = person.json("lock", str(source), "--tier", "standard", "--lease", "30d")["asset"]
    return asset


def holder_names(person: Person, asset: str) -> list[str]:
    nodes = {holder["node"] for holder in person.json("verify", asset)["holders"]}
    return sorted(person.network.named(node) for node in nodes)


def one_part(person: Person, asset: str) -> PutStripe:
    """What one holder keeps of the root stripe, as somebody would put it there."""

    async def read(vault: Vault) -> PutStripe:
        entry = vault.wallet.find(asset)
        with root_key(vault.wallet.master, entry.index) as key:
            slot, leave = vault.claim(key, GetSlot), Leave(vault, key, STANDARD)
        await leave.quorum()
        for member in vault.members.all():
            seen = await vault.pool.request(member.contact, GetSlot(entry.address, slot))
            assert isinstance(seen, Slots)
            if seen.states:
                grants = leave.grants_for(member.record.node)
                get = GetShards(entry.address, entry.descriptor_hash, leave.request, grants)
                part = await vault.pool.request(member.contact, get)
                assert isinstance(part, Shards)
                return PutStripe(part.descriptor, part.slots, part.index, part.shards, seen.states[0].entries)
        raise AssertionError("nobody holds it")

    with Wallet.open(person.home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        return in_network(wallet, read)


def answers_to(person: Person, put: PutStripe) -> list[ErrorCode | None]:
    """What every node says to this put: the code of its refusal, or None where it is stored."""

    async def ask(vault: Vault) -> list[ErrorCode | None]:
        said: list[ErrorCode | None] = []
        for member in vault.members.all():
            try:
                with trio.fail_after(10):
                    await vault.pool.request(member.contact, put)
                said.append(None)
            except RequestRefused as error:
                said.append(error.code)
        return said

    with Wallet.open(person.home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        return in_network(wallet, ask)


def test_a_renewed_asset_is_kept_for_as_long_and_recovery_knows_it(
    small: LocalNetwork, carol: Person, tmp_path: Path
) -> None:
    asset = locked(carol, tmp_path, 6_000_000)
    said = carol.json("renew", asset)
    assert said["shards"] == {"renewed": 20, "wanted": 20}
    assert abs(said["lease_until_unix_s"] - time.time() - 365 * DAY_S) < 60
    shorter = carol.json("renew", asset, "--lease", "10d")
    assert (shorter["renewed"], shorter["lease_until"]) == (False, said["lease_until"])
    refused = carol.run("renew", asset, "--lease", "2y", expect=2)
    assert "standard has leases of 1 to 365 days" in refused.stderr

    everything = carol.json("renew", "--all")
    assert all(one["shards"]["renewed"] == one["shards"]["wanted"] for one in everything["assets"])
    assert everything["mark"]["shards"]["renewed"] == everything["mark"]["shards"]["wanted"]
    bare = small.person("renewed")
    (found,) = [one for one in bare.recover(carol.words)["assets"] if one["asset"] == asset]
    assert found["lease_until"] == said["lease_until"]


def test_a_deleted_asset_is_gone_for_every_wallet_and_no_replay_brings_it_back(
    small: LocalNetwork, carol: Person, tmp_path: Path
) -> None:
    asset = locked(carol, tmp_path)
    bare = small.person("reader")
    assert asset in [one["asset"] for one in bare.recover(carol.words)["assets"]]
    replay = one_part(carol, asset)
    said = carol.json("delete", asset)
    assert (said["state"], said["missing"]) == ("deleted", [])
    assert asset not in [one["asset"] for one in carol.json("list")["assets"]]
    for person in (carol, bare):
        assert person.run("unlock", asset, "-o", str(tmp_path / "out"), expect=3).stderr.count("\n") == 1
    assert answers_to(carol, replay) == [ErrorCode.STALE] * NODES
    again = small.person("again")
    found = again.recover(carol.words)
    assert asset not in [one["asset"] for one in found["assets"]]
    assert found["deleted"] >= 1


def test_a_holder_that_was_down_is_named_and_the_asset_stays_gone_when_it_returns(
    small: LocalNetwork, carol: Person, tmp_path: Path
) -> None:
    asset = locked(carol, tmp_path)
    away = holder_names(carol, asset)[0]
    small.verb("kill", away)
    incomplete = carol.json("delete", asset, expect=8)
    assert incomplete["error"]["code"] == "DESTRUCTION_INCOMPLETE"
    assert [small.named(node) for node in incomplete["missing"]] == [away]
    carol.run("unlock", asset, "-o", str(tmp_path / "out"), expect=3)

    small.verb("restart", away)
    carol.run("unlock", asset, "-o", str(tmp_path / "out"), expect=3)
    bare = small.person("later")
    assert asset not in [one["asset"] for one in bare.recover(carol.words)["assets"]]
    done = carol.json("delete", asset)
    assert (done["state"], done["missing"]) == ("deleted", [])
    carol.run("unlock", asset, "-o", str(tmp_path / "out"), expect=3)
