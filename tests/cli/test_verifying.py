"""`lockbox verify` at a shell: what it refuses before it asks anybody, and what it says of a certificate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.adapters.identity import NetworkFile
from lockbox_node.cli import verifying
from lockbox_node.client.certifying import CertifyResult
from lockbox_node.client.sink import FileSink
from lockbox_node.client.wallet import Wallet
from lockbox_node.core.certified import examined
from lockbox_node.core.tiers import BASIC
from lockbox_node.errors import ExitCode, LockboxError
from protocol.possession import AskAudit
from tests.cli.test_people import PASSPHRASE, an_asset, home, made, run
from tests.client.test_verify import locked
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.possession import Paper

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.ids import Address

__all__ = ["home", "made"]


@pytest.fixture
def wallet(home: Path, made: list[str]) -> Path:
    """The home of a wallet with one asset."""
    with Wallet.open(home / ".lockbox", PASSPHRASE, OsEntropy()) as mine:
        mine.remember(an_asset(3, "keys"))
    return home


def test_what_belongs_to_a_certificate_needs_one(wallet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--force"], ["--after", str(wallet / "old")]):
        code, _, err = run(capfd, "verify", "keys", *words)
        assert code == 2
        assert "--certificate" in err


def test_it_refuses_to_overwrite_before_it_asks_the_network(wallet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (wallet / "there").write_bytes(b"precious")
    code, _, err = run(capfd, "verify", "keys", "--certificate", str(wallet / "there"))
    assert code == 2
    assert "choose another name with --certificate, or overwrite it with --force" in err
    assert (wallet / "there").read_bytes() == b"precious"
    code, _, err = run(capfd, "verify", "keys", "--certificate", str(wallet / "no" / "dir"))
    assert (code, "--certificate" in err) == (2, True)


def test_an_earlier_certificate_must_hold_and_be_of_the_asset(
    wallet: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["verify", "keys", "--certificate", str(wallet / "new"), "--after", str(wallet / "old")]
    assert run(capfd, *words)[0] == 2  # it is not there
    (wallet / "old").write_bytes(Paper().file())  # of another network
    code, _, err = run(capfd, *words)
    assert (code, "PROOF_INVALID" in err) == (4, True)
    from tests.fakes.granting import network

    guest = network().guest()
    known = NetworkFile(network().root, guest.chain[0], guest.key)
    monkeypatch.setattr(NetworkFile, "load", lambda _path: known)
    code, _, err = run(capfd, *words)
    assert code == 2
    assert "of another asset" in err
    assert not (wallet / "new").exists()


def test_an_unreachable_network_leaves_no_file(wallet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "verify", "keys", "--certificate", str(wallet / "new"), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (7, "NETWORK_PARTITIONED")
    assert list(wallet.glob("*new*")) == []


def outcome(tmp_path: Path, *, silent: bool = False) -> tuple[Cluster, Address, verifying.Outcome]:
    """What the command gets from a network in memory."""

    async def main() -> tuple[Cluster, Address, verifying.Outcome]:
        cluster = Cluster(24)
        async with trio.open_nursery() as nursery:
            await nursery.start(cluster.run)
            async with cluster.client(a_wallet(cluster, tmp_path / "wallet")) as vault:
                asset = await locked(vault, BASIC)
                for node in cluster.nodes.values():
                    node.silent |= {AskAudit} if silent else set()
                said = await verifying._certified(vault, asset, None)
            nursery.cancel_scope.cancel()
        return cluster, asset.address, said

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_certificate_is_written_and_told_of(tmp_path: Path) -> None:
    cluster, address, (verified, said) = outcome(tmp_path)
    path = tmp_path / "a.cert"
    sink = FileSink(path, force=False)
    assert verifying._written(sink, said) is said
    assert isinstance(said, CertifyResult)
    assert examined(cluster.authority.root, path.read_bytes()).address == address
    about = verifying._certificate_payload(path, said)
    assert about["quorum"] == 2
    wanted = {"verifiers": 3, "quorum": 2, "held": 5, "indices": 5, "stripes": 1, "margin": 2}
    assert {name: about["certificate"][name] for name in wanted} == wanted
    assert "3 verifiers (quorum 2) saw 5 of 5 indices held, 1 stripe" in verifying._certificate_words(path, said)
    assert verified.state == "healthy"


def test_without_a_quorum_what_the_owner_saw_is_told_all_the_same(tmp_path: Path) -> None:
    _, _, (verified, said) = outcome(tmp_path, silent=True)
    path = tmp_path / "a.cert"
    sink = FileSink(path, force=False)
    assert isinstance(verifying._written(sink, said), LockboxError)
    sink.discard()
    assert said is not None
    assert (verified.state, said.exit_code) == ("healthy", ExitCode.UNREACHABLE)
    assert not path.exists()
    assert verifying._certificate_payload(path, said)["certificate"]["file"] is None
    assert "no certificate: NETWORK_PARTITIONED: " in verifying._certificate_words(path, said)
