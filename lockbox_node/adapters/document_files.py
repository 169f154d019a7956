"""Network documents as files: one per kind in `network/` of a node, and with the authority.

A file is the SignedDocument as it travels. It is replaced whole and durably; nothing in it is believed before the
root's signature was checked, so files may be put there by hand. A damaged or too large file is as good as none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from lockbox_node.adapters.keystores import write_public
from lockbox_node.core.documents import Library, Rules
from lockbox_node.errors import ConfigError
from protocol.documents import Kind
from protocol.errors import RemoteProtocolError
from protocol.messages import DOCUMENT_BYTES_MAX, UNDECODABLE, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from protocol.certificates import NetworkRoot

FILE_BYTES_MAX = DOCUMENT_BYTES_MAX + 1024
SUFFIX = ".doc"

log = structlog.get_logger(__name__)


def file_of(directory: Path, kind: Kind) -> Path:
    """Where the document of a kind is kept."""
    return directory / f"{kind.name.lower()}{SUFFIX}"


def load_documents(directory: Path) -> list[SignedDocument]:
    """What is kept there, unverified, by kind. What cannot be read is left out and logged."""
    found = []
    for kind in Kind:
        path = file_of(directory, kind)
        try:
            with path.open("rb") as file:
                signed = msgspec.msgpack.decode(file.read(FILE_BYTES_MAX), type=SignedDocument)
        except FileNotFoundError:
            continue
        except (OSError, *UNDECODABLE):
            log.warning("documents.unreadable", kind=kind.name.lower())
            continue
        if signed.kind == kind:
            found.append(signed)
        else:
            log.warning("documents.unreadable", kind=kind.name.lower())
    return found


def load_rules(directory: Path, root: NetworkRoot) -> Rules:
    """What the documents that are kept there say. ConfigError when one does not hold."""
    library = Library(root)
    for signed in load_documents(directory):
        try:
            library.take(signed)
        except RemoteProtocolError as error:
            raise ConfigError(
                f"{directory} holds a bad document: {error}", "take it from the authority again"
            ) from None
    return library.rules


def save_documents(directory: Path, documents: Iterable[SignedDocument]) -> None:
    """Write each to its file, where it does not stand already. ConfigError when one cannot be written."""
    standing = load_documents(directory)
    for signed in documents:
        if signed not in standing:
            write_public(file_of(directory, Kind(signed.kind)), msgspec.msgpack.encode(signed))
