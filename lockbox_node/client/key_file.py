"""The master key at rest: sealed by the wallet passphrase.

Length of the header (u16 big-endian) || header (MessagePack) || suite byte || nonce || ciphertext || tag. The key is
Argon2id (RFC 9106) of the passphrase with the salt and cost in the header, which is authenticated. SPEC.md, Wallet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from lockbox_node.client.chance import fresh
from lockbox_node.client.words import normalised
from lockbox_node.core.derivation import ARGON2_ITERATIONS, ARGON2_LANES, ARGON2_MEMORY_KIB, argon2_into
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
from lockbox_node.errors import ConfigError, KeyStoreError, LockboxError, UsageError
from protocol.errors import ErrorCode
from protocol.ids import NetworkId
from protocol.messages import Id32, Message, Nonce16

if TYPE_CHECKING:
    from lockbox_node.ports import Entropy

FORMAT = 1
_SUITE = SUITE_AES_GCM
_SALT_BYTES = 16
_HEADER_LENGTH_BYTES = 2


class KeyHeader(Message, frozen=True):
    """How the master key is sealed. The limits keep a damaged file from eating the machine."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    network: Id32
    memory_kib: Annotated[int, Meta(ge=8, le=4 * 1024 * 1024)]
    iterations: Annotated[int, Meta(ge=1, le=1000)]
    lanes: Annotated[int, Meta(ge=1, le=1)]
    salt: Nonce16


def seal_master(master: bytearray, passphrase: str, network_id: bytes, entropy: Entropy) -> bytes:
    """Length of the header (u16), header, master key sealed under the passphrase, as the file keeps it."""
    salt = bytes(fresh(_SALT_BYTES, entropy))
    header = KeyHeader(FORMAT, network_id, ARGON2_MEMORY_KIB, ARGON2_ITERATIONS, ARGON2_LANES, salt)
    raw = msgspec.msgpack.encode(header)
    sealed = bytearray(KEY_BYTES + OVERHEAD_BYTES[_SUITE])
    key = _passphrase_key(passphrase, header)
    try:
        nonce = bytes(fresh(NONCE_BYTES[_SUITE], entropy))
        seal_into(_SUITE, key, nonce, master, _associated_data(raw), sealed)
    finally:
        wipe(key)
    return len(raw).to_bytes(_HEADER_LENGTH_BYTES, "big") + raw + sealed


def open_master(file: bytes, passphrase: str) -> tuple[bytearray, NetworkId]:
    """The master key (the caller wipes it) and its network. ConfigError for a damaged file, KeyStoreError otherwise."""
    end = _HEADER_LENGTH_BYTES + int.from_bytes(file[:_HEADER_LENGTH_BYTES], "big")
    raw, sealed = file[_HEADER_LENGTH_BYTES:end], file[end:]
    try:
        header = msgspec.msgpack.decode(raw, type=KeyHeader)
    except msgspec.DecodeError:
        header = None
    if header is None or len(sealed) != KEY_BYTES + OVERHEAD_BYTES[_SUITE]:
        raise ConfigError("the wallet's key file is damaged", "make a new wallet with `lockbox recover`")
    master = bytearray(KEY_BYTES)
    key = _passphrase_key(passphrase, header)
    try:
        open_into(_SUITE, key, sealed, _associated_data(raw), master)
    except LockboxError:
        raise KeyStoreError(
            "that passphrase does not open this wallet",
            "try again; if it is forgotten, `lockbox recover` makes a new wallet from the words",
            ErrorCode.ACCESS_DENIED,
        ) from None
    finally:
        wipe(key)
    return master, NetworkId(header.network)


def check_passphrase(passphrase: str) -> None:
    """UsageError for what cannot be a wallet passphrase."""
    if not passphrase:
        raise UsageError("the wallet passphrase is empty", "choose one")
    normalised(passphrase)


def _associated_data(header: bytes) -> bytes:
    return prefixed(b"lockbox/1 wallet key", header)


def _passphrase_key(passphrase: str, header: KeyHeader) -> bytearray:
    check_passphrase(passphrase)
    secret, key = bytearray(normalised(passphrase), "utf-8"), bytearray(KEY_BYTES)
    try:
        argon2_into(secret, header.salt, header.memory_kib, header.iterations, header.lanes, key)
    finally:
        wipe(secret)
    return key
