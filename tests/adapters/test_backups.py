"""One backup at a time of a running store; its files stay meanwhile, and a cut one leaves nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.adapters.backups import Backups
from lockbox_node.errors import LockboxError, UsageError
from protocol.errors import ErrorCode
from tests.fakes.backed_up import CLOCK, NODE, held_in, node_home, parts_of, put, restored, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.adapters.store_backup import Sources

pytestmark = pytest.mark.real


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return node_home(tmp_path / "n01")


async def until(condition: Callable[[], bool]) -> None:
    """What the thread does is seen at once."""
    while True:
        if condition():
            return
        await trio.lowlevel.checkpoint()


async def test_a_running_store_is_backed_up_and_restored(sources: Sources, tmp_path: Path) -> None:
    async with serving(sources.data_dir) as store:
        await put(store, range(30))
        backups = Backups(store, sources, CLOCK)
        done = await backups.run(tmp_path / "backup", full=False)
        assert (done.manifest.kind, done.manifest.parts, done.manifest.node) == ("full", 30, NODE.hex())
        assert (store.holds, backups.done_bytes, backups.total_bytes) == (0, 0, 0)
        assert (await backups.run(tmp_path / "backup", full=False)).manifest.kind == "delta"
        assert (await backups.run(tmp_path / "backup", full=True)).manifest.kind == "full"
    restored(tmp_path / "backup", tmp_path / "n02")
    assert held_in(tmp_path / "n02") == parts_of(range(30))


async def test_a_second_one_is_refused_while_one_is_under_way_which_tells_how_far_it_is(
    sources: Sources, tmp_path: Path
) -> None:
    async with serving(sources.data_dir) as store:
        await put(store, range(300))
        backups = Backups(store, sources, CLOCK)
        seen: set[tuple[bool, bool, int]] = set()

        async def look() -> None:
            while True:
                seen.add((backups.done_bytes > 0, backups.done_bytes <= backups.total_bytes, store.holds))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as looking:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(backups.run, tmp_path / "backup", full=False))
                await trio.testing.wait_all_tasks_blocked()
                looking.start_soon(look)
                with pytest.raises(LockboxError, match="under way") as refused:
                    await backups.run(tmp_path / "other", full=False)
                assert refused.value.code is ErrorCode.BUSY
            looking.cancel_scope.cancel()
        assert {(True, True, 1), (True, True, 0)} <= seen
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("holds", [1, 0], ids=["while it copies", "while it finishes"])
async def test_a_cut_one_leaves_nothing_and_lets_the_files_go(holds: int, sources: Sources, tmp_path: Path) -> None:
    async with serving(sources.data_dir) as store:
        await put(store, range(600))
        backups = Backups(store, sources, CLOCK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(backups.run, tmp_path / "backup", full=False))
            await until(lambda: backups.done_bytes > 0 and store.holds == holds)
            nursery.cancel_scope.cancel()
        assert store.holds == 0
        assert {path.name for path in (tmp_path / "backup").iterdir()} - {"big"} == {"BACKUP"}
        assert (await backups.run(tmp_path / "backup", full=False)).manifest.number == 1


async def test_a_refused_directory_lets_the_files_go_too(sources: Sources, tmp_path: Path) -> None:
    async with serving(sources.data_dir) as store:
        backups = Backups(store, sources, CLOCK)
        for directory in (Path("relative"), sources.data_dir):
            with pytest.raises(UsageError):
                await backups.run(directory, full=False)
        (tmp_path / "file").touch()
        with pytest.raises(LockboxError, match="file"):
            await backups.run(tmp_path / "file", full=False)
        assert store.holds == 0
