"""The manifest says exactly what was written and nothing else; a foreign directory stays as it is."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from lockbox_node.adapters import backup_set
from lockbox_node.adapters.backup_set import Manifest, Piece
from lockbox_node.errors import AssetNotFound, ConfigError, ExitCode, LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

PIECE = Piece("full-0001.db", 8192, "ab" * 32)
MANIFEST = Manifest(
    1, 2, "delta", "11" * 32, "a store", 7, 1_800_000_000, 12, 4, 320_000, Piece("shards.db", 8192, "cd" * 32), PIECE,
    Piece("delta-0002", 12, "ef" * 32), [Piece("node-0002/identity/key.pem", 32, "01" * 32)],
)  # fmt: skip


def ignore(_count: int) -> None:
    pass


def test_it_comes_back_as_it_was_and_people_can_read_it(tmp_path: Path) -> None:
    backup_set.save_manifest(tmp_path, MANIFEST)
    assert backup_set.load_manifest(tmp_path) == MANIFEST
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert said["manifest"]["made_unix_s"] == 1_800_000_000
    assert [piece.path for piece in MANIFEST.pieces] == ["full-0001.db", "delta-0002", "node-0002/identity/key.pem"]
    assert MANIFEST.restored_bytes == 2 * 8192 + 12 + 32 + 320_000
    assert not (tmp_path / "manifest.json.new").exists()


def test_every_changed_byte_is_seen(tmp_path: Path) -> None:
    raw = backup_set.encode_manifest(MANIFEST)
    for offset in range(len(raw)):
        changed = bytearray(raw)
        changed[offset] ^= 1
        (tmp_path / "manifest.json").write_bytes(changed)
        with pytest.raises(LockboxError) as refused:
            backup_set.load_manifest(tmp_path)
        assert refused.value.exit_code is ExitCode.CORRUPT


@pytest.mark.parametrize("path", ["/etc/passwd", "../key.pem", "node-0001/../../x", ""])
def test_it_names_nothing_outside_of_its_directory(path: str, tmp_path: Path) -> None:
    backup_set.save_manifest(tmp_path, msgspec.structs.replace(MANIFEST, files=[Piece(path, 1, "00" * 32)]))
    with pytest.raises(LockboxError, match="outside"):
        backup_set.load_manifest(tmp_path)


def test_a_later_format_wants_a_later_program(tmp_path: Path) -> None:
    backup_set.save_manifest(tmp_path, msgspec.structs.replace(MANIFEST, format=2))
    with pytest.raises(ConfigError, match="format 2"):
        backup_set.load_manifest(tmp_path)


def test_no_manifest_is_no_backup_and_with_a_marker_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(AssetNotFound):
        backup_set.load_manifest(tmp_path)
    backup_set.claim(tmp_path, "a store")
    with pytest.raises(LockboxError, match="no finished backup"):
        backup_set.load_manifest(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(LockboxError, match="cannot be read"):
        backup_set.load_manifest(tmp_path)


def test_a_directory_is_claimed_once_and_by_one_store(tmp_path: Path) -> None:
    backup_set.claim(tmp_path / "new" / "backup", "a store")
    backup_set.claim(tmp_path / "new" / "backup", "a store")
    with pytest.raises(UsageError, match="another store"):
        backup_set.claim(tmp_path / "new" / "backup", "another")
    with pytest.raises(UsageError, match="neither empty"):
        backup_set.claim(tmp_path, "a store")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "BACKUP.new").write_bytes(b"")
    backup_set.claim(tmp_path / "torn", "a store")


def test_numbers_are_never_used_twice_and_what_is_not_named_is_found(tmp_path: Path) -> None:
    backup_set.claim(tmp_path, "a store")
    assert backup_set.next_number(tmp_path) == 1
    for name in ("full-0001.db", "delta-0002", "delta-0007", "node-0002", "copy.db", "full-0008.db-wal", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "big").mkdir()
    backup_set.save_manifest(tmp_path, MANIFEST)
    assert backup_set.next_number(tmp_path) == 9
    stale = [path.name for path in backup_set.unnamed(tmp_path, MANIFEST)]
    assert stale == ["copy.db", "delta-0007", "full-0008.db-wal", "notes.txt"]


def test_a_copy_is_whole_private_and_measured(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "source").write_bytes(content)
    steps: list[int] = []
    copied = backup_set.copy_file(tmp_path / "source", tmp_path / "target", steps.append)
    assert copied == backup_set.measure(tmp_path / "target", ignore)
    assert (tmp_path / "target").read_bytes() == content
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o600
    assert sum(steps) == copied[0] == len(content)
    with pytest.raises(FileNotFoundError):
        backup_set.copy_file(tmp_path / "missing", tmp_path / "other", ignore)
    assert not (tmp_path / "other").exists()
    with pytest.raises(FileExistsError):
        backup_set.copy_file(tmp_path / "source", tmp_path / "target", ignore)


def test_what_went_wrong_with_a_large_part_does_not_name_its_asset(tmp_path: Path) -> None:
    large = OSError(errno.EIO, "Input/output error", str(tmp_path / "big" / "ab" / f"{'ab' * 32}-7"))
    said = str(backup_set.trouble(tmp_path, large))
    assert "ab" * 32 not in said
    assert "Input/output error" in said
    small = OSError(errno.EIO, "Input/output error", str(tmp_path / "identity" / "key.pem"))
    assert "key.pem" in str(backup_set.trouble(tmp_path, small))
