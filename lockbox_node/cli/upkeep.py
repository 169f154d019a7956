"""`lockbox-node scrub`: have the running daemon read all it holds now, and say what it found.

The daemon scrubs; this only asks, and draws a bar on a terminal while it waits, so that Ctrl-C ends nothing but the
waiting. Exit codes: CONTRACT; 6 when damage was met.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli.asking import ask_node, config_option, socket_of
from lockbox_node.cli.output import counted, emit, json_option, reporting
from lockbox_node.errors import ExitCode, LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL_S = 0.2


@click.command()
@click.option("--pause", is_flag=True, help="Stand still until --resume, over restarts too.")
@click.option("--resume", is_flag=True, help="Go on where it stood.")
@click.option("--no-wait", is_flag=True, help="Start it and return.")
@config_option
@json_option
@reporting
def scrub(pause: bool, resume: bool, no_wait: bool, config_path: Path, as_json: bool) -> int:
    """Read everything that is stored, now, and check it.

    What is damaged goes to quarantine and is replaced from its siblings. Ends with 6 when there was damage. Without
    this command the node does the same by itself, once in 25 to 35 days.

    Example: lockbox-node scrub --config /var/lib/lockbox/node.toml
    """
    if pause + resume + no_wait > 1:
        raise UsageError("--pause, --resume and --no-wait exclude one another", "give one of them")
    if pause or resume or no_wait:
        action = "pause" if pause else "resume" if resume else "start"
        said = ask_node(config_path, "scrub", action=action)
        emit(as_json, said, _standing(said["scrub"]))
        return ExitCode.DONE
    try:
        said = _watched(socket_of(config_path), draw=not as_json and sys.stderr.isatty())
    except KeyboardInterrupt:
        hint = "see it with lockbox-node status, stop it with lockbox-node scrub --pause"
        raise LockboxError("interrupted; the scrub goes on in the daemon", hint) from None
    emit(as_json, said, found_words(said))
    return ExitCode.CORRUPT if said["last_scrub"]["corrupt"] else ExitCode.DONE


def _standing(scrub_said: dict[str, Any]) -> str:
    """One line of where it stands."""
    share = f"{scrub_said['progress']:.0%}"
    match scrub_said["state"]:
        case "paused":
            under_way = f" at {share}" if 0 < scrub_said["progress"] < 1 else ""
            return f"the scrub is paused{under_way}; go on with lockbox-node scrub --resume"
        case "running":
            return f"the scrub goes on at {share}; see it with lockbox-node status"
        case "stopped":
            return "the store is read-only: nothing is scrubbed"
        case _:
            return f"the next scrub begins in {counted(round(scrub_said['due_in_s'] / 86_400), 'day')}"


def found_words(said: dict[str, Any]) -> str:
    """What a whole pass found, and what is done about it."""
    last = said["last_scrub"]
    corrupt, line = last["corrupt"], f"{counted(last['parts'], 'part')}, {last['bytes']:,} bytes checked"
    if not corrupt:
        return f"{line}: everything is whole"
    parts, them = ("1 damaged part is", "it") if corrupt == 1 else (f"{corrupt:,} damaged parts are", "them")
    mended = f"healing replaces {them}" if said["healing"] else f"healing is off; once it is on it replaces {them}"
    return f"{line}; {parts} in quarantine; {mended}"


def _watched(path: Path, *, draw: bool) -> dict[str, Any]:
    import trio

    with _bar(draw) as update:
        return trio.run(_finished, path, update)


async def _finished(path: Path, update: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Start a pass, or join the one that was asked for before; its answer when it is over."""
    import trio

    from lockbox_node import control

    said = await control.ask_soon(path, "scrub", action="start")
    number = said["scrub"]["number"]
    while said["last_scrub"] is None or said["last_scrub"]["number"] < number:
        if said["scrub"]["state"] not in ("running", "waiting"):
            raise LockboxError(_standing(said["scrub"]), "the scrub is not over")
        update(said["scrub"])
        await trio.sleep(POLL_S)
        said = await control.ask_soon(path, "scrub", action="progress")
    return said


@contextmanager
def _bar(draw: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A callback for the answers of the daemon that draws a bar, or does not."""
    if not draw:
        yield lambda _said: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.fields[parts]:,} parts, {task.fields[corrupt]:,} damaged")
    columns = (TextColumn("scrub"), BarColumn(), TaskProgressColumn(), words, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scrub", total=1.0, parts=0, corrupt=0)

        def update(said: dict[str, Any]) -> None:
            bar.update(task, completed=said["progress"], parts=said["parts"], corrupt=said["corrupt"])

        yield update
