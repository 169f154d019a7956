"""Private files, and the identity key in one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lockbox_node.adapters.keystores import (
    FileKeyStore,
    load_private_key,
    read_private,
    save_private_key,
    write_private,
    write_public,
)
from lockbox_node.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "identity" / "key.pem"
    save_private_key(path, ec.generate_private_key(ec.SECP256R1()))
    return path


async def test_what_it_signs_verifies_with_its_public_key(path: Path) -> None:
    keystore = FileKeyStore.load(path)
    public_key = serialization.load_der_public_key(await keystore.public_key())
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(await keystore.sign(b"message"), b"message", ec.ECDSA(hashes.SHA256()))


def test_a_key_file_and_its_directory_are_made_for_the_owner_only(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        FileKeyStore.load(path)
    assert f"chmod 600 {path}" in caught.value.hint
    assert caught.value.exit_code is ExitCode.CONFIG


def test_a_stricter_mode_is_fine(path: Path) -> None:
    path.chmod(0o400)
    FileKeyStore.load(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pem cannot be read: No such file"):
        FileKeyStore.load(tmp_path / "nothing.pem")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    write_private(path, content)
    with pytest.raises(ConfigError, match="does not hold a private key in PEM") as caught:
        load_private_key(path)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_a_key_of_another_kind_is_refused(
    tmp_path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    save_private_key(tmp_path / "key.pem", key)
    with pytest.raises(ConfigError, match="does not hold a P-256 key"):
        FileKeyStore.load(tmp_path / "key.pem")


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    write_private(tmp_path / "key.pem", pem)
    with pytest.raises(ConfigError, match="does not hold a private key"):
        FileKeyStore.load(tmp_path / "key.pem")


def test_a_key_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        save_private_key(path, ec.generate_private_key(ec.SECP256R1()))
    assert path.read_bytes() == before


def test_the_buffer_of_a_private_file_is_wiped_after_use(path: Path) -> None:
    with read_private(path) as content:
        assert content.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert not any(content)


def test_the_buffer_is_wiped_when_its_use_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), read_private(path) as content:
        raise ZeroDivisionError
    assert not any(content)


def test_a_public_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "list.json"
    write_public(path, b"one")
    write_public(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["list.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_public(tmp_path / "file" / "below", b"x")
