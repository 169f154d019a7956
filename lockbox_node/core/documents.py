"""Which network documents count, which to offer to whom, and what they say of a peer.

One newest document of each kind is kept: an older one never takes its place (a rollback), and of two of one version the
one with the greater digest stays everywhere. Who has the newest says so by versions alone; who is behind asks for it.
`Rules` is what follows for admission. What each document is: protocol.documents. Source: DESIGN, Identity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.core.regions import BUILT_IN, RegionTable
from protocol.documents import (
    KINDS,
    Document,
    Kind,
    Policy,
    Regions,
    Releases,
    Revocations,
    open_document,
    version_of,
)
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import DOCUMENTS_MAX, DocumentVersion, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.certificates import NetworkRoot


@dataclass(frozen=True, slots=True)
class Rules:
    """What the newest documents say. Without documents all are let in, with any software, in the built-in regions."""

    revoked: Mapping[bytes, str] = field(default_factory=dict)  # id -> reason
    releases: Mapping[bytes, int] = field(default_factory=dict)  # software -> until (unix s, 0 = without an end)
    settings: tuple[tuple[str, str], ...] = ()  # of the policy
    regions: RegionTable = BUILT_IN

    def refuses(self, software: bytes, now_unix_s: float) -> bool:
        """Whether a node with this software may only read."""
        if not self.releases:
            return False
        until = self.releases.get(software)
        return until is None or 0 < until <= now_unix_s


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class _Kept:
    signed: SignedDocument
    document: Document
    version: DocumentVersion


class Library:
    """The newest document of each kind. All of them were verified."""

    def __init__(self, root: NetworkRoot) -> None:
        self._root = root
        self._kept: dict[Kind, _Kept] = {}
        self._regions = BUILT_IN
        self.rules = NO_RULES

    def take(self, signed: SignedDocument) -> bool:
        """Keep a document if it is news; False when it stands already.

        RemoteProtocolError: as open_document, and STALE when it is older than what stands.
        """
        standing = next((kept for kept in self._kept.values() if kept.signed.kind == signed.kind), None)
        # What stands was verified, so that its bytes need not be again, whoever sends them how often.
        if standing is not None and hashlib.sha256(signed.body).digest() == standing.version.digest:
            return False
        document = open_document(signed, self._root.certificate)
        version = version_of(signed, document)
        if standing is not None and not is_newer(version, standing.version):
            raise RemoteProtocolError(
                f"version {standing.version.version} of this document stands here, and this is not newer",
                ErrorCode.STALE,
            )
        if isinstance(document, Regions):
            self._regions = RegionTable.of_places(document.entries)
        self._kept[KINDS[type(document)]] = _Kept(signed, document, version)
        self.rules = self._rules()
        return True

    def all(self) -> list[SignedDocument]:
        """All that are kept, by kind."""
        return [self._kept[kind].signed for kind in sorted(self._kept)]

    def versions(self) -> list[DocumentVersion]:
        """What is kept, by kind: for others to compare."""
        return [self._kept[kind].version for kind in sorted(self._kept)]

    def newer_than(self, known: Iterable[DocumentVersion]) -> list[SignedDocument]:
        """What somebody who has these lacks, DOCUMENTS_MAX at most."""
        theirs = {version.kind: version for version in known}
        found = [
            self._kept[kind].signed
            for kind in sorted(self._kept)
            if kind not in theirs or is_newer(self._kept[kind].version, theirs[kind])
        ]
        return found[:DOCUMENTS_MAX]

    def lacks(self, offered: Iterable[DocumentVersion]) -> bool:
        """Whether somebody who has these has something newer, of a kind that is known here."""
        known = set(Kind)
        return any(
            version.kind in known
            and (Kind(version.kind) not in self._kept or is_newer(version, self._kept[Kind(version.kind)].version))
            for version in offered
        )

    def _rules(self) -> Rules:
        revoked: dict[bytes, str] = {}
        releases: dict[bytes, int] = {}
        settings: tuple[tuple[str, str], ...] = ()
        for kept in self._kept.values():
            document = kept.document
            if isinstance(document, Revocations):
                revoked = {entry.id: entry.reason for entry in document.entries}
            elif isinstance(document, Releases):
                releases = {entry.software: entry.until_unix_s for entry in document.entries}
            elif isinstance(document, Policy):
                settings = tuple((entry.key, entry.value) for entry in document.entries)
        return Rules(revoked, releases, settings, self._regions)


def is_newer(one: DocumentVersion, other: DocumentVersion) -> bool:
    """Whether `one` takes the place of `other`, of the same kind."""
    return (one.version, one.digest) > (other.version, other.digest)
