"""Where the identity key lives: the KeyStore port over a file (P-256, PKCS#8 PEM, mode 0600).

A key that others can read is refused, not mended: it may have been copied already. Private files are made with their
mode from the start, synced, and never overwritten. The PEM passes through a buffer that is wiped.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockbox_node.errors import ConfigError, KeyStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PRIVATE_MODE = 0o600
PRIVATE_BYTES_MAX = 16 * 1024


class FileKeyStore:
    """The KeyStore port over a P-256 key in a file."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @classmethod
    def load(cls, path: Path) -> FileKeyStore:
        """The key in `path`. ConfigError when it is missing, open to others, or no P-256 key."""
        key = load_private_key(path)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"{path} does not hold a P-256 key", "give the key that `lockbox-node init` made")
        return cls(key)

    async def public_key(self) -> bytes:
        """SPKI DER."""
        return self._spki

    async def sign(self, message: bytes) -> bytes:
        """ECDSA-P256-SHA256 signature, DER; 20 us."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


def load_private_key(path: Path) -> PrivateKeyTypes:
    """The unencrypted PEM key in `path`. ConfigError when it is missing, open to others, or no key."""
    with read_private(path) as pem:
        try:
            return serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # their words may quote the file
            raise ConfigError(f"{path} does not hold a private key in PEM", "restore it from its copy") from None


def save_private_key(path: Path, key: PrivateKeyTypes) -> None:
    """Write `key` as PKCS#8 PEM into a new file of mode 0600."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(path, pem)


@contextmanager
def read_private(path: Path) -> Iterator[bytearray]:
    """The bytes of a private file, wiped at the end of the block. ConfigError when others can read it."""
    content = bytearray(PRIVATE_BYTES_MAX)
    try:
        del content[_read_private_into(path, content) :]
        yield content
    finally:
        content[:] = bytes(len(content))


def _read_private_into(path: Path, buffer: bytearray) -> int:
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others", f"make a new key, or: chmod 600 {path}")
            return file.readinto(buffer) or 0
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check the path and its owner") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, durably. ConfigError when it exists or cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} exists already", "it is not overwritten; choose another directory") from None
    except OSError as error:
        raise KeyStoreError(f"{path} cannot be written: {error.strerror}", "check the disk and the directory") from None


def write_public(path: Path, content: bytes) -> None:
    """Replace `path` as a whole, durably: a reader sees the old or the new bytes. ConfigError when it cannot."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "check the disk and the directory") from None


def sync_directory(path: Path) -> None:
    """Make new names in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
