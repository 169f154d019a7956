"""`backup` and `restore` at a shell: a running daemon is backed up, the restored one runs, refusals are a line."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node import control
from lockbox_node.cli.backups import backup_words
from lockbox_node.config import Config, load, to_toml
from tests.cli.test_node import run
from tests.test_daemon import make_node, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def test_a_node_goes_into_a_backup_and_comes_out_of_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, backup, target = make_node(tmp_path, "n01"), str(tmp_path / "backup"), tmp_path / "n02"
    config = str(data / "node.toml")
    with running(data) as daemon:
        daemon.told()
        assert json.loads(run(capfd, "status", "--config", config, "--json")[1])["last_backup"] is None
        assert "backup      none yet\n" in run(capfd, "status", "--config", config)[1]
        code, out, err = run(capfd, "backup", backup, "--config", config)
        assert (code, err) == (0, "")
        assert out.startswith("full backup of 0 parts")
        assert "identity key is in it" in out
        said = json.loads(run(capfd, "backup", backup, "--config", config, "--json")[1])
        assert (said["kind"], said["directory"]) == ("delta", backup)
        node = json.loads(run(capfd, "status", "--config", config, "--json")[1])
        assert node["last_backup"]["kind"] == "delta"
        for wrong in (data, data / "big" / "backup"):
            code, out, err = run(capfd, "backup", str(wrong), "--config", config)
            assert (code, out, err.count("\n")) == (2, "", 1)
        assert "backup      the last 20" in run(capfd, "status", "--config", config)[1]
        daemon.end()
    code, out, err = run(capfd, "restore", backup, "--dir", str(target))
    assert (code, err) == (0, "")
    assert f"lockbox-node run --config {target}/node.toml" in out
    assert load(target / "node.toml") == load(data / "node.toml")
    with running(target) as daemon:
        daemon.told()
        again = json.loads(run(capfd, "status", "--config", str(target / "node.toml"), "--json")[1])
        assert (again["id"], again["last_backup"]["kind"]) == (node["id"], "full")
        daemon.end()


def test_refusals_are_one_line_with_the_code_of_what_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, backup = make_node(tmp_path, "n01"), tmp_path / "backup"
    code, out, err = run(capfd, "backup", str(backup), "--config", str(data / "node.toml"))
    assert (code, out, err.count("\n")) == (7, "", 1)
    backup.mkdir()
    code, _, err = run(capfd, "restore", str(backup), "--dir", str(tmp_path / "n02"))
    assert (code, err.count("\n")) == (3, 1)
    with running(data) as daemon:
        daemon.told()
        run(capfd, "backup", str(backup), "--config", str(data / "node.toml"))
        daemon.end()
    code, _, err = run(capfd, "restore", str(backup), "--dir", str(data))
    assert (code, err.count("\n")) == (2, 1)
    (backup / "full-0001.db").write_bytes(b"rot")
    said = json.loads(run(capfd, "restore", str(backup), "--dir", str(tmp_path / "n02"), "--json")[1])
    assert "nothing was restored" in said["error"]["message"]
    assert run(capfd, "restore", str(backup), "--dir", str(tmp_path / "n02"))[0] == 6
    assert not list((tmp_path / "n02").iterdir())


async def interrupted(directory: Path, *words: str, asked: trio.Event) -> tuple[int, str]:
    """The command after a Ctrl-C, which comes while it waits and draws on a terminal: its exit code and stderr."""
    ours, theirs = os.openpty()
    arguments = [sys.executable, "-m", "lockbox_node.cli.node", *words]
    try:
        async with trio.open_nursery() as nursery:
            work = partial(trio.run_process, arguments, stderr=theirs, check=False, cwd=directory)
            process = await nursery.start(work)
            await asked.wait()
            process.send_signal(signal.SIGINT)
        os.write(theirs, b"end")
        return process.returncode or 0, os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)


async def test_ctrl_c_ends_the_waiting_on_a_terminal_and_says_that_the_backup_goes_on(tmp_path: Path) -> None:
    asked = trio.Event()

    async def never(_request: object) -> object:
        return await trio.sleep_forever()

    async def progress(_request: object) -> object:
        asked.set()
        return {"done": 1, "total": 2}

    (tmp_path / "node.toml").write_text(to_toml(Config()))
    async with trio.open_nursery() as nursery:
        verbs = {"backup": never, "backup-progress": progress}
        await nursery.start(control.serve, tmp_path / "control.sock", verbs)
        code, said = await interrupted(tmp_path, "backup", "there", asked=asked)
        nursery.cancel_scope.cancel()
    assert code == 1
    assert "interrupted; the backup goes on in the daemon" in said
    assert "Traceback" not in said


def test_what_an_operator_should_know_is_said_only_when_it_is_so() -> None:
    said = {
        "kind": "delta", "parts": 7, "bytes": 4096, "missing": 0, "full_advised": False, "same_disk": False,
        "big": {"files": 2, "linked": 1, "copied": 0},
    }  # fmt: skip
    assert len(backup_words(said, "/backup").splitlines()) == 2
    words = backup_words({**said, "missing": 1, "full_advised": True, "same_disk": True}, "/backup")
    assert all(part in words for part in ("found damaged", "--full begins anew", "copy the directory elsewhere"))
