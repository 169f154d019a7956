"""The directory of a backup: its names, its manifest, and the few file operations that make it durable.

`manifest.json` names every other piece with its size and SHA-256 and is renamed into place last, so a backup that was
cut short is never taken for one: what no manifest names is rubbish that the next run removes. Names of pieces are
never used twice. The manifest carries a digest of itself and must be byte for byte what it encodes to. Large parts
(`big/`) are not listed one by one: the database names them, and each is compared with what its owner signed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from lockbox_node.adapters.disk import DISK
from lockbox_node.errors import AssetNotFound, ConfigError, LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

FORMAT = 1
MARKER, MANIFEST, BIG = "BACKUP", "manifest.json", "big"
CONFIG, NETWORK, IDENTITY = "node.toml", "network/network.pem", "identity"
CHUNK_BYTES = 1024 * 1024
MANIFEST_BYTES_MAX = 1024 * 1024
_HINT_OTHER = "restore from another backup"
_NUMBERED = re.compile(r"(?:full|delta|node)-(\d{1,9})(?:\.db)?(?:\..*|-wal|-shm)?")

Advance = Callable[[int], None]
"""Called after each bounded step with the bytes that it did; may raise to end the run."""


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a backup, by its path below the directory."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one finished backup holds. `database` is what full and delta give together."""

    format: int
    number: int
    kind: str
    node: str
    store: str
    epoch: int
    made_unix_s: int
    parts: int
    big_files: int
    big_bytes: int
    database: Piece
    full: Piece
    delta: Piece | None
    files: list[Piece]

    @property
    def pieces(self) -> list[Piece]:
        """Every file that the manifest answers for."""
        return [self.full, *([self.delta] if self.delta else []), *self.files]

    @property
    def restored_bytes(self) -> int:
        """What a restore goes through, about: every piece, the whole database once more, the large parts."""
        return sum(piece.size for piece in self.pieces) + self.database.size + self.big_bytes


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: Manifest
    sha256: str


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json, for people to read too."""
    digest = hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()
    return msgspec.json.format(msgspec.json.encode(_Sealed(manifest, digest)), indent=1) + b"\n"


def load_manifest(directory: Path) -> Manifest:
    """The manifest of a finished backup. AssetNotFound when there is none, LockboxError (exit 6) when it is damaged."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            raw = file.read(MANIFEST_BYTES_MAX)
    except FileNotFoundError:
        if (directory / MARKER).exists():
            raise damaged(f"{directory} holds no finished backup: {MANIFEST} is missing") from None
        raise AssetNotFound(f"{directory} is no backup", "give the DIR of `lockbox-node backup DIR`") from None
    except OSError as error:
        raise trouble(path, error, "read") from None
    try:
        manifest = msgspec.json.decode(raw, type=_Sealed).manifest
    except (msgspec.DecodeError, RecursionError):
        raise damaged(f"{path} is damaged") from None
    if encode_manifest(manifest) != raw:
        raise damaged(f"{path} is damaged")
    if manifest.format != FORMAT:
        raise ConfigError(f"{path} has format {manifest.format}, this program knows {FORMAT}", "use a later version")
    for piece in manifest.pieces:
        parts = PurePosixPath(piece.path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise damaged(f"{path} names a file outside of the backup")
    return manifest


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Rename the manifest into place; from then on the backup counts, and survives a power loss."""
    replace_file(directory / MANIFEST, encode_manifest(manifest))


def claim(directory: Path, store: str) -> None:
    """Make `directory` the home of the backups of one store, or find that it is. UsageError when it is something else.

    A directory that holds other things is never written to.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = directory / MARKER
    line = f"backup of store {store}\n"
    try:
        known = marker.read_text(errors="replace")
    except FileNotFoundError:
        if {entry.name for entry in os.scandir(directory)} - {f"{MARKER}.new", "lost+found"}:
            raise UsageError(
                f"{directory} is neither empty nor a backup", "give an empty directory, or that of an earlier backup"
            ) from None
        replace_file(marker, line.encode())
        return
    if known != line:
        raise UsageError(f"{directory} is the backup of another store", "give each node a directory of its own")


def next_number(directory: Path) -> int:
    """A number that no piece in the directory has, finished or not."""
    found = [match for entry in os.scandir(directory) if (match := _NUMBERED.fullmatch(entry.name))]
    return 1 + max((int(match[1]) for match in found), default=0)


def unnamed(directory: Path, manifest: Manifest) -> list[Path]:
    """What lies in the directory and belongs to no finished backup; files in `big/` are not looked at."""
    named = {MARKER, MANIFEST, BIG, "lost+found"} | {piece.path.partition("/")[0] for piece in manifest.pieces}
    return sorted(directory / entry.name for entry in os.scandir(directory) if entry.name not in named)


# File operations


def replace_file(path: Path, content: bytes) -> None:
    """Write, flush, rename, flush the directory."""
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
    DISK.flush_directory(path.parent)


def chunks_of(file: FileIO) -> Iterator[memoryview]:
    """The bytes of an open file, a chunk at a time, in a buffer that is used again and wiped at the end."""
    buffer = bytearray(CHUNK_BYTES)
    try:
        while count := file.readinto(buffer):
            yield memoryview(buffer)[:count]
    finally:
        buffer[:] = bytes(len(buffer))


def copy_file(source: Path, target: Path, advance: Advance) -> tuple[int, str]:
    """Copy into a new file of mode 0600 and flush it: (size, SHA-256 as hex). Its name is not flushed.

    FileNotFoundError before anything is made when there is no `source`.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb", buffering=0) as file:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for chunk in chunks_of(file):
                digest.update(chunk)
                size += len(chunk)
                write_whole(descriptor, chunk)
                advance(len(chunk))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return size, digest.hexdigest()


def write_whole(descriptor: int, content: memoryview) -> None:
    """Write all of `content`."""
    while content:
        content = content[os.write(descriptor, content) :]


def measure(path: Path, advance: Advance) -> tuple[int, str]:
    """(size, SHA-256 as hex) of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        for chunk in chunks_of(file):
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    return size, digest.hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file that others wrote."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(what: str) -> LockboxError:
    """The refusal of a backup that is not whole: exit 6."""
    return LockboxError(f"{what}; nothing was restored", _HINT_OTHER, ErrorCode.METADATA_CORRUPT)


def trouble(path: Path, error: OSError, verb: str = "written") -> LockboxError:
    """An OSError in words; of a large part only the directory is told, for its name says whose it is."""
    at = error.filename if isinstance(error.filename, str) and f"/{BIG}/" not in error.filename else path
    return LockboxError(
        f"{at} cannot be {verb}: {error.strerror}",
        "the disk may be full, or the directory may not be one that the node may write to",
    )
