"""The wallet directory: the sealed master key, the sealed list of assets, and how to reach the network.

The master key is sealed by a passphrase (Argon2id, AES-256-GCM, the header authenticated), the state by a key derived
from the master key. Files are 0600 in a directory of 0700 and replaced whole: written aside, synced, renamed, the
directory synced. Whoever changes the state holds the lock file and reads it again first, so that two processes never
use one index. Nothing here is needed to recover: 24 words and a bootstrap address are. SPEC.md, Wallet.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Meta

from lockbox_node.client.words import checked_recovery_passphrase, checked_words, master_of, normalised
from lockbox_node.core.derivation import (
    ARGON2_ITERATIONS,
    ARGON2_LANES,
    ARGON2_MEMORY_KIB,
    argon2_into,
    state_key_into,
)
from lockbox_node.core.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    SUITE_AES_GCM,
    open_into,
    prefixed,
    seal_into,
    wipe,
)
from lockbox_node.errors import AssetNotFound, ConfigError, KeyStoreError, LockboxError, UsageError
from protocol.certificates import NetworkRoot
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import U8, U63, Id32, Message, Nonce16

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from lockbox_node.ports import Entropy
    from protocol.ids import Address, NetworkId

KEY_NAME = "master.key"
STATE_NAME = "state"
NETWORK_NAME = "network.pem"
CERTIFICATE_NAME = "client.crt"
CLIENT_KEY_NAME = "client.key"
BOOTSTRAP_NAME = "bootstrap"
MEMBERS_NAME = "members"
LOCK_NAME = "lock"

FORMAT = 1
ASSET_ID_CHARS = 16
_SUITE = SUITE_AES_GCM
_SALT_BYTES = 16
_HEADER_LENGTH_BYTES = 2


class AssetEntry(Message, frozen=True):
    """What the wallet remembers of an asset. Convenience: recovery finds all of it in the network."""

    index: U63
    address: Id32
    label: str
    size: U63
    tier: U8
    created_unix_s: U63

    @property
    def asset_id(self) -> str:
        """The id that people see."""
        return asset_id(self.address)


class _State(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The sealed state. `next_index` was never used; `mark` is the highest mark that the network is known to hold."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    next_index: U63
    mark: U63
    assets: list[AssetEntry]


class _KeyHeader(Message, frozen=True):
    """How the master key is sealed. Authenticated with it; the limits keep a damaged file from eating the machine."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    network: Id32
    memory_kib: Annotated[int, Meta(ge=8, le=4 * 1024 * 1024)]
    iterations: Annotated[int, Meta(ge=1, le=1000)]
    lanes: Annotated[int, Meta(ge=1, le=1)]
    salt: Nonce16


def asset_id(address: bytes) -> str:
    """16 characters that people type: base32 of SHA-256("lockbox asset id" || address), in lower case."""
    digest = hashlib.sha256(b"lockbox asset id" + address).digest()
    return base64.b32encode(digest[:10]).decode().lower()


class Wallet:
    """An open wallet. `master` is its own buffer: use it, never keep it; `close` (or `with`) wipes it."""

    def __init__(self, path: Path, master: bytearray, network_id: NetworkId, entropy: Entropy) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.master = master
        self.network_id = network_id
        self._entropy = entropy

    @classmethod
    def create(
        cls,
        path: Path,
        words: str,
        recovery_passphrase: str,
        wallet_passphrase: str,
        network_pem: bytes,
        bootstrap: Sequence[str],
        certificate: bytes | None,
        key: bytes | None,
        entropy: Entropy,
    ) -> Wallet:
        """Make a wallet of `words` in `path`, whole or not at all. Takes 0.4 s.

        `certificate` and `key` are PEM; without them the wallet is a guest in its network. UsageError when something
        stands at `path` already, when words or a passphrase will not do; ConfigError for a wrong network file.
        """
        path = Path(os.path.abspath(path))
        _check_free(path)
        checked_words(words)
        checked_recovery_passphrase(recovery_passphrase)
        network_id = _network_of(network_pem)
        sealed = _seal_master_later(wallet_passphrase, network_id, entropy)
        master = master_of(words, recovery_passphrase, network_id)
        wallet = cls(path, master, network_id, entropy)
        try:
            files = {
                KEY_NAME: sealed(master),
                STATE_NAME: wallet._seal_state(_State(FORMAT, 0, 0, [])),
                NETWORK_NAME: network_pem,
                BOOTSTRAP_NAME: _lines(bootstrap),
                LOCK_NAME: b"",
            }
            if certificate is not None and key is not None:
                files |= {CERTIFICATE_NAME: certificate, CLIENT_KEY_NAME: key}
            _create_directory(path, files, entropy)
        except BaseException:
            wallet.close()
            raise
        return wallet
