"""A restored node is the node that was backed up, or nothing; what it lacks is marked so that siblings are asked."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import pytest

from lockbox_node.adapters import backup_set, store_schema
from lockbox_node.adapters.store_restore import EPOCH_STEP
from lockbox_node.config import load
from lockbox_node.errors import AssetNotFound, ExitCode, LockboxError, UsageError
from tests.fakes.backed_up import (
    CLOCK,
    back_up,
    fill,
    held_in,
    meta_of,
    node_home,
    parts_of,
    restored,
    serving,
)
from tests.fakes.stripes import NOW_UNIX_S, FixedClock

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.store_backup import Sources

pytestmark = pytest.mark.real


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return node_home(tmp_path / "n01")


@pytest.fixture
def backup(sources: Sources, tmp_path: Path) -> Path:
    """A full backup and a delta of a node that holds numbers 2 to 11."""
    fill(sources.data_dir, range(9))
    back_up(sources, tmp_path / "backup")
    fill(sources.data_dir, range(9, 12), without=[0, 1])
    back_up(sources, tmp_path / "backup")
    return tmp_path / "backup"


def test_the_files_of_the_node_are_where_its_config_says(sources: Sources, backup: Path, tmp_path: Path) -> None:
    target = tmp_path / "n02"
    said = restored(backup, target)
    config = load(target / "node.toml")
    assert (config.node.data_dir, config.node.network) == (".", "network/network.pem")
    assert replace(config.node, data_dir="data", network="net/root.pem") == load(sources.config).node
    assert (said.config, said.listen) == (target / "node.toml", "192.0.2.1:7420")
    for name in ("identity/key.pem", "identity/node.pem", "STORE"):
        assert (target / name).read_bytes() == (sources.data_dir / name).read_bytes()
    assert (target / "network/network.pem").read_bytes() == sources.network.read_bytes()
    assert (target / "identity/key.pem").stat().st_mode & 0o777 == 0o600
    assert not (target / ".restoring").exists()


def test_it_outranks_the_node_that_it_was_copied_from_and_any_earlier_restore(
    sources: Sources, backup: Path, tmp_path: Path
) -> None:
    lived = meta_of(sources.data_dir)["epoch"]
    first = restored(backup, tmp_path / "n02", FixedClock(5.0))
    assert first.epoch >= lived + EPOCH_STEP
    later = restored(backup, tmp_path / "n03", FixedClock(NOW_UNIX_S))
    last = restored(backup, tmp_path / "n04", FixedClock(NOW_UNIX_S + 100))
    assert first.epoch < later.epoch < last.epoch
    assert meta_of(tmp_path / "n04")["epoch"] == last.epoch


async def test_the_store_runs_and_remembers_its_restore(backup: Path, tmp_path: Path) -> None:
    said = restored(backup, tmp_path / "n02", FixedClock(NOW_UNIX_S + 9))
    async with serving(tmp_path / "n02") as store:
        note = msgpack.unpackb(store.notes["restored"])
        assert note == {"unix_s": NOW_UNIX_S + 9, "backup_unix_s": NOW_UNIX_S}
        assert store.epoch == said.epoch + 1
        assert store.figures().stripes == 10
        assert store.figures().corrupt == 0


def test_a_large_file_that_is_missing_or_rotten_is_marked_and_the_rest_is_there(backup: Path, tmp_path: Path) -> None:
    gone, rotten = sorted((backup / "big").glob("*/*"))[:2]
    gone.unlink()
    flip(rotten, 5000)
    assert restored(backup, tmp_path / "n02").marked == 2
    lost = {bytes.fromhex(path.name.partition("-")[0]) for path in (gone, rotten)}
    assert held_in(tmp_path / "n02") == {key: part for key, part in parts_of(range(2, 12)).items() if key not in lost}
    assert meta_of(tmp_path / "n02")["corrupt"] == 2
    assert len(list((tmp_path / "n02" / "big").glob("*/*"))) == 1


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def refusal(backup: Path, target: Path) -> LockboxError:
    """The error of a restore that leaves nothing behind."""
    with pytest.raises(LockboxError) as refused:
        restored(backup, target)
    assert not target.exists() or not list(target.iterdir())
    return refused.value


def test_any_byte_of_any_piece_that_is_changed_refuses_the_whole(backup: Path, tmp_path: Path) -> None:
    manifest = backup_set.load_manifest(backup)
    for name in ["manifest.json", *(piece.path for piece in manifest.pieces)]:
        size = (backup / name).stat().st_size
        for offset in {0, 1, size // 3, size // 2, size - 1}:
            flip(backup / name, offset)
            error = refusal(backup, tmp_path / "n02")
            assert (error.exit_code, "nothing was restored" in error.message) == (ExitCode.CORRUPT, True), name
            assert name in error.message
            flip(backup / name, offset)
    restored(backup, tmp_path / "n02")


def test_any_piece_that_is_missing_or_cut_refuses_the_whole(backup: Path, tmp_path: Path) -> None:
    manifest = backup_set.load_manifest(backup)
    for name in ["manifest.json", *(piece.path for piece in manifest.pieces)]:
        kept = (backup / name).read_bytes()
        (backup / name).write_bytes(kept[:-1])
        assert refusal(backup, tmp_path / "n02").exit_code is ExitCode.CORRUPT
        (backup / name).unlink()
        assert refusal(backup, tmp_path / "n02").exit_code is ExitCode.CORRUPT
        (backup / name).write_bytes(kept)
    restored(backup, tmp_path / "n02")


def test_a_database_that_is_broken_inside_is_refused_though_every_hash_is_right(backup: Path, tmp_path: Path) -> None:
    manifest = backup_set.load_manifest(backup)
    path = backup / manifest.full.path
    with closing(store_schema.connect(path)) as connection:
        connection.execute(
            "PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE name = 'pointer_until'"
        ).fetchall()
    size, sha256 = backup_set.measure(path, lambda _count: None)
    full = backup_set.Piece(manifest.full.path, size, sha256)
    database = backup_set.Piece("shards.db", size, sha256)
    forged = backup_set.Manifest(
        **{name: getattr(manifest, name) for name in backup_set.Manifest.__struct_fields__}
        | {"full": full, "database": database, "delta": None}
    )
    backup_set.save_manifest(backup, forged)
    assert "database of the backup is damaged" in refusal(backup, tmp_path / "n02").message


def test_nothing_is_overwritten(backup: Path, sources: Sources, tmp_path: Path) -> None:
    restored(backup, tmp_path / "n02")
    for target, words in ((tmp_path / "n02", "a node already"), (sources.data_dir, "a node already")):
        before = sorted(target.rglob("*"))
        with pytest.raises(UsageError, match=words):
            restored(backup, target)
        assert sorted(target.rglob("*")) == before
    with pytest.raises(UsageError, match="in the backup itself"):
        restored(backup, backup / "n03")
    assert not (backup / "n03").exists()
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    restored(backup, tmp_path / "disk", CLOCK)


def test_a_directory_without_a_backup_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetNotFound):
        restored(tmp_path / "empty", tmp_path / "n02")


def test_a_disk_that_cannot_be_written_is_one_line(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LockboxError, match="file"):
        restored(backup, tmp_path / "file" / "n02")
    shutil.rmtree(backup / "big")
    assert restored(backup, tmp_path / "n02").marked == 3
