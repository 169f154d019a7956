"""The story of a network of twenty that falls into two halves and is whole again, whatever cuts it.

Neither half can judge, so neither repairs. Both go on reading what they hold k of, and both go on locking. Two machines
with copies of one wallet lock under one index meanwhile: siblings, of which each stays what it was. After healing all
agree within AGREE_S, nothing is lost, and whoever recovers the wallet has both siblings.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.local_network import PASSPHRASE
from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.cli.session import in_network
from lockbox_node.client.finding import Finding
from lockbox_node.client.wallet import Wallet
from lockbox_node.core.tiers import tier_named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.local_network import Person
    from lockbox_node.client.vault import Vault

NODES = 20
HALF = NODES // 2
NOTICED_S = 30.0  # probes fail, suspicions run out
AGREE_S = 30.0
LOOK_S = 0.5
SHORT_S, LONG_S = 40.0, 120.0


class Halves(Protocol):
    """Ten nodes, n01 to n05 on side A and n06 to n10 on side B, and something that cuts them apart."""

    def part(self) -> None:
        """Neither side hears the other from now on."""
        ...

    def heal(self) -> None:
        """All hear all."""
        ...

    def statuses(self) -> list[dict[str, Any]]:
        """What every node says of itself, n01 first."""
        ...

    def stand(self, person: Person, side: str) -> None:
        """This person reaches only that side of a partition."""
        ...


@dataclass
class Kept:
    """One asset: its content, and the nodes that hold a part of its root stripe."""

    asset: str
    tier: str
    content: bytes
    holders: set[str]


def play(halves: Halves, alice: Person, bob: Person, carol: Person, apart_s: float, tmp_path: Path) -> None:
    """The whole story. `alice` has a wallet; `bob` becomes a copy of her machine, taken before the cut; `carol` has
    nothing but the words, when all is over.
    """
    faulthandler.cancel_dump_traceback_later()  # pytest's alarm for what hangs: this may take longer
    kept = [_locked(alice, tmp_path, "standard", 400_000), *(_locked(alice, tmp_path, "basic", 3_000) for _ in "12")]
    shutil.copytree(alice.home / ".lockbox", bob.home / ".lockbox")
    halves.stand(alice, "A")
    halves.stand(bob, "B")
    repairs = _repairs(halves)

    halves.part()
    began = time.monotonic()
    _until(NOTICED_S, lambda: all(_counts(said) == (HALF, NODES - HALF) for said in halves.statuses()), halves)
    ids = [said["id"] for said in halves.statuses()]
    for person, side in ((alice, ids[:HALF]), (bob, ids[HALF:])):
        for one in kept:
            _reads_what_its_side_holds(person, one, side, tmp_path)
    own = [_locked(person, tmp_path, "basic", 1_500) for person in (alice, bob)]
    assert own[0].asset == own[1].asset, "one index, one address"
    while time.monotonic() < began + apart_s:
        statuses = halves.statuses()
        assert not any(said["repairs"]["view_trusted"] for said in statuses), "half a network cannot judge"
        assert _repairs(halves) == repairs, "who cannot judge repairs nothing"
        time.sleep(LOOK_S)

    halves.heal()
    _until(AGREE_S, lambda: all(_is_whole(said) for said in halves.statuses()), halves)
    for person, one in [*((alice, one) for one in kept), (alice, own[0]), (bob, own[1])]:
        assert _unlocked(person, one, tmp_path, expect=0) == one.content
    for one in kept:
        assert alice.json("verify", one.asset)["state"] == "healthy"
    assert _listed(alice, own[0].asset) == {_signed(alice, own[0].asset), _signed(bob, own[1].asset)}
    found = [str(asset["asset"]) for asset in carol.recover(alice.words)["assets"]]
    assert found == [asset["asset"] for asset in carol.json("list")["assets"]]
    contents = [_unlocked(carol, Kept(asset, "", b"", set()), tmp_path, expect=0) for asset in found]
    assert sorted(contents) == sorted(one.content for one in [*kept, *own])
    _tells_siblings_apart(carol, [asset for asset in found if asset.startswith(own[0].asset)])
    assert _unlocked(alice, own[0], tmp_path, expect=0) == own[0].content


def _tells_siblings_apart(person: Person, siblings: list[str]) -> None:
    """Each is verified as itself, and no command takes one for the other, or both."""
    assert len(siblings) == 2
    holders = []
    for asset in siblings:
        said = person.json("verify", asset)
        assert said["state"] == "healthy", said
        holders.append({holder["node"] for holder in said["holders"]})
    assert not holders[0] & holders[1], "each stands on the side where it was locked"
    person.run("unlock", siblings[0].partition("-")[0], "-o", str(person.home / "none"), expect=2)
    refused = person.json("delete", siblings[0], expect=1)["error"]
    assert refused["code"] == "CONFLICT"
    assert siblings[1] in refused["message"]


def _locked(person: Person, tmp_path: Path, tier: str, size: int) -> Kept:
    source = tmp_path / "in"
    source.write_bytes(os.urandom(size))
    asset = str(person.json("lock", str(source), "--tier", tier)["asset"])
    said = person.json("verify", asset)
    assert said["state"] == "healthy", said
    return Kept(asset, tier, source.read_bytes(), {holder["node"] for holder in said["holders"]})


def _unlocked(person: Person, one: Kept, tmp_path: Path, expect: int) -> bytes:
    output = tmp_path / "out"
    output.unlink(missing_ok=True)
    person.run("unlock", one.asset, "-o", str(output), expect=expect)
    return output.read_bytes() if output.exists() else b""


def _reads_what_its_side_holds(person: Person, one: Kept, side: list[str], tmp_path: Path) -> None:
    """One holder has one shard of every group: with k holders on the side it reads, else it says so."""
    reads = len(one.holders & set(side)) >= tier_named(one.tier).k
    assert _unlocked(person, one, tmp_path, expect=0 if reads else 5) == (one.content if reads else b"")


def _counts(said: dict[str, Any]) -> tuple[int, int]:
    """(alive, dead) in the eyes of one node."""
    return said["members"]["alive"], said["members"]["dead"]


def _is_whole(said: dict[str, Any]) -> bool:
    repairs = said["repairs"]
    return _counts(said) == (NODES, 0) and repairs["view_trusted"] and not repairs["pending"] and said["ready"]


def _repairs(halves: Halves) -> int:
    return sum(said["repairs"]["done"] for said in halves.statuses())


def _until(limit_s: float, condition: Callable[[], bool], halves: Halves) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, [(said["members"], said["repairs"]) for said in halves.statuses()]
        time.sleep(LOOK_S)


def _signed(person: Person, asset: str) -> bytes:
    """Hash of the descriptor that this machine signed for its asset."""
    with Wallet.open(person.home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        return bytes(wallet.find(asset).descriptor_hash)


def _listed(person: Person, asset: str) -> set[bytes]:
    """Hashes of all descriptors that the nodes list at the address."""

    async def ask(vault: Vault) -> set[bytes]:
        finding = Finding(vault, vault.wallet.find(asset).address)
        await finding.hear_until(lambda: False)  # three answers may all be of one side
        return {bytes(table.descriptor_hash) for table in finding.tables()}

    with Wallet.open(person.home / ".lockbox", PASSPHRASE, OsEntropy()) as wallet:
        return in_network(wallet, ask)
