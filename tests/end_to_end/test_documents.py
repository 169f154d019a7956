"""What the authority says to a real network: a revoked node and a revoked client are out everywhere within 10 s."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.demo import until_healthy
from benchmarks.local_network import LocalNetwork, Person, command, local_network
from tests.end_to_end.test_holders import holders_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODES = 14
CUT_OFF_S = 10.0


@pytest.fixture(scope="module")
def city() -> Iterator[LocalNetwork]:
    """A network of its own: it loses members for good."""
    with local_network(NODES) as network:
        yield network


@pytest.fixture(scope="module")
def dora(city: LocalNetwork) -> Person:
    person = city.person("dora")
    person.init()
    return person


def ca(network: LocalNetwork, *words: str, expect: int = 0) -> str:
    """`lockbox-node ca WORDS...` of the network's authority; what it printed."""
    return command("lockbox-node", "ca", *words, "--dir", str(network.directory / "ca"), expect=expect).stdout


def publish(network: LocalNetwork, number: int = 0, expect: int = 0) -> None:
    """To one of those that are not revoked."""
    admitted = [row for row in network.status() if row.get("status") and not row["status"]["revoked"]]
    ca(network, "publish", "--to", admitted[number]["address"], expect=expect)


def rows_but(network: LocalNetwork, node: str) -> list[dict[str, Any]]:
    """What all running nodes but one say of themselves."""
    return [row["status"] for row in network.status() if row["id"] != node and row.get("status")]


def out_of(network: LocalNetwork) -> str:
    """The node that is revoked, or nothing."""
    return next((row["id"] for row in network.status() if row.get("status") and row["status"]["revoked"]), "")


def within(seconds: float, condition: Callable[[], bool]) -> float:
    """How long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.2)
    return time.monotonic() - began


def test_a_revoked_node_is_cut_off_within_10_s_and_its_shards_heal_elsewhere(
    city: LocalNetwork, dora: Person, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(400_000))
    asset = dora.json("lock", str(source), "--tier", "standard")["asset"]
    out = holders_of(dora, asset)[3]
    ca(city, "revoke", out, "--reason", "disk stolen")
    ca(city, "publish", "--to", next(node["address"] for node in city.nodes if node["id"] != out))

    def is_out() -> bool:
        rows = rows_but(city, out)
        return len(rows) == NODES - 1 and all(
            row["members"] == {"alive": NODES - 1, "suspect": 0, "dead": 1} for row in rows
        )

    within(CUT_OFF_S, is_out)
    _, said = until_healthy(dora, asset)
    assert out not in {holder["node"] for holder in said["holders"]}
    dora.json("unlock", asset, "-o", str(output))
    assert output.read_bytes() == source.read_bytes()

    def knows_it() -> bool:
        said = next(row["status"] for row in city.status() if row["id"] == out)
        return said["connections"] == 0 and said["revoked"] and not said["ready"]

    within(30, knows_it)

    restarted = next(node["name"] for node in city.nodes if node["id"] not in (out, city.nodes[0]["id"]))
    city.verb("kill", restarted)
    city.verb("restart", restarted)
    again = next(row["status"] for row in city.status() if row["name"] == restarted)
    assert again["documents"] == rows_but(city, out)[0]["documents"]
    assert again["members"]["alive"] == NODES - 1


def test_a_revoked_client_is_refused_with_exit_4_and_says_why(city: LocalNetwork, tmp_path: Path) -> None:
    key, request, certificate = tmp_path / "eve.key", tmp_path / "eve.csr", tmp_path / "eve.pem"
    command("lockbox", "csr", "-o", str(request), "--key", str(key))
    ca(city, "issue", "--csr", str(request), "--role", "client", "-o", str(certificate))
    eve = city.person("eve")
    words = ["--network", city.summary["network"], "--cert", str(certificate), "--key", str(key)]
    eve.json("init", *words, *(part for one in city.summary["bootstrap"] for part in ("--bootstrap", one)))
    source = tmp_path / "in"
    source.write_bytes(b"secret")
    eve.json("lock", str(source), "--tier", "basic")
    identifier = next(
        line.split()[1].rstrip(":")
        for line in ca(city, "issue", "--csr", str(request), "--role", "client", "-o", str(certificate)).splitlines()
    )
    ca(city, "revoke", identifier, "--reason", "left")
    publish(city, 1)
    within(CUT_OFF_S, lambda: eve.run("lock", str(source), "--tier", "basic", expect=None).returncode == 4)
    refused = eve.run("lock", str(source), "--tier", "basic", expect=4)
    assert refused.stderr.startswith("lockbox: REVOKED: ")
    assert refused.stderr.count("\n") == 1
    ca(city, "issue", "--csr", str(request), "--role", "client", "-o", str(certificate), expect=4)


def test_a_tier_that_the_policy_takes_off_offer_is_refused_in_one_line(
    city: LocalNetwork, dora: Person, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"of a tier")
    ca(city, "policy", "tiers=standard")
    publish(city, 1)
    within(CUT_OFF_S, lambda: dora.run("lock", str(source), "--tier", "basic", expect=None).returncode != 0)
    refused = dora.run("lock", str(source), "--tier", "basic", expect=None)
    assert refused.stderr == "lockbox: TIER_VIOLATION: basic is not on offer in this network; choose one of standard\n"
    dora.run("lock", str(source), "--tier", "standard")
    ca(city, "policy", "tiers=")
    publish(city, 1)
    within(CUT_OFF_S, lambda: dora.run("lock", str(source), "--tier", "basic", expect=None).returncode == 0)


def test_an_old_copy_of_the_authority_is_told_and_brought_up_to_date(city: LocalNetwork, tmp_path: Path) -> None:
    folder = city.directory / "ca" / "documents"
    old = {path: path.read_bytes() for path in folder.iterdir()}
    ca(city, "policy", "guard=11")
    publish(city)
    for path, content in old.items():
        path.write_bytes(content)
    within(CUT_OFF_S, lambda: len({str(row["documents"]) for row in rows_but(city, out_of(city))}) == 1)
    publish(city, 2, expect=1)
    publish(city, 2)
    assert '"guard": "11"' in ca(city, "policy", "hold-off=4", "--json")
