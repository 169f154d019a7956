"""Daemons as children: ready or not, stopped, killed, never left behind."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.cli.processes import Daemon
from lockbox_node.errors import LockboxError
from tests.test_daemon import make_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    data = make_node(tmp_path, "n01")
    daemon = Daemon("n01", data / "node.toml", tmp_path / "n01.log", tmp_path / "partition.json")
    yield daemon
    daemon.signal(signal.SIGKILL)


async def test_a_whole_life(daemon: Daemon) -> None:
    assert (daemon.state, daemon.pid) == ("down", None)
    await daemon.start()
    assert daemon.state == "up"
    with pytest.raises(LockboxError, match="runs already"):
        await daemon.start()
    await daemon.pause()
    assert daemon.state == "stopped"
    daemon.resume()
    assert daemon.state == "up"
    await daemon.pause()
    assert await daemon.terminate() == 0, "a stopped one is woken to end in order"
    assert (daemon.state, daemon.pid) == ("down", None)
    await daemon.kill()


async def test_what_lies_in_the_working_directory_is_not_what_runs(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "lockbox_node"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('another program')")
    monkeypatch.chdir(tmp_path)
    await daemon.start()
    assert daemon.state == "up"
    await daemon.kill()


async def test_one_killed_from_outside_is_seen_to_be_down_and_starts_again(daemon: Daemon) -> None:
    await daemon.start()
    assert daemon.pid is not None
    os.kill(daemon.pid, 9)
    await daemon.kill()
    assert daemon.state == "down"
    with pytest.raises(LockboxError, match="is down"):
        await daemon.pause()
    await daemon.start()
    assert daemon.state == "up"
    await daemon.kill()
    with pytest.raises(LockboxError, match="is down"):
        daemon.resume()


async def test_one_that_cannot_start_says_why_and_leaves_nothing(daemon: Daemon) -> None:
    daemon.config.write_text("[node]\nregion = 'atlantis'\n")
    with pytest.raises(LockboxError, match=r"exit code 78 before it was ready: lockbox-node: CONFIG: .*atlantis"):
        await daemon.start()
    assert daemon.pid is None


async def test_a_start_that_is_cut_leaves_no_process(daemon: Daemon) -> None:
    with trio.move_on_after(0.05) as scope:
        await daemon.start()
    assert scope.cancelled_caught
    await daemon.kill()
    assert daemon.pid is None


async def test_one_that_never_ran_ends_well(daemon: Daemon) -> None:
    assert await daemon.terminate() == 0
    await daemon.kill()
