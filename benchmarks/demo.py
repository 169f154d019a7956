"""The demonstration: a real network on this machine, a region lost, an asset back from 24 words.

Every line says what is done, what it proves and how long it took; any step that does not hold ends it with exit 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.local_network import CommandFailed, LocalNetwork, Person, command, local_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODES = 24
SECRET_BYTES = 1_200
FILE_BYTES = 3_000_000
HEAL_TIMEOUT_S = 90.0


class StepFailed(Exception):
    """A step of the demonstration did not hold."""


class Story:
    """Numbered plain lines with times."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began = time.perf_counter()
        self.rows: list[tuple[str, float]] = []

    @contextmanager
    def step(self, words: str, proves: str) -> Iterator[list[str]]:
        """One step; the body may append facts that are told with its time."""
        self._say(f"\n{len(self.rows) + 1}. {words}")
        facts: list[str] = []
        started = time.perf_counter()
        yield facts
        took = time.perf_counter() - started
        for fact in facts:
            self._say(f"   {fact}")
        self._say(f"   proves: {proves}  ({took:.1f} s)")
        self.rows.append((words, took))

    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began


def require(holds: bool, words: str) -> None:
    """StepFailed with `words` unless it holds."""
    if not holds:
        raise StepFailed(words)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unlocked_equal(person: Person, asset: str, original: str, output: Path) -> dict[str, object]:
    """Unlock into `output` and demand the same bytes."""
    said = person.json("unlock", asset, "-o", str(output))
    require(digest(output) == original, f"what came out of {asset} differs from what went in")
    output.unlink()
    return said


def certified(person: Person, asset: str, stranger: Path) -> str:
    """Have the asset certified, and the certificate checked where there is nothing but it and network.pem."""
    stranger.mkdir()
    person.json("verify", asset, "--certificate", str(stranger / "asset.cert"))
    shutil.copyfile(person.network.summary["network"], stranger / "network.pem")
    done = command("lockbox-node", "verify-certificate", "asset.cert", "--json", home=stranger, directory=stranger)
    require(len(list(stranger.iterdir())) == len(("asset.cert", "network.pem")), "the stranger needed more than files")
    [one] = json.loads(done.stdout)["certificates"]
    held = [index["held_by"] >= one["quorum"] for stripe in one["stripes"] for index in stripe["indices"]]
    require(one["held"] and all(held), f"the certificate of {asset} does not say that all is held")
    operators = {verifier["operator"] for stripe in one["stripes"] for verifier in stripe["verifiers"]}
    return (
        f"{one['tier']}: {len(held)} of {len(held)} indices held, signed by {len(one['stripes'][0]['verifiers'])} "
        f"verifiers of {len(operators)} operators; {(stranger / 'asset.cert').stat().st_size:,} bytes"
    )


def until_healthy(person: Person, asset: str) -> tuple[float, dict[str, Any]]:
    """Seconds until `verify` says healthy, and what it says; StepFailed after HEAL_TIMEOUT_S.

    A holder proves a part to one person 30 times a minute.
    """
    started, pause_s = time.perf_counter(), 2.0
    while (said := person.json("verify", asset, expect=None)).get("state") != "healthy":
        require(time.perf_counter() - started < HEAL_TIMEOUT_S, f"still {said} after {HEAL_TIMEOUT_S:.0f} s")
        time.sleep(max(pause_s, said.get("error", {}).get("retry_after_s", 0.0)))
    return time.perf_counter() - started, said


def tell(network: LocalNetwork, story: Story) -> None:
    """The story after the network stands."""
    alice, bare = network.person("alice"), network.person("bare")
    files = {"standard": alice.home / "keys.txt", "elite": alice.home / "vault.bin"}
    files["standard"].write_bytes(os.urandom(SECRET_BYTES))
    files["elite"].write_bytes(os.urandom(FILE_BYTES))
    sums = {tier: digest(path) for tier, path in files.items()}
    assets: dict[str, str] = {}

    with story.step("Alice makes a wallet and locks two files", "sealed, coded, hidden among decoys, durable") as facts:
        words = alice.init()
        facts.append(f"her {len(words)} words were shown once; nothing else is needed to come back")
        for tier, path in files.items():
            said = alice.json("lock", str(path), "--tier", tier, "--label", path.name)
            assets[tier] = said["asset"]
            shards, decoys = said["shards"], said["decoys"]
            facts.append(
                f"{tier}: {path.stat().st_size:,} bytes as {shards['placed']} of {shards['wanted']} shards, "
                f"{decoys} decoy group{'s' * (decoys != 1)}, {len(said['regions'])} regions, {said['seconds']:.2f} s"
            )

    with story.step(
        "Verifiers look at every holder and sign what they saw", "strangers can check who holds it"
    ) as facts:
        facts.append(certified(alice, assets["elite"], network.directory / "stranger"))
        facts.append("checked by somebody with two files and no network")

    with story.step("Her machine is gone: a bare home, 24 words, nothing else", "24 words bring all back") as facts:
        found = bare.recover(words, certificate=False)
        require(len(found["assets"]) == len(assets), f"{len(found['assets'])} of {len(assets)} assets were found")
        for tier, asset in assets.items():
            unlocked_equal(bare, asset, sums[tier], bare.home / "out")
        facts.append(f"{len(assets)} assets found and unlocked byte-identical, with the guest certificate only")

    held_in = Counter(holder["region"] for holder in bare.json("verify", assets["standard"])["holders"])
    region, lost = held_in.most_common(1)[0]
    with story.step(f"Region {region} burns: every node there is killed with SIGKILL", "a region may vanish") as facts:
        told = network.verb("kill-region", region)
        for tier, asset in assets.items():
            said = unlocked_equal(bare, asset, sums[tier], bare.home / "out")
            shards = said["shards"]
            assert isinstance(shards, dict)
            facts.append(f"{tier}: unlocked byte-identical, {shards['needed']} shards needed a group")
        facts.append(f"{', '.join(told['nodes'])} are dead, and {lost} of the 10 Standard shards with them")

    with story.step("The network heals the Standard asset by itself", "lost shards are rebuilt elsewhere") as facts:
        took, state = until_healthy(bare, assets["standard"])
        held = sum(holder["verdict"] == "held" for holder in state["holders"])
        facts.append(f"healthy {took:.1f} s after the first look: {held} shards proved by {held} live holders")
        repaired = sum(node["status"]["repairs"]["done"] for node in network.status() if node.get("status"))
        facts.append(f"{repaired} repairs done by the nodes, each checked against what Alice signed")


def main() -> int:
    """Run the whole story; the exit code."""

    def say(words: str) -> None:
        print(words, flush=True)

    story = Story(say)
    say(f"LockBox: {NODES} real nodes on this machine, each its own process, mutual TLS 1.3, every write synced.")
    try:
        began = time.perf_counter()
        with local_network(NODES) as network:
            regions = sorted({node["region"] for node in network.nodes})
            operators = {node["operator"] for node in network.nodes}
            say(f"\n{NODES} nodes of {len(operators)} operators are ready after {time.perf_counter() - began:.1f} s in")
            say(f"{', '.join(regions)}: pairwise at least 1000 km apart.")
            tell(network, story)
    except (StepFailed, CommandFailed, RuntimeError) as error:
        say(f"\nIT DID NOT HOLD: {error}")
        return 1
    say("\nSummary")
    for number, (words, took) in enumerate(story.rows, 1):
        say(f"  {number}. held  {took:6.1f} s  {words}")
    say(f"Every step held. {story.total():.0f} s in all; everything is stopped and removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
