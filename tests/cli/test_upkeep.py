"""`lockbox-node scrub` at a shell: what it waits for, what it says, what it ends with."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node import control
from lockbox_node.cli.upkeep import found_words
from lockbox_node.config import Config, to_toml
from tests.cli.test_node import run
from tests.test_daemon import make_node, running

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

COMMAND = [sys.executable, "-m", "lockbox_node.cli.node", "scrub", "--config"]


def said(corrupt: int = 0, parts: int = 1200, healing: bool = True) -> dict[str, Any]:
    """The answer of a daemon whose pass 7 is over."""
    last = {"number": 7, "finished": "2027-01-15T08:00:00+00:00", "parts": parts, "bytes": 3400, "corrupt": corrupt}
    return {"scrub": standing("waiting", 1.0), "last_scrub": last, "healing": healing}


def standing(state: str, progress: float) -> dict[str, Any]:
    return {
        "state": state,
        "number": 7,
        "progress": progress,
        "parts": 3,
        "bytes": 9,
        "corrupt": 0,
        "due_in_s": 2_419_200,
    }


class Scripted:
    """A daemon that answers `scrub` from a list, the last answer again and again."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.actions: list[str] = []
        self.asked = trio.Event()

    async def scrub(self, request: dict[str, Any]) -> object:
        self.actions.append(request["action"])
        if len(self.actions) > 2:
            self.asked.set()
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def under_way(state: str = "running") -> dict[str, Any]:
    return {"scrub": standing(state, 0.25), "last_scrub": None, "healing": True}


async def scrubbed(path: Path, daemon: Scripted, *words: str, **options: Any) -> CompletedProcess[bytes]:  # noqa: ANN401
    """The command, run against `daemon`."""
    (path / "node.toml").write_text(to_toml(Config()))
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path / "control.sock", {"scrub": daemon.scrub})
        arguments = [*COMMAND, str(path / "node.toml"), *words]
        done = await trio.run_process(arguments, capture_stdout=True, check=False, **options)
        nursery.cancel_scope.cancel()
    return done


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(), "1,200 parts, 3,400 bytes checked: everything is whole"),
        (said(1), "1,200 parts, 3,400 bytes checked; 1 damaged part is in quarantine; healing replaces it"),
        (said(2), "1,200 parts, 3,400 bytes checked; 2 damaged parts are in quarantine; healing replaces them"),
        (
            said(2, healing=False),
            "1,200 parts, 3,400 bytes checked; 2 damaged parts are in quarantine; "
            "healing is off; once it is on it replaces them",
        ),
    ],
)
def test_what_was_found_is_said_in_one_line(answer: dict[str, Any], words: str) -> None:
    assert found_words(answer) == words


@pytest.mark.real
@pytest.mark.parametrize(("corrupt", "code"), [(0, 0), (2, 6)])
async def test_it_waits_for_the_end_and_tells_damage_by_its_exit_code(tmp_path: Path, corrupt: int, code: int) -> None:
    daemon = Scripted(under_way(), under_way(), said(corrupt))
    done = await scrubbed(tmp_path, daemon, "--json", capture_stderr=True)
    assert (done.returncode, done.stderr) == (code, b"")
    assert json.loads(done.stdout) == said(corrupt)
    assert done.stdout.count(b"\n") == 1
    assert daemon.actions == ["start", "progress", "progress"]


@pytest.mark.real
async def test_damage_of_an_earlier_pass_is_not_that_of_this_one(tmp_path: Path) -> None:
    before = said(5)
    before["last_scrub"]["number"] = 6
    done = await scrubbed(tmp_path, Scripted(before, before, said(0)), capture_stderr=True)
    assert (done.returncode, done.stdout) == (0, b"1,200 parts, 3,400 bytes checked: everything is whole\n")


@pytest.mark.real
@pytest.mark.parametrize("state", ["paused", "stopped"])
async def test_a_pass_that_does_not_go_on_ends_the_waiting(tmp_path: Path, state: str) -> None:
    done = await scrubbed(tmp_path, Scripted(under_way(), under_way(state)), capture_stderr=True)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)


@pytest.mark.real
async def test_ctrl_c_ends_the_waiting_and_says_that_the_scrub_goes_on(tmp_path: Path) -> None:
    daemon = Scripted(under_way())
    (tmp_path / "node.toml").write_text(to_toml(Config()))
    arguments = [*COMMAND, str(tmp_path / "node.toml")]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path / "control.sock", {"scrub": daemon.scrub})
            process = await nursery.start(partial(trio.run_process, arguments, stdout=out, stderr=err, check=False))
            await daemon.asked.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 1
            nursery.cancel_scope.cancel()
    told = (tmp_path / "err").read_text()
    assert (tmp_path / "out").read_text() == ""
    assert "the scrub goes on in the daemon" in told
    assert told.count("\n") == 1


@pytest.mark.real
async def test_a_bar_is_drawn_on_a_terminal_and_never_on_stdout(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        daemon = Scripted(under_way(), under_way(), said())
        done = await scrubbed(tmp_path, daemon, stderr=theirs, env={**os.environ, "TERM": "xterm"})
        os.write(theirs, b"end")  # so that there is something to read in any case
        drawn = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b"1,200 parts, 3,400 bytes checked: everything is whole\n"
    assert b"25%" in drawn
    assert b"3 parts, 0 damaged" in drawn


@pytest.mark.parametrize("words", [("--pause", "--resume"), ("--no-wait", "--pause")])
def test_it_is_told_one_thing_at_a_time(words: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "scrub", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.real
def test_a_running_daemon_scrubs_pauses_and_resumes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_node(tmp_path, "n01")
    config = ("--config", str(data / "node.toml"))
    with running(data) as daemon:
        daemon.told()
        code, out, _ = run(capfd, "scrub", *config)
        assert (code, out) == (0, "0 parts, 0 bytes checked: everything is whole\n")
        assert run(capfd, "scrub", "--pause", *config)[1].startswith("the scrub is paused; ")
        assert "scrub       paused; the last ended 20" in run(capfd, "status", *config)[1]
        assert json.loads(run(capfd, "scrub", "--resume", "--json", *config)[1])["scrub"]["state"] == "waiting"
        assert run(capfd, "scrub", "--no-wait", *config)[0] == 0
        daemon.end()
