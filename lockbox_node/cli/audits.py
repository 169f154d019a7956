"""`lockbox-node audit`: have the running daemon challenge, now, its ward among the siblings of every part it holds.

The daemon audits; this only asks and waits, so that Ctrl-C ends nothing but the waiting. Exit codes: CONTRACT; 6 when a
part was damaged, 8 when one was missing, a holder silent, nobody asked, or the round cut short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli.asking import ask_node, config_option, socket_of
from lockbox_node.cli.output import counted, emit, json_option, reporting
from lockbox_node.errors import ExitCode, LockboxError

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.2


@click.command()
@click.option("--no-wait", is_flag=True, help="Start it and return.")
@config_option
@json_option
@reporting
def audit(no_wait: bool, config_path: Path, as_json: bool) -> int:
    """Have other holders prove, now, that they keep their parts.

    Of every stripe that this node has a part of, the holder that it audits today is challenged. What fails is replaced.
    Without this command the node does the same by itself, once a day.

    Example: lockbox-node audit --config /var/lib/lockbox/node.toml
    """
    if no_wait:
        said = ask_node(config_path, "audit", action="start")
        emit(as_json, said, "the audit goes on; see it with lockbox-node status")
        return ExitCode.DONE
    try:
        said = _finished(socket_of(config_path))
    except KeyboardInterrupt:
        hint = "see it with lockbox-node status"
        raise LockboxError("interrupted; the audit goes on in the daemon", hint) from None
    emit(as_json, said, audit_words(said))
    done = said["pass"]
    if done["corrupt"]:
        return ExitCode.CORRUPT
    nobody = done["parts"] > 0 and not done["held"]
    return ExitCode.DEGRADED if done["cut"] or nobody or done["missing"] or done["silent"] else ExitCode.DONE


def audit_words(said: dict[str, Any]) -> str:
    """What a whole round found."""
    done = said["pass"]
    words = f"{counted(done['parts'], 'part')}: {done['held']:,} held"
    failed = [f"{done[verdict]:,} {verdict}" for verdict in ("missing", "corrupt", "silent") if done[verdict]]
    if failed:
        words += f", {', '.join(failed)}; what does not prove itself when it is asked again is replaced"
    asked = sum(done[verdict] for verdict in ("held", "missing", "corrupt", "silent"))
    left = done["parts"] - asked
    if left > 0:
        words += f"; {left:,} had nobody to ask"
    return f"{words}; cut short, the store was busy" if done["cut"] else words


def _finished(path: Path) -> dict[str, Any]:
    import trio

    return trio.run(_wait, path)


async def _wait(path: Path) -> dict[str, Any]:
    """Start a round, or join the one that runs; its answer when it is over."""
    import trio

    from lockbox_node import control

    said = await control.ask_soon(path, "audit", action="start")
    while said["pass"]["running"]:
        await trio.sleep(POLL_S)
        said = await control.ask_soon(path, "audit", action="progress")
    return said
