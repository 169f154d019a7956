"""`lockbox-node drain` and `resume` at a shell: what they wait for, what they say, what they end with."""

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
from lockbox_node.cli.drains import drain_words
from lockbox_node.config import Config, load, to_toml
from lockbox_node.observe.drains import receipt_said
from tests.cli.test_node import run
from tests.protocol import samples
from tests.test_daemon import make_node, running

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

COMMAND = [sys.executable, "-m", "lockbox_node.cli.node", "drain", "--config"]
RECEIPT = receipt_said(samples.signed_drain())


def said(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  # of any field
    """The answer of a daemon that has handed over a quarter."""
    where = {
        "state": "running", "waiting": "", "parts": 300, "bytes": 1_250_000, "parts_left": 900,
        "bytes_left": 3_750_000, "bytes_per_s": 125_000, "left_s": 30, "stuck": {}, "passes_idle": 0, "receipt": None,
    }  # fmt: skip
    return {"drain": where | changes}


DONE = said(state="done", parts=1200, bytes=5_000_000, parts_left=0, bytes_left=0, left_s=0, receipt=RECEIPT)
STUCK = said(parts_left=2, bytes_left=600, stuck={"INSUFFICIENT_NODES": 2}, passes_idle=2, left_s=None)


class Scripted:
    """A daemon that answers `drain` from a list, the last answer again and again."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.actions: list[str] = []
        self.asked = trio.Event()

    async def drain(self, request: dict[str, Any]) -> object:
        self.actions.append(request["action"])
        if len(self.actions) > 1:
            self.asked.set()
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def drained(path: Path, daemon: Scripted, *words: str, **options: Any) -> CompletedProcess[bytes]:  # noqa: ANN401
    """The command, run against `daemon`."""
    (path / "node.toml").write_text(to_toml(Config()))
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path / "control.sock", {"drain": daemon.drain})
        arguments = [*COMMAND, str(path / "node.toml"), *words]
        done = await trio.run_process(arguments, capture_stdout=True, check=False, **options)
        nursery.cancel_scope.cancel()
    return done


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            said(),
            "draining: 900 parts left, 3,750,000 bytes, about 30 s; "
            "300 parts handed over and shown by others, 1,250,000 bytes",
        ),
        (
            said(waiting="the view is doubted"),
            "draining, but the view is doubted; 900 parts left, 3,750,000 bytes",
        ),
        (
            STUCK,
            "2 parts left, 600 bytes that cannot go now (2 INSUFFICIENT_NODES); the daemon keeps trying; "
            "more nodes, regions or operators are needed",
        ),
        (
            DONE,
            f"drained: nothing is left on {RECEIPT['node'][:8]}; "
            "1,200 parts handed over and shown by others, 5,000,000 bytes; the node may be stopped",
        ),
    ],
)
def test_where_it_stands_is_said_in_one_line(answer: dict[str, Any], words: str) -> None:
    assert drain_words(answer["drain"]) == words


@pytest.mark.real
async def test_it_waits_for_the_end_and_writes_the_receipt(tmp_path: Path) -> None:
    daemon = Scripted(said(), said(), DONE)
    receipt = tmp_path / "receipt.json"
    done = await drained(tmp_path, daemon, "--wait", "--json", "--receipt", str(receipt), capture_stderr=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == DONE
    assert json.loads(receipt.read_text()) == RECEIPT
    assert daemon.actions == ["start", "progress", "progress"]


@pytest.mark.real
@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ((said(), said(), STUCK), 8, b"2 INSUFFICIENT_NODES"),
        ((said(), {"drain": None}), 1, b"ended by somebody else"),
    ],
)
async def test_what_cannot_go_ends_the_waiting_and_says_why(
    tmp_path: Path, answers: tuple[dict[str, Any], ...], code: int, words: bytes
) -> None:
    done = await drained(tmp_path, Scripted(*answers), "--wait", capture_stderr=True)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert b"900 parts left" in done.stderr, "lines, where there is no terminal"


@pytest.mark.real
async def test_ctrl_c_ends_the_waiting_and_says_that_the_drain_goes_on(tmp_path: Path) -> None:
    daemon = Scripted(said())
    (tmp_path / "node.toml").write_text(to_toml(Config()))
    arguments = [*COMMAND, str(tmp_path / "node.toml"), "--wait", "--json"]
    with (tmp_path / "out").open("wb") as out:
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path / "control.sock", {"drain": daemon.drain})
            process = await nursery.start(partial(trio.run_process, arguments, stdout=out, stderr=out, check=False))
            await daemon.asked.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 1
            nursery.cancel_scope.cancel()
    told = (tmp_path / "out").read_text()
    assert "the drain goes on in the daemon" in told
    assert told.count("\n") == 1


@pytest.mark.real
async def test_a_bar_is_drawn_on_a_terminal_and_never_on_stdout(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        daemon = Scripted(said(), said(), DONE)
        done = await drained(tmp_path, daemon, "--wait", stderr=theirs, env={**os.environ, "TERM": "xterm"})
        os.write(theirs, b"end")  # so that there is something to read in any case
        drawn = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout.startswith(b"drained: nothing is left")
    assert b"25%" in drawn
    assert b"900 parts left, about 30 s" in drawn


def test_a_receipt_is_wanted_of_a_drain_that_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "drain", "--receipt", "r.json")
    assert (code, out, err.count("\n")) == (2, "", 1)


def network_of(data: Path) -> Path:
    return data / load(data / "node.toml").node.network


def spoilt_receipt(receipt: dict[str, Any]) -> dict[str, Any]:
    """With another byte in what was signed."""
    body = bytearray.fromhex(receipt["signed"]["body"])
    body[-1] ^= 1
    return receipt | {"signed": receipt["signed"] | {"body": body.hex()}}


@pytest.mark.real
def test_a_running_daemon_is_drained_restarted_and_resumed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_node(tmp_path, "n01")
    config = ("--config", str(data / "node.toml"))
    with running(data) as daemon:
        daemon.told()
        code, out, _ = run(capfd, "drain", "--wait", *config)
        assert (code, out.startswith("drained: nothing is left on ")) == (0, True)
        path = tmp_path / "receipt.json"
        assert run(capfd, "drain", "--wait", "--receipt", str(path), *config)[0] == 0
        receipt = json.loads(path.read_text())
        assert (receipt["parts"], receipt["left"]) == (0, 0)
        check = ("verify-drain", str(path), "--network", str(network_of(data)))
        assert run(capfd, *check)[1].startswith(f"genuine: nothing was left on {receipt['node']} at 20")
        wrong: list[dict[str, Any]] = [spoilt_receipt(receipt), {"signed": {}}, {}]
        for spoilt in wrong:
            path.write_text(json.dumps(spoilt))
            assert run(capfd, *check)[:2] == (1, "")
        daemon.end()
    with running(data) as daemon:
        daemon.told()
        status = json.loads(run(capfd, "status", "--json", *config)[1])
        assert (status["state"], status["drain"]["receipt"]) == ("draining", receipt)
        assert "drain       drained: " in run(capfd, "status", *config)[1]
        assert run(capfd, "resume", *config)[:2] == (
            0, "the view of the network is trusted; the drain has ended; the node takes new parts again\n"
        )  # fmt: skip
        assert json.loads(run(capfd, "status", "--json", *config)[1])["state"] == "active"
        assert run(capfd, "resume", *config)[:2] == (0, "the view of the network is trusted\n")
        daemon.end()
