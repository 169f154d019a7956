"""The sealed master key: the right passphrase alone opens it, and every byte of the file counts."""

from __future__ import annotations

import random

import msgspec
import pytest

from lockbox_node.client.key_file import FORMAT, KeyHeader, check_passphrase, open_master, seal_master
from lockbox_node.errors import ConfigError, ExitCode, KeyStoreError, LockboxError, UsageError
from protocol.errors import ErrorCode

MASTER = bytes(range(32))
NETWORK = b"n" * 32
PASSPHRASE = "open sesame"


class Seeded:
    """Chance that repeats."""

    def __init__(self) -> None:
        self._rng = random.Random(1)

    def fill(self, buffer: bytearray | memoryview) -> None:
        """The next bytes."""
        buffer[:] = self._rng.randbytes(len(buffer))


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """A key file."""
    return seal_master(bytearray(MASTER), PASSPHRASE, NETWORK, Seeded())


def test_the_passphrase_gives_back_key_and_network(sealed: bytes) -> None:
    master, network = open_master(sealed, PASSPHRASE)
    assert (bytes(master), bytes(network)) == (MASTER, NETWORK)
    assert MASTER not in sealed


def test_the_cost_is_kept_with_the_file(sealed: bytes) -> None:
    header = msgspec.msgpack.decode(sealed[2 : 2 + int.from_bytes(sealed[:2], "big")], type=KeyHeader)
    assert (header.format, header.memory_kib, header.iterations, header.lanes) == (FORMAT, 64 * 1024, 4, 1)


def test_another_passphrase_is_refused(sealed: bytes) -> None:
    with pytest.raises(KeyStoreError, match="that passphrase does not open this wallet") as caught:
        open_master(sealed, PASSPHRASE + "!")
    assert caught.value.code is ErrorCode.ACCESS_DENIED
    assert caught.value.exit_code is ExitCode.REFUSED
    assert "sesame" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("place", [0, 1, 2, 3, 10, 40, -61, -50, -1])
def test_an_altered_file_does_not_open(sealed: bytes, place: int) -> None:
    altered = bytearray(sealed)
    altered[place] ^= 1
    with pytest.raises(LockboxError):
        open_master(bytes(altered), PASSPHRASE)


@pytest.mark.parametrize("cut", [0, 1, 20, 100])
def test_a_cut_file_is_called_damaged(sealed: bytes, cut: int) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        open_master(sealed[:cut], PASSPHRASE)


@pytest.mark.parametrize("change", [{"memory_kib": 2**40}, {"iterations": 10**9}, {"lanes": 8}, {"format": 2}], ids=str)
def test_a_file_that_asks_for_too_much_is_not_obeyed(sealed: bytes, change: dict[str, int]) -> None:
    end = 2 + int.from_bytes(sealed[:2], "big")
    header = msgspec.structs.replace(msgspec.msgpack.decode(sealed[2:end], type=KeyHeader), **change)
    raw = msgspec.msgpack.encode(header)
    with pytest.raises(ConfigError, match="damaged"):
        open_master(len(raw).to_bytes(2, "big") + raw + sealed[end:], PASSPHRASE)


@pytest.mark.parametrize("passphrase", ["", "\udc80"])
def test_what_cannot_be_a_passphrase_is_wrong_usage(passphrase: str) -> None:
    with pytest.raises(UsageError):
        check_passphrase(passphrase)
