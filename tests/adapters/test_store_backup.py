"""A backup holds what was acknowledged before it, whatever happens meanwhile; a torn one is never taken for one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.adapters import backup_set
from lockbox_node.adapters.store_backup import Backup
from lockbox_node.errors import ExitCode, LockboxError, ShardCorrupt, UsageError
from tests.fakes.backed_up import (
    back_up,
    delete,
    fill,
    held_in,
    meta_of,
    node_home,
    parts_of,
    put,
    restored,
    serving,
)
from tests.fakes.stripes import NOW_UNIX_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lockbox_node.adapters.store_backup import Sources

pytestmark = pytest.mark.real


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return node_home(tmp_path / "n01")


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_everything_of_a_node_is_in_it_with_modes_of_a_secret(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(12))
    done = back_up(sources, tmp_path / "backup")
    assert (done.manifest.kind, done.manifest.parts, done.manifest.big_files) == ("full", 12, 4)
    assert (done.linked, done.copied, done.missing, done.same_disk) == (4, 0, 0, True)
    assert {piece.path for piece in done.manifest.files} == {
        f"node-0001/{name}"
        for name in ("node.toml", "network/network.pem", "STORE", "identity/key.pem", "identity/node.pem")
    }
    for path in (tmp_path / "backup").rglob("*"):
        if not path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    restored(tmp_path / "backup", tmp_path / "n02")
    assert held_in(tmp_path / "n02") == parts_of(range(12))


async def test_what_is_deleted_and_put_while_it_runs_changes_nothing_in_it(sources: Sources, tmp_path: Path) -> None:
    async with serving(sources.data_dir) as store:
        await put(store, range(600))  # more than one step of the copy
        changed = False

        async def change() -> None:
            await delete(store, range(0, 600, 2))
            await put(store, range(1000, 1030))
            await trio.sleep(0.2)  # housekeeping would remove the files of what was deleted by now

        def advance(_count: int) -> None:
            nonlocal changed
            if not changed:
                changed = True
                trio.from_thread.run(change)

        backup = Backup(sources, tmp_path / "backup", NOW_UNIX_S, advance, full=False)
        store.holds += 1
        await trio.to_thread.run_sync(backup.copy)
        store.holds -= 1
        done = await trio.to_thread.run_sync(backup.finish)
        assert changed
        assert (done.manifest.parts, done.missing) == (600, 0)
        await trio.sleep(0.3)
        assert len(list((sources.data_dir / "big").glob("*/*"))) == 110, "they go once nobody holds them"
    assert restored(tmp_path / "backup", tmp_path / "n02").marked == 0
    assert held_in(tmp_path / "n02") == parts_of(range(600))
    assert meta_of(tmp_path / "n02")["stripes"] == 600


@pytest.mark.slow
async def test_every_part_acknowledged_before_is_in_it_under_load(sources: Sources, tmp_path: Path) -> None:
    async with serving(sources.data_dir) as store:
        await put(store, range(1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, partial(put, store), partial(delete, store))
            await trio.sleep(0.1)
            for number in range(4):
                backup = Backup(sources, tmp_path / "backup", NOW_UNIX_S + number, lambda _count: None, full=False)
                store.holds += 1
                await trio.to_thread.run_sync(backup.copy)
                store.holds -= 1
                await trio.to_thread.run_sync(backup.finish)
            nursery.cancel_scope.cancel()
    assert restored(tmp_path / "backup", tmp_path / "n02").marked == 0
    held = held_in(tmp_path / "n02")
    assert meta_of(tmp_path / "n02")["stripes"] == len(held) > 1000
    assert {address: held.get(address) for address in parts_of(range(1000))} == parts_of(range(1000))


async def load(put_some: Callable[[range], object], delete_some: Callable[[range], object]) -> None:
    """Puts and deletes without end, beyond the first thousand."""
    for start in range(1000, 10**9, 20):
        await put_some(range(start, start + 20))  # type: ignore[misc]
        await delete_some(range(start - 40, start - 30) if start > 1040 else range(0))  # type: ignore[misc]


def test_a_later_run_writes_what_differs_and_gives_the_same_node(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(600))
    first = back_up(sources, tmp_path / "backup")
    fill(sources.data_dir, range(600, 610), without=range(6))
    second = back_up(sources, tmp_path / "backup", made=NOW_UNIX_S + 60)
    assert (first.manifest.kind, second.manifest.kind) == ("full", "delta")
    assert second.manifest.delta is not None
    assert second.manifest.delta.size < first.manifest.full.size / 2
    assert second.linked == 4  # of numbers 600 to 609
    third = back_up(sources, tmp_path / "backup", made=NOW_UNIX_S + 120)
    assert third.manifest.full == first.manifest.full
    assert restored(tmp_path / "backup", tmp_path / "n02").manifest == third.manifest
    assert held_in(tmp_path / "n02") == parts_of(range(6, 610)) == held_in(sources.data_dir)


def test_what_no_backup_names_any_more_is_removed(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(12))
    backup = tmp_path / "backup"
    back_up(sources, backup)
    back_up(sources, backup)
    fill(sources.data_dir, [], without=range(12))
    back_up(sources, backup)
    assert names_in(backup) == {"BACKUP", "manifest.json", "big", "full-0001.db", "delta-0003", "node-0003"}
    assert not list((backup / "big").glob("*/*"))
    done = back_up(sources, backup, full=True)
    assert (done.manifest.kind, done.why_full) == ("full", "asked for")
    assert names_in(backup) == {"BACKUP", "manifest.json", "big", "full-0004.db", "node-0004"}


def test_a_full_copy_that_rotted_or_went_is_made_anew(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(12))
    full = tmp_path / "backup" / "full-0001.db"
    back_up(sources, tmp_path / "backup")
    flip(full, 5000)
    assert back_up(sources, tmp_path / "backup").why_full == "the full copy is damaged"
    (tmp_path / "backup" / "full-0002.db").unlink()
    assert back_up(sources, tmp_path / "backup").why_full == "the full copy is missing"
    flip(tmp_path / "backup" / "manifest.json", 40)
    assert back_up(sources, tmp_path / "backup").why_full == "no earlier one is whole"
    restored(tmp_path / "backup", tmp_path / "n02")
    assert held_in(tmp_path / "n02") == parts_of(range(12))


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a writable /dev/shm on another file system than the temporary directory")
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


def test_large_files_are_copied_to_another_file_system_once(sources: Sources, elsewhere: Path, tmp_path: Path) -> None:
    fill(sources.data_dir, range(12))
    done = back_up(sources, elsewhere)
    assert (done.linked, done.copied, done.same_disk) == (0, 4, False)
    fill(sources.data_dir, range(12, 16))
    done = back_up(sources, elsewhere)
    assert (done.manifest.big_files, done.copied) == (6, 2)
    cut = next((elsewhere / "big").glob("*/*"))
    os.truncate(cut, 100)
    assert back_up(sources, elsewhere).copied == 1
    assert restored(elsewhere, tmp_path / "n02").marked == 0
    assert held_in(tmp_path / "n02") == parts_of(range(16))


def test_a_damaged_database_is_told_on_the_day_of_the_backup(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(60))
    back_up(sources, tmp_path / "backup")
    flip(sources.data_dir / "shards.db", 4096 * 12 + 100)
    with pytest.raises(ShardCorrupt):
        back_up(sources, tmp_path / "backup")
    restored(tmp_path / "backup", tmp_path / "n02")
    assert held_in(tmp_path / "n02") == parts_of(range(60))


def test_a_directory_of_something_else_is_never_written_to(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(3))
    wrong = {
        sources.data_dir: "own directory",
        sources.data_dir / "tmp": "own directory",
        tmp_path: "neither empty nor a backup",
    }
    for directory, words in wrong.items():
        before = names_in(directory)
        with pytest.raises(UsageError, match=words):
            back_up(sources, directory)
        assert names_in(directory) == before
    other = node_home(tmp_path / "n02")
    fill(other.data_dir, range(3))
    back_up(other, tmp_path / "backup")
    with pytest.raises(UsageError, match="another store"):
        back_up(sources, tmp_path / "backup")


# Killed at every step

WRITES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def killed_at(sources: Sources, directory: Path, step: int) -> bool:
    """Whether a backup in a child process was killed at that file operation or copied step, or else ended well."""
    child = os.fork()
    if child == 0:
        left = step

        def count(*_ignored: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            writes = event in WRITES or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            )
            path = str(arguments[0]) if writes else ""
            if path.startswith(str(directory)) and not (event == "os.mkdir" and "/big/" in path):
                count()

        sys.addaudithook(hook)
        backup = Backup(sources, directory, NOW_UNIX_S, count, full=False)
        backup.copy()
        backup.finish()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True], ids=["the first", "a later one"])
def test_a_backup_killed_at_any_step_is_none_and_the_earlier_one_stays(
    earlier: bool, sources: Sources, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    fill(sources.data_dir, range(9))
    if earlier:
        back_up(sources, backup)
    old = parts_of(range(9))
    fill(sources.data_dir, range(9, 12), without=[0, 1])
    new = parts_of(range(2, 12))
    step, seen = 1, []
    while killed_at(sources, backup, step):
        if (backup / "manifest.json").exists():
            restored(backup, tmp_path / f"restored-{step}")
            held = held_in(tmp_path / f"restored-{step}")
            assert held in (old, new)
            seen.append("old" if held == old else "new")
            shutil.rmtree(tmp_path / f"restored-{step}")
        else:
            with pytest.raises(LockboxError) as refused:
                restored(backup, tmp_path / f"restored-{step}")
            assert refused.value.exit_code in (ExitCode.NOT_FOUND, ExitCode.CORRUPT)
            seen.append("none")
        step += 1
    assert step > 20
    before = "old" if earlier else "none"
    assert seen[0] == before
    assert seen == sorted(seen, key=["none", "old", "new"].index)
    restored(backup, tmp_path / "n02")
    assert held_in(tmp_path / "n02") == new
    assert "copy.db" not in names_in(backup)


def test_a_cut_run_removes_what_it_wrote_and_a_full_disk_is_said(sources: Sources, tmp_path: Path) -> None:
    fill(sources.data_dir, range(9))
    back_up(sources, tmp_path / "backup")
    before = names_in(tmp_path / "backup")

    def full_disk(_count: int) -> None:
        if (tmp_path / "backup" / "delta-0002").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "backup" / "delta-0002"))

    backup = Backup(sources, tmp_path / "backup", NOW_UNIX_S, full_disk, full=False)
    backup.copy()
    with pytest.raises(LockboxError, match="delta-0002 cannot be written: No space left"):
        backup.finish()
    backup.discard()
    assert names_in(tmp_path / "backup") == before
    assert backup_set.load_manifest(tmp_path / "backup").number == 1
