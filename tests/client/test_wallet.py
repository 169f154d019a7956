"""The wallet directory: made once, opened by its passphrase, indices that never repeat, names that people type."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lockbox_node.client.wallet import STATE_NAME, AssetEntry, Wallet, asset_id
from lockbox_node.client.words import master_of
from lockbox_node.errors import AssetNotFound, ConfigError, ExitCode, KeyStoreError, LockboxError, UsageError
from protocol.certificates import NetworkRoot
from protocol.errors import ErrorCode
from protocol.ids import Address
from protocol.issuing import Terms, build_root

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
    root = build_root(ec.derive_private_key(private_value, ec.SECP256R1()), "test", Terms(1, 0, 2_000_000_000))
    from protocol import issuing  # noqa: PLC0415

    return issuing_pem(root) if not hasattr(issuing, "pem_of") else issuing_pem(root)


def issuing_pem(der: bytes) -> bytes:
    """DER as PEM."""
    return NetworkRoot(der).certificate.public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.PEM)
