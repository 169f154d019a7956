"""One command against the network: what ends it, what it keeps, what it survives."""

from __future__ import annotations

import base64
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.cli import session
from lockbox_node.cli.authority import create_authority
from lockbox_node.cli.output import answerable
from lockbox_node.client.wallet import Wallet
from lockbox_node.client.words import new_words
from lockbox_node.errors import ConfigError, ExitCode, LockboxError
from protocol.documents import Revocations
from simulations.identities import FakeNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lockbox_node.client.vault import Vault

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def wallet(tmp_path: Path) -> Iterator[Wallet]:
    """A guest's wallet of a network that is not there."""
    create_authority(tmp_path / "ca", "test")
    pem = (tmp_path / "ca/network.pem").read_bytes()
    entropy = OsEntropy()
    with Wallet.create(
        tmp_path / "w", new_words(entropy), PASSPHRASE, PASSPHRASE, pem, ["127.0.0.1:1"], None, None, entropy
    ) as made:
        yield made


async def nothing(_vault: Vault) -> None:
    raise AssertionError("there is no network to do anything in")


def failure(wallet: Wallet) -> LockboxError:
    try:
        session.in_network(wallet, nothing)
    except (LockboxError, BaseExceptionGroup) as error:
        return answerable(error)
    raise AssertionError("it found a network")


def test_no_network_is_exit_7(wallet: Wallet) -> None:
    assert failure(wallet).exit_code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "cache",
    [
        b"",
        b"[]",
        b"garbage",
        b"\xff",
        b"{}",
        b'{"addresses": ["x", "h:", ":1", "h:p", "\\ud800:1"]}',
        b'{"addresses": ["x", 7, null]}',
        b'{"documents": [[1, "AA==", "AA=="]]}',
        b'{"documents": [[1, "AA==", "%s"]]}' % base64.b64encode(bytes(64)),
        b'{"documents": ' + b"[" * 100_000,
        b"[" * 100_000,
    ],
)
def test_a_damaged_cache_is_no_defect(wallet: Wallet, cache: bytes) -> None:
    wallet.save_members(cache)
    assert failure(wallet).exit_code is ExitCode.UNREACHABLE


def test_addresses_and_documents_are_kept_for_the_next_command(wallet: Wallet) -> None:
    network = FakeNetwork()
    seen = session.Cached(["h:1"], [network.sign(Revocations(3, 0, []))])
    session._cache(wallet, session.Cached(), seen)
    assert session._cached(wallet) == seen
    session._cache(wallet, seen, session.Cached())
    assert session._cached(wallet) == seen, "who met nobody has nothing to keep"


def test_the_network_file_of_another_network_is_a_configuration_error(wallet: Wallet, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", "other")
    (wallet.path / "network.pem").write_bytes((tmp_path / "other/network.pem").read_bytes())
    error = failure(wallet)
    assert isinstance(error, ConfigError)
    assert error.exit_code == 78


def test_ctrl_c_while_joining_ends_with_one_word_about_it(wallet: Wallet) -> None:
    async def interrupted() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(session._cancel_on_signal, nursery.cancel_scope)
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()

    trio.run(interrupted)


def test_without_a_terminal_there_is_no_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with session.progress_bar("locking") as progress:
        assert progress is None
    assert capfd.readouterr() == ("", "")
