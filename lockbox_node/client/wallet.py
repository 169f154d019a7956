"""The wallet directory: the sealed master key, the sealed list of assets, and how to reach the network.

The master key is sealed by a passphrase (Argon2id, AES-256-GCM, the header authenticated), the state by a key derived
from the master key. Files are 0600 in a directory of 0700 and replaced whole: written aside, synced, renamed, the
directory synced. Whoever changes the state holds the lock file and reads it again first, so that two processes never
use one index. Nothing here is needed to recover: 24 words and a bootstrap address are. SPEC.md, Wallet.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from lockbox_node.client.burials import Burial
from lockbox_node.client.chance import fresh
from lockbox_node.client.key_file import check_passphrase, open_master, seal_master
from lockbox_node.client.listing import merged, named, order_of
from lockbox_node.client.wallet_files import (
    LOCK_NAME,
    check_free,
    create_directory,
    locked,
    read_file,
    replace_file,
)
from lockbox_node.core.derivation import state_key_into
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
from lockbox_node.errors import ConfigError, LockboxError, UsageError
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import ID_BYTES, Address
from protocol.messages import U8, U63, Id32, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from lockbox_node.ports import Entropy
    from protocol.ids import NetworkId

KEY_NAME = "master.key"
STATE_NAME = "state"
NETWORK_NAME = "network.pem"
CERTIFICATE_NAME = "client.crt"
CLIENT_KEY_NAME = "client.key"
BOOTSTRAP_NAME = "bootstrap"
MEMBERS_NAME = "members"

FORMAT = 1
_SUITE = SUITE_AES_GCM
_STATE_BYTES = 1024  # more than one asset takes, and more than the rest takes


class AssetEntry(Message, frozen=True):
    """What the wallet remembers of an asset. Convenience: recovery finds all of it in the network."""

    index: U63
    address: Annotated[Address, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    version: U63
    tier: U8
    size: U63
    label: str
    created_unix_s: U63
    lease_until_unix_s: U63
    descriptor_hash: Id32  # of the root stripe
    sibling: bool = False  # another asset stands or stood at this address

    @property
    def asset_id(self) -> str:
        """The id that people see."""
        return self.sibling_id if self.sibling else asset_id(self.address)

    @property
    def sibling_id(self) -> str:
        """The id that tells it from siblings, which share its address; it is known by it in every wallet."""
        return f"{asset_id(self.address)}-{_typed(self.descriptor_hash)[:6]}"


class _State(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The sealed state. `next_index` was never used; `mark` is the highest mark that the network is known to hold."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    next_index: U63
    mark: U63
    assets: list[AssetEntry]
    burials: list[Burial] = []


def asset_id(address: bytes) -> str:
    """16 characters that people type: base32 of SHA-256("lockbox asset id" || address), in lower case."""
    return _typed(hashlib.sha256(b"lockbox asset id" + address).digest())


def _typed(digest: bytes) -> str:
    return base64.b32encode(digest[:10]).decode().lower()


class Wallet:
    """An open wallet. `master` is its own buffer: use it, never keep it; `close` (or `with`) wipes it."""

    def __init__(self, path: Path, master: bytearray, network_id: NetworkId, entropy: Entropy) -> None:
        """For `create` and `open`."""
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

        `certificate` and `key` are PEM, or both None for a guest. UsageError when something stands at `path` already
        or when words or a passphrase will not do; ConfigError for a wrong network file.
        """
        assert (certificate is None) == (key is None)
        path = Path(os.path.abspath(path))
        check_free(path)
        network_id = _network_of(network_pem)
        check_passphrase(wallet_passphrase)  # before the slow part
        from lockbox_node.client.words import master_of  # slow to import, and the others do without

        wallet = cls(path, master_of(words, recovery_passphrase, network_id), network_id, entropy)
        try:
            files = {
                KEY_NAME: seal_master(wallet.master, wallet_passphrase, network_id, entropy),
                STATE_NAME: wallet._seal(_State(FORMAT, 0, 0, [])),
                NETWORK_NAME: network_pem,
                BOOTSTRAP_NAME: _lines(bootstrap),
                LOCK_NAME: b"",
            }
            if certificate is not None and key is not None:
                files |= {CERTIFICATE_NAME: certificate, CLIENT_KEY_NAME: key}
            create_directory(path, files, fresh(4, entropy).hex())
        except BaseException:
            wallet.close()
            raise
        return wallet

    @classmethod
    def open(cls, path: Path, passphrase: str, entropy: Entropy) -> Wallet:
        """Open the wallet in `path`. Takes 0.2 s.

        ConfigError when there is none, KeyStoreError (ACCESS_DENIED) for the wrong passphrase, METADATA_CORRUPT when
        its list is damaged.
        """
        sealed = read_file(path / KEY_NAME)
        if sealed is None:
            raise ConfigError(f"there is no wallet in {path}", "make one with `lockbox init`, or give --wallet")
        master, network_id = open_master(sealed, passphrase)
        wallet = cls(path, master, network_id, entropy)
        try:
            wallet._load()
        except BaseException:
            wallet.close()
            raise
        return wallet

    def close(self) -> None:
        """Wipe the master key."""
        wipe(self.master)

    def __enter__(self) -> Wallet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check_words(self, words: str, recovery_passphrase: str) -> None:
        """UsageError unless this wallet was made of these words and recovery passphrase. Takes 0.1 s."""
        from lockbox_node.client.words import master_of

        theirs = master_of(words, recovery_passphrase, self.network_id)
        try:
            if not hmac.compare_digest(theirs, self.master):
                raise UsageError(
                    f"{self.path} exists already and is the wallet of other words or another recovery passphrase",
                    "a wallet is never overwritten: choose another place with --wallet",
                )
        finally:
            wipe(theirs)

    def change_passphrase(self, passphrase: str) -> None:
        """Seal the master key by another passphrase. Words, recovery passphrase and assets stay as they are."""
        sealed = seal_master(self.master, passphrase, self.network_id, self._entropy)
        self._replace(KEY_NAME, sealed)

    # The network

    @property
    def network_file(self) -> Path:
        """The wallet's copy of network.pem. ConfigError unless it is of the network that the wallet was made for."""
        path = self.path / NETWORK_NAME
        if _network_of(read_file(path) or b"") != self.network_id:
            raise ConfigError(
                f"{path} is of another network than this wallet",
                "put back the network.pem that the wallet was made with",
            )
        return path

    @property
    def credential(self) -> tuple[Path, Path] | None:
        """The files of the client certificate and its key; None for a guest."""
        certificate, key = self.path / CERTIFICATE_NAME, self.path / CLIENT_KEY_NAME
        return (certificate, key) if certificate.exists() and key.exists() else None

    def save_credential(self, certificate: bytes, key: bytes) -> None:
        """Keep a client certificate and its key (PEM): a guest becomes a client, a certificate is renewed."""
        with locked(self.path):
            replace_file(self.path / CLIENT_KEY_NAME, key)
            replace_file(self.path / CERTIFICATE_NAME, certificate)

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses ("host:port") to join by."""
        return tuple((read_file(self.path / BOOTSTRAP_NAME) or b"").decode("utf-8", "replace").split())

    def save_bootstrap(self, addresses: Sequence[str]) -> None:
        """Replace the addresses to join by."""
        self._replace(BOOTSTRAP_NAME, _lines(addresses))

    def load_members(self) -> bytes:
        """What `save_members` kept; empty when there is nothing."""
        return read_file(self.path / MEMBERS_NAME) or b""

    def save_members(self, members: bytes) -> None:
        """Keep the members that were seen, as opaque bytes. Whoever loads them verifies them."""
        self._replace(MEMBERS_NAME, members)

    # Assets

    @property
    def next_index(self) -> int:
        """The lowest asset index that was never reserved here."""
        return self._load().next_index

    @property
    def mark(self) -> int:
        """The highest high-water mark that the network is known to hold: indices below it are announced."""
        return self._load().mark

    def reserve_indices(self, count: int = 1) -> range:
        """`count` asset indices that nobody else ever gets from this directory: durable before they are returned."""
        assert count >= 1
        with self._changing() as state:
            first = state.next_index
            state.next_index += count
        return range(first, first + count)

    def skip_indices(self, next_index: int) -> None:
        """Never reserve an index below `next_index` (found in use by recovery)."""
        with self._changing() as state:
            state.next_index = max(state.next_index, next_index)

    def raise_mark(self, mark: int) -> None:
        """The network holds this high-water mark now; it never falls."""
        with self._changing() as state:
            state.mark = max(state.mark, mark)

    def remember(self, *assets: AssetEntry) -> None:
        """Add assets, or replace what is known of them. One write for all."""
        with self._changing() as state:
            state.assets = merged(state.assets, assets)

    def forget(self, address: bytes) -> None:
        """Remove what stands at `address` and its burial from the lists; nothing when nothing is there."""
        with self._changing() as state:
            state.assets = [known for known in state.assets if known.address != address]
            state.burials = [known for known in state.burials if known.address != address]

    def bury(self, burial: Burial) -> None:
        """Remember that an asset is being deleted, until `unbury` or `forget`."""
        with self._changing() as state:
            state.burials = [*(known for known in state.burials if known.address != burial.address), burial]

    def unbury(self, address: bytes) -> None:
        """Nothing was deleted after all."""
        with self._changing() as state:
            state.burials = [known for known in state.burials if known.address != address]

    def burials(self) -> dict[bytes, Burial]:
        """Deletions that some holder has not confirmed, by address."""
        return {burial.address: burial for burial in self._load().burials}

    def assets(self) -> list[AssetEntry]:
        """All remembered assets, by index."""
        return sorted(self._load().assets, key=order_of)

    def find(self, name: str) -> AssetEntry:
        """The asset that a person means. AssetNotFound, UsageError when there are several."""
        return named(self._load().assets, name)

    # Files

    def _replace(self, name: str, content: bytes) -> None:
        with locked(self.path):
            replace_file(self.path / name, content)

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        """The state as it stands on disk, under the lock; saved when the block ends well."""
        with locked(self.path):
            state = self._load()
            yield state
            replace_file(self.path / STATE_NAME, self._seal(state))

    def _load(self) -> _State:
        sealed = read_file(self.path / STATE_NAME) or b""
        body = bytearray(max(0, len(sealed) - OVERHEAD_BYTES[_SUITE]))
        key = bytearray(KEY_BYTES)
        try:
            state_key_into(self.master, key)
            open_into(_SUITE, key, sealed, self._associated_data(), body)
            return msgspec.msgpack.decode(body, type=_State)
        except (LockboxError, msgspec.DecodeError):
            raise LockboxError(
                "the wallet's list of assets is damaged",
                "make a new wallet with `lockbox recover`: it finds every asset in the network",
                ErrorCode.METADATA_CORRUPT,
            ) from None
        finally:
            wipe(key)
            wipe(body)

    def _seal(self, state: _State) -> bytes:
        # Of full size from the start: growing would leave copies of it behind.
        room = _STATE_BYTES * (1 + len(state.assets) + sum(1 + len(one.holders) // 16 for one in state.burials))
        body, key = bytearray(room), bytearray(KEY_BYTES)
        try:
            msgspec.msgpack.Encoder().encode_into(state, body)
            sealed = bytearray(len(body) + OVERHEAD_BYTES[_SUITE])
            state_key_into(self.master, key)
            nonce = bytes(fresh(NONCE_BYTES[_SUITE], self._entropy))
            seal_into(_SUITE, key, nonce, body, self._associated_data(), sealed)
        finally:
            wipe(key)
            wipe(body)
        return bytes(sealed)

    def _associated_data(self) -> bytes:
        return prefixed(b"lockbox/1 wallet state", self.network_id)


def _network_of(network_pem: bytes) -> NetworkId:
    """The network id of network.pem, whose first certificate is the root; ConfigError."""
    from cryptography import x509  # only what needs the network waits for these
    from cryptography.hazmat.primitives.serialization import Encoding

    from protocol.certificates import NetworkRoot

    try:
        root = x509.load_pem_x509_certificates(network_pem)[0]
        return NetworkRoot(root.public_bytes(Encoding.DER)).network_id
    except (ValueError, RemoteProtocolError):
        raise ConfigError(
            "the network file holds no root certificate", "get network.pem from the network's authority again"
        ) from None


def _lines(addresses: Sequence[str]) -> bytes:
    return "".join(f"{address}\n" for address in addresses).encode()
