"""The wallet directory: made once, opened by its passphrase, indices that never repeat, names that people type."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import ssl
import stat
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lockbox_node.client.wallet import STATE_NAME, AssetEntry, Wallet, asset_id
from lockbox_node.client.words import master_of
from lockbox_node.core.derivation import state_key_into
from lockbox_node.core.sealing import OVERHEAD_BYTES, SUITE_AES_GCM, prefixed, seal_into
from lockbox_node.errors import AssetNotFound, ConfigError, ExitCode, KeyStoreError, LockboxError, UsageError
from protocol.certificates import NetworkRoot
from protocol.errors import ErrorCode
from protocol.ids import Address
from protocol.issuing import Terms, build_root

if TYPE_CHECKING:
    from pathlib import Path

WORDS = "zoo " * 23 + "vote"
RECOVERY = "correct horse battery"
PASSPHRASE = "open sesame"
BOOTSTRAP = ("127.1.1.1:7420", "node.example:7420")

RESERVE = """
import sys
from pathlib import Path
from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.client.wallet import Wallet
with Wallet.open(Path(sys.argv[1]), sys.argv[2], OsEntropy()) as wallet:
    for _ in range(25):
        print(wallet.reserve_indices()[0])
"""


class Seeded:
    """Chance that repeats."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)

    def fill(self, buffer: bytearray | memoryview) -> None:
        """The next bytes."""
        buffer[:] = self._rng.randbytes(len(buffer))


def network_pem(private_value: int = 7) -> bytes:
    """A network file, as far as a wallet reads it."""
    key = ec.derive_private_key(private_value, ec.SECP256R1())
    return ssl.DER_cert_to_PEM_cert(build_root(key, "test", Terms(1, 0, 2_000_000_000))).encode()


def make(path: Path, **changes: object) -> Wallet:
    """A new wallet of a client."""
    arguments: dict[str, object] = {
        "words": WORDS,
        "recovery_passphrase": RECOVERY,
        "wallet_passphrase": PASSPHRASE,
        "network_pem": network_pem(),
        "bootstrap": BOOTSTRAP,
        "certificate": b"certificate",
        "key": b"key",
        "entropy": Seeded(),
    }
    return Wallet.create(path, **{**arguments, **changes})  # type: ignore[arg-type]  # each test changes one of them


