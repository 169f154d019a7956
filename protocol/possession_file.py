"""The file of a possession certificate: a line that says what it is, the certificate, the owner's seal on both.

There is one encoding of each certificate, and every byte of the file is covered by the seal or by what checks it.
Whether what it says holds is judged elsewhere (lockbox_node.core.possession). Source: SPEC.md, Possession certificates.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.fields import UNDECODABLE, Message
from protocol.possession import CERTIFICATE_BYTES_MAX, MAGIC, Certificate, Seal, SealedCertificate
from protocol.records import check_signature, parse, sign

if TYPE_CHECKING:
    from protocol.records import Signer

T = TypeVar("T", bound=Message)


def sealed(certificate: Certificate, public_key: bytes, key: Signer) -> bytes:
    """The bytes of the file. `key` is the asset key of the first stripe. LocalProtocolError when limits are broken."""
    body = msgspec.msgpack.encode(certificate)
    try:
        msgspec.msgpack.decode(body, type=Certificate)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"cannot seal this certificate: {error}") from None
    seal = sign(Seal(public_key, _digest(body)), key)
    return MAGIC + msgspec.msgpack.encode(SealedCertificate(body, seal))


def unsealed(file: bytes) -> tuple[Certificate, bytes]:
    """The certificate in a file, and the public key that sealed it.

    RemoteProtocolError unless it is one file of this format, to the last byte, and the seal holds.
    """
    if not file.startswith(MAGIC):
        raise RemoteProtocolError("this is not a possession certificate")
    if len(file) > CERTIFICATE_BYTES_MAX:
        raise RemoteProtocolError("this is larger than any possession certificate")
    outer = _decoded(file[len(MAGIC) :], SealedCertificate)
    seal = parse(outer.seal, Seal)
    if seal.digest != _digest(outer.body):
        raise RemoteProtocolError("the certificate is not the one that its owner sealed")
    check_signature(outer.seal, Seal, seal.public_key)
    return _decoded(outer.body, Certificate), seal.public_key


def file_digest(file: bytes) -> bytes:
    """How a later certificate names this one."""
    return hashlib.sha256(file).digest()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(MAGIC + body).digest()


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        found = msgspec.msgpack.decode(body, type=kind)
    except UNDECODABLE:
        raise RemoteProtocolError("the certificate is cut short or damaged") from None
    if msgspec.msgpack.encode(found) != body:
        raise RemoteProtocolError("the certificate is in another encoding than ours")
    return found
