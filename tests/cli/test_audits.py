"""`lockbox-node audit` at a shell: what it waits for, what it says, what it ends with."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node import control
from lockbox_node.cli.audits import audit_words
from lockbox_node.config import Config, to_toml

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "lockbox_node.cli.node", "audit", "--config"]


def said(parts: int = 1200, *, running: bool = False, cut: bool = False, **verdicts: int) -> dict[str, Any]:
    """The answer of a daemon."""
    counts = {"held": 0, "missing": 0, "corrupt": 0, "silent": 0} | verdicts
    return {"pass": {"number": 3, "running": running, "parts": parts, "cut": cut, **counts}, "audits": {}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(held=1200), "1,200 parts: 1,200 held"),
        (said(3, cut=True, held=3), "3 parts: 3 held; cut short, the store was busy"),
        (
            said(1, missing=1),
            "1 part: 0 held, 1 missing; what does not prove itself when it is asked again is replaced",
        ),
        (
            said(held=1, corrupt=2, silent=3),
            "1,200 parts: 1 held, 2 corrupt, 3 silent; what does not prove itself when it is asked again is replaced; "
            "1,194 had nobody to ask",
        ),
    ],
)
def test_the_words_count_what_was_shown(answer: dict[str, Any], words: str) -> None:
    assert audit_words(answer) == words


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (said(0), 0),
        (said(9, held=9, cut=True), 8),
        (said(9), 8),
        (said(held=9), 0),
        (said(held=9, silent=1), 8),
        (said(missing=1, corrupt=1), 6),
    ],
)
async def test_it_waits_for_the_round_and_its_exit_code_says_what_was_met(
    tmp_path: Path, last: dict[str, Any], code: int
) -> None:
    answers = [said(0, running=True), said(5, running=True, held=5), last]
    actions: list[str] = []

    async def daemon(request: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        actions.append(request["action"])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    (tmp_path / "node.toml").write_text(to_toml(Config()))
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, tmp_path / "control.sock", {"audit": daemon})
        arguments = [*COMMAND, str(tmp_path / "node.toml"), "--json"]
        done = await trio.run_process(arguments, capture_stdout=True, check=False)
        nursery.cancel_scope.cancel()
    assert done.returncode == code
    assert json.loads(done.stdout) == last
    assert actions == ["start", "progress", "progress"]