def asset(index: int, label: str = "") -> AssetEntry:
    """An asset at an address of its own."""
    return AssetEntry(index, Address(bytes([index]) * 32), 1, 1, 5000, label, 1_800_000_000, 1_900_000_000, b"d" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Wallet:
    """A wallet that nobody changes."""
    return make(tmp_path_factory.mktemp("made") / "wallet")


@pytest.fixture
def path(made: Wallet, tmp_path: Path) -> Path:
    """A copy of its directory."""
    shutil.copytree(made.path, tmp_path / "wallet")
    return tmp_path / "wallet"


@pytest.fixture
def wallet(made: Wallet, path: Path) -> Wallet:
    """The copy, open, without the time that opening takes."""
    return Wallet(path, bytearray(made.master), made.network_id, Seeded(2))


def test_a_wallet_opens_with_what_it_was_made_with(path: Path) -> None:
    wallet = Wallet.open(path, PASSPHRASE, Seeded())
    expected = NetworkRoot(ssl.PEM_cert_to_DER_cert(network_pem().decode())).network_id
    assert wallet.network_id == expected
    assert wallet.master == master_of(WORDS, RECOVERY, expected)
    assert wallet.network_file.read_bytes() == network_pem()
    assert wallet.bootstrap == BOOTSTRAP
    assert wallet.credential is not None
    assert [file.read_bytes() for file in wallet.credential] == [b"certificate", b"key"]
    assert (wallet.next_index, wallet.mark, wallet.assets(), wallet.load_members()) == (0, 0, [], b"")


def test_only_the_owner_may_read_it(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_nothing_at_rest_shows_key_words_or_labels(wallet: Wallet) -> None:
    wallet.remember(asset(1, "tax papers"))
    at_rest = b"".join(file.read_bytes() for file in wallet.path.iterdir())
    for secret in (bytes(wallet.master), b"zoo", RECOVERY.encode(), PASSPHRASE.encode(), b"tax papers", b"\1" * 32):
        assert secret not in at_rest


def test_closing_wipes_the_master_key(path: Path) -> None:
    opened = Wallet.open(path, PASSPHRASE, Seeded())
    opened.close()
    assert opened.master == bytes(32)


def test_another_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(KeyStoreError, match="does not open this wallet") as caught:
        Wallet.open(path, RECOVERY, Seeded())
    assert caught.value.exit_code is ExitCode.REFUSED
    assert caught.value.code is ErrorCode.ACCESS_DENIED


def test_where_there_is_no_wallet_the_configuration_is_at_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no wallet"):
        Wallet.open(tmp_path / "wallet", PASSPHRASE, Seeded())


@pytest.mark.parametrize("content", [network_pem(8), b"no certificate", b""], ids=["another", "none", "empty"])
def test_a_network_file_of_another_network_is_never_used(path: Path, content: bytes) -> None:
    (path / "network.pem").write_bytes(content)
    with Wallet.open(path, PASSPHRASE, Seeded()) as wallet, pytest.raises(ConfigError):
        print(wallet.network_file)


@pytest.mark.parametrize(
    "change",
    [
        {"recovery_passphrase": "short"},
        {"wallet_passphrase": ""},
        {"words": "abandon " * 24},
        {"network_pem": b"no certificate"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_will_not_do_leaves_no_wallet(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(LockboxError):
        make(tmp_path / "wallet", **change)
    assert not os.listdir(tmp_path)


def test_a_wallet_is_never_overwritten(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UsageError, match="exists already"):
        make(path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_wallet_that_cannot_be_written_is_not_left_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        make(tmp_path / "file" / "wallet")


def test_a_guest_becomes_a_client(tmp_path: Path) -> None:
    guest = make(tmp_path / "wallet", certificate=None, key=None)
    before = guest.credential
    guest.save_credential(b"new certificate", b"new key")
    assert before is None
    assert guest.credential is not None
    assert [file.read_bytes() for file in guest.credential] == [b"new certificate", b"new key"]


def test_another_passphrase_changes_nothing_else(wallet: Wallet) -> None:
    wallet.remember(asset(1))
    wallet.change_passphrase("another one")
    with pytest.raises(KeyStoreError):
        Wallet.open(wallet.path, PASSPHRASE, Seeded())
    with Wallet.open(wallet.path, "another one", Seeded()) as opened:
        assert opened.master == wallet.master
        assert opened.assets() == [asset(1)]


def test_addresses_and_members_are_kept(wallet: Wallet) -> None:
    wallet.save_bootstrap(["127.0.0.1:1"])
    wallet.save_members(b"\0members")
    assert wallet.bootstrap == ("127.0.0.1:1",)
    assert wallet.load_members() == b"\0members"


def test_indices_follow_one_another_over_openings(wallet: Wallet) -> None:
    assert list(wallet.reserve_indices()) == [0]
    assert list(wallet.reserve_indices(3)) == [1, 2, 3]
    with Wallet.open(wallet.path, PASSPHRASE, Seeded(3)) as other:
        assert list(other.reserve_indices()) == [4]
    assert list(wallet.reserve_indices()) == [5]
    with pytest.raises(AssertionError):
        wallet.reserve_indices(0)


def test_two_processes_never_take_one_index(wallet: Wallet) -> None:
    command = [sys.executable, "-c", RESERVE, str(wallet.path), PASSPHRASE]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [line for process in running for line in process.communicate()[0].split()]
    assert sorted(map(int, taken)) == list(range(50))
    assert wallet.next_index == 50


def test_skipped_indices_and_marks_never_fall(wallet: Wallet) -> None:
    wallet.skip_indices(20)
    wallet.skip_indices(10)
    wallet.raise_mark(32)
    wallet.raise_mark(16)
    assert (wallet.next_index, wallet.mark) == (20, 32)


def test_a_change_that_fails_changes_nothing(wallet: Wallet) -> None:
    wallet.remember(asset(1))
    with pytest.raises(UnicodeEncodeError):
        wallet.remember(asset(1, "\udc80"))
    assert wallet.assets() == [asset(1)]


def test_assets_are_listed_by_index_and_replaced_by_address(wallet: Wallet) -> None:
    wallet.remember(asset(2), asset(1, "old"))
    wallet.remember(asset(1, "new"))
    assert wallet.assets() == [asset(1, "new"), asset(2)]
    wallet.forget(asset(1).address)
    wallet.forget(asset(9).address)
    assert wallet.assets() == [asset(2)]


def test_a_wallet_that_was_written_before_there_were_siblings_is_read(wallet: Wallet) -> None:
    old = asset(1, "old")
    burial = [old.address, bytes(32), 3, 1, 1_800_000_000, [b"n" * 32]]
    body = msgspec.msgpack.encode([1, 5, 16, [list(msgspec.structs.astuple(old))[:9]], [burial]])
    key, sealed = bytearray(32), bytearray(len(body) + OVERHEAD_BYTES[SUITE_AES_GCM])
    state_key_into(wallet.master, key)
    context = prefixed(b"lockbox/1 wallet state", wallet.network_id)
    seal_into(SUITE_AES_GCM, key, bytes(12), bytearray(body), context, sealed)
    (wallet.path / STATE_NAME).write_bytes(sealed)

    assert (wallet.assets(), wallet.next_index, wallet.mark) == ([old], 5, 16)
    assert wallet.burials()[old.address].stripes == 3
    wallet.remember(asset(2))
    assert wallet.assets() == [old, asset(2)]


def test_siblings_are_kept_and_forgotten_together(wallet: Wallet) -> None:
    mine, other = asset(1, "mine"), msgspec.structs.replace(asset(1, "other"), descriptor_hash=b"e" * 32)
    wallet.remember(mine)
    wallet.remember(other)
    assert [known.label for known in wallet.assets()] == ["mine", "other"]
    assert wallet.find(mine.sibling_id).label == "mine"
    assert wallet.find(wallet.find("other").asset_id).label == "other"
    wallet.forget(mine.address)
    assert wallet.assets() == []


def test_many_assets_with_long_labels_are_kept(wallet: Wallet) -> None:
    known = [asset(index, "\N{SNOWMAN}" * 42) for index in range(200)]
    wallet.remember(*known)
    assert wallet.assets() == known


def test_an_asset_id_is_16_characters_of_its_address() -> None:
    digest = hashlib.sha256(b"lockbox asset id" + b"a" * 32).digest()
    assert asset_id(b"a" * 32) == base64.b32encode(digest)[:16].decode().lower()
    assert asset(1).asset_id == asset_id(b"\1" * 32)


def test_an_asset_is_found_by_id_label_or_the_start_of_its_id(wallet: Wallet) -> None:
    wallet.remember(asset(1, "one"), asset(2, "two"))
    wanted = asset(1, "one")
    assert wallet.find(wanted.asset_id) == wanted
    assert wallet.find(f" {wanted.asset_id.upper()} ") == wanted
    assert wallet.find(wanted.asset_id[:6]) == wanted
    assert wallet.find("one") == wanted


def test_a_label_goes_before_the_start_of_an_id(wallet: Wallet) -> None:
    label = asset(1).asset_id[:4]
    wallet.remember(asset(1), asset(2, label))
    assert wallet.find(label) == asset(2, label)


@pytest.mark.parametrize("name", ["", " ", "nothing"])
def test_what_is_not_there_is_not_found_and_not_repeated(wallet: Wallet, name: str) -> None:
    wallet.remember(asset(1))
    with pytest.raises(AssetNotFound) as caught:
        wallet.find(name)
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "nothing" not in caught.value.message + caught.value.hint


def test_a_name_of_several_assets_says_so(wallet: Wallet) -> None:
    wallet.remember(asset(1, "twice"), asset(2, "twice"), *(asset(index) for index in range(3, 60)))
    with pytest.raises(UsageError, match="names 2 assets"):
        wallet.find("twice")
    first = Counter(known.asset_id[0] for known in wallet.assets()).most_common(1)[0]
    with pytest.raises(UsageError, match=f"names {first[1]} assets"):
        wallet.find(first[0])


@pytest.mark.parametrize("content", [None, b"", b"short", b"\2" + bytes(200)])
def test_a_damaged_list_of_assets_is_told_and_nothing_is_left_open(path: Path, content: bytes | None) -> None:
    if content is None:
        (path / STATE_NAME).unlink()
    else:
        (path / STATE_NAME).write_bytes(content)
    with pytest.raises(LockboxError, match="list of assets is damaged") as caught:
        Wallet.open(path, PASSPHRASE, Seeded())
    assert caught.value.code is ErrorCode.METADATA_CORRUPT


REMEMBER = """
import sys
from pathlib import Path
from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.client.wallet import AssetEntry, Wallet
from protocol.ids import Address
with Wallet.open(Path(sys.argv[1]), sys.argv[2], OsEntropy()) as wallet:
    for number in range(10_000):
        index = wallet.reserve_indices()[0]
        address = Address(index.to_bytes(32, "big"))
        wallet.remember(AssetEntry(index, address, 1, 0, 1, "a label " * 8, 1, 2, bytes(32)))
        print(index, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40])
def test_kill_9_while_the_wallet_is_written_loses_nothing_that_was_said_to_be_written(path: Path, after: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", REMEMBER, str(path), PASSPHRASE], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(after)]
    process.kill()
    said += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    with Wallet.open(path, PASSPHRASE, Seeded()) as wallet:
        assert [asset.index for asset in wallet.assets()][: len(said)] == said
        assert wallet.next_index > max(said)
        assert wallet.reserve_indices()[0] not in said


def test_a_wallet_knows_its_own_words(path: Path) -> None:
    with Wallet.open(path, PASSPHRASE, Seeded()) as wallet:
        wallet.check_words(WORDS, RECOVERY)
        with pytest.raises(UsageError, match="other words"):
            wallet.check_words(WORDS, RECOVERY + " ")
