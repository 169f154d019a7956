"""The documents that the authority has signed: read from its directory, changed, signed as the next version.

They lie in `documents/` beside the root key. A version is above the last one and at least the seconds since 1970, so
that an authority that came back from an old copy of its directory does not sign a version twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.adapters.clock import SystemClock
from lockbox_node.adapters.document_files import load_documents, save_documents
from lockbox_node.core.documents import is_newer
from lockbox_node.core.policy import Governed
from lockbox_node.core.regions import BUILT_IN, MICRODEGREES, RegionTable
from lockbox_node.errors import ConfigError, LockboxError, UsageError
from protocol.documents import (
    CLASSES,
    Document,
    Kind,
    Place,
    Policy,
    Regions,
    Release,
    Releases,
    Revocation,
    Revocations,
    Setting,
    open_document,
    sign_document,
    version_of,
)
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from protocol.certificates import NetworkRoot
    from protocol.messages import SignedDocument

FOLDER = "documents"
TEXT_MAX = 64  # characters of a reason, a release's name, a setting


class Signing:
    """One authority's documents. Whoever changes them holds the lock of its directory."""

    def __init__(self, directory: Path, root: NetworkRoot, key: ec.EllipticCurvePrivateKey) -> None:
        """ConfigError when a document there is not the authority's."""
        self._folder = directory / FOLDER
        self._root = root
        self._key = key
        self._standing: dict[Kind, Document] = {}
        for signed in load_documents(self._folder):
            try:
                document = open_document(signed, root.certificate)
            except RemoteProtocolError as error:
                raise ConfigError(f"{self._folder} holds a bad document: {error}", "restore it from a copy") from None
            self._standing[Kind(signed.kind)] = document

    def sign_first(self) -> None:
        """One document of every kind: nobody revoked, any software, the regions as they are known here, no settings."""
        for kind in Kind:
            self._sign(kind, _places(BUILT_IN) if kind is Kind.REGIONS else [])

    def signed(self) -> list[SignedDocument]:
        """All of them, as they are handed out."""
        return load_documents(self._folder)

    def versions(self) -> dict[str, int]:
        """Kind -> version."""
        return {kind.name.lower(): document.version for kind, document in sorted(self._standing.items())}

    def revoked(self) -> dict[bytes, str]:
        """Id -> reason."""
        document = self._standing.get(Kind.REVOCATIONS)
        return {one.id: one.reason for one in document.entries} if isinstance(document, Revocations) else {}

    def revoke(self, peer: bytes, reason: str) -> bool:
        """Put an id on the list; False when it is there already."""
        _check_text("--reason", reason)
        if peer in self.revoked():
            return False
        document = self._standing.get(Kind.REVOCATIONS)
        entries: list[Revocation] = [*document.entries] if isinstance(document, Revocations) else []
        entries.append(Revocation(peer, int(SystemClock().now_unix_s()), reason))
        entries.sort(key=lambda one: one.id)
        self._sign(Kind.REVOCATIONS, entries)
        return True

    def release(self, software: bytes, name: str, until_unix_s: int) -> list[Release]:
        """Accept a software, or give it another end; all that are accepted then."""
        _check_text("--version", name)
        document = self._standing.get(Kind.RELEASES)
        entries = {one.software: one for one in document.entries} if isinstance(document, Releases) else {}
        entries[software] = Release(software, name, until_unix_s)
        released = [entries[one] for one in sorted(entries)]
        self._sign(Kind.RELEASES, released)
        return released

    def settings(self) -> dict[str, str]:
        """The policy as it stands."""
        document = self._standing.get(Kind.POLICY)
        return {one.key: one.value for one in document.entries} if isinstance(document, Policy) else {}

    def set_policy(self, words: Iterable[str]) -> dict[str, str]:
        """Change settings by KEY=VALUE; an empty value takes one away. The policy then. UsageError."""
        settings = self.settings()
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise UsageError(f"{word!r} is not KEY=VALUE", "for example hold-off=60")
            if value:
                check_setting(key, value)
                settings[key] = value
            else:
                settings.pop(key, None)
        self._sign(Kind.POLICY, [Setting(key, settings[key]) for key in sorted(settings)])
        return settings

    def regions(self) -> RegionTable:
        """The region table as it stands; the built-in one before there is another."""
        document = self._standing.get(Kind.REGIONS)
        return RegionTable.of_places(document.entries) if isinstance(document, Regions) else BUILT_IN

    def set_regions(self, table: RegionTable) -> bool:
        """Make this the table; False when it is already."""
        written = _places(table)
        document = self._standing.get(Kind.REGIONS)
        if isinstance(document, Regions) and document.entries == written:
            return False
        self._sign(Kind.REGIONS, written)
        return True

    def take(self, documents: Iterable[SignedDocument]) -> list[str]:
        """Keep what is newer than what stands: from the network, when this directory is an old copy. Their kinds."""
        taken = []
        standing = {signed.kind: signed for signed in self.signed()}
        for signed in documents:
            document = open_document(signed, self._root.certificate)
            kind, mine = Kind(signed.kind), standing.get(signed.kind)
            if mine is None or is_newer(version_of(signed, document), version_of(mine, self._standing[kind])):
                save_documents(self._folder, [signed])
                self._standing[kind] = document
                taken.append(kind.name.lower())
        return taken

    def _sign(self, kind: Kind, entries: Sequence[object]) -> None:
        standing, now = self._standing.get(kind), int(SystemClock().now_unix_s())
        version = max(now, 0 if standing is None else standing.version + 1)
        document = CLASSES[kind](version, now, list(entries))  # type: ignore[arg-type]
        try:
            save_documents(self._folder, [sign_document(document, self._key)])
        except LocalProtocolError as error:
            raise LockboxError(f"it cannot be signed: {error}", "the list is full", ErrorCode.TOO_LARGE) from None
        self._standing[kind] = document


def _places(table: RegionTable) -> list[Place]:
    return [
        Place(name, round(one.latitude * MICRODEGREES), round(one.longitude * MICRODEGREES))
        for name, one in sorted(table.regions.items())
    ]


def check_setting(key: str, value: str) -> None:
    """UsageError when a policy cannot say this."""
    try:
        Governed().under(key, value)
    except ConfigError as error:
        raise UsageError(error.message, error.hint) from None
    _check_text(key, value)


def _check_text(name: str, text: str) -> None:
    if not 1 <= len(text) <= TEXT_MAX:
        raise UsageError(f"{name} has {len(text)} characters", f"give 1 to {TEXT_MAX}")
