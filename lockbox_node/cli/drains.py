"""`lockbox-node drain` and `lockbox-node resume`: empty the running node for good, or have it take part again.

The daemon drains; this only asks, and draws a bar on a terminal while it waits, so that Ctrl-C ends nothing but the
waiting. Exit codes: CONTRACT; 8 when some parts found no other place, and the daemon keeps trying.
"""

from __future__ import annotations

import json
import math
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli.asking import ask_node, config_option, socket_of
from lockbox_node.cli.output import counted, emit, json_option, reporting
from lockbox_node.errors import ExitCode, LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from protocol.messages import Signed

POLL_S = 0.5
LINE_EVERY_S = 10.0  # where no bar is drawn
IDLE_PASSES_MAX = 2  # so many looks at everything that moved nothing, and we say what is stuck


@click.command()
@click.option("--wait", is_flag=True, help="Return when nothing is left here, or nothing more can go now.")
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --wait: write the signed receipt there.",
)
@config_option
@json_option
@reporting
def drain(wait: bool, receipt_path: Path | None, config_path: Path, as_json: bool) -> int:
    """Hand over everything that the running node holds.

    It takes nothing new from then on, over restarts too, and serves what is still here. A part is dropped only when
    another holder has shown it. When nothing is left the node may be stopped for good. Undo it with resume.

    Example: lockbox-node drain --wait --config /var/lib/lockbox/node.toml
    """
    if receipt_path is not None and not wait:
        raise UsageError("--receipt needs --wait", "there is no receipt before the drain has ended")
    if not wait:
        said = ask_node(config_path, "drain", action="start")
        emit(as_json, said, drain_words(said["drain"]))
        return ExitCode.DONE
    try:
        said = _watched(socket_of(config_path), quiet=as_json)
    except KeyboardInterrupt:
        hint = "see it with lockbox-node status, undo it with lockbox-node resume"
        raise LockboxError("interrupted; the drain goes on in the daemon", hint) from None
    where = said["drain"]
    if where is None:
        raise LockboxError("the drain was ended by somebody else", "see lockbox-node status")
    if receipt_path is not None and where["receipt"] is not None:
        _write(receipt_path, where["receipt"])
    emit(as_json, said, drain_words(where))
    return ExitCode.DONE if where["receipt"] is not None else ExitCode.DEGRADED


@click.command()
@click.option("--view-only", is_flag=True, help="Leave a drain under way as it is.")
@config_option
@json_option
@reporting
def resume(view_only: bool, config_path: Path, as_json: bool) -> None:
    """Have the node take part again: it trusts its view of the network, and a drain ends.

    Repair goes on when the view is trusted. What a drain has handed over stays where it is.

    Example: lockbox-node resume --config /var/lib/lockbox/node.toml
    """
    said = ask_node(config_path, "resume", view_only=view_only)
    words = ["the view of the network is trusted" if said["view_trusted"] else "the view is still doubted"]
    if said["drain_ended"]:
        words.append("the drain has ended; the node takes new parts again")
    elif said["draining"]:
        words.append("the drain goes on")
    emit(as_json, said, "; ".join(words))


@click.command()
@click.argument("receipt_path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--network", type=click.Path(path_type=Path, dir_okay=False), default="network.pem", show_default=True,
    help="The network.pem of the node's network.",
)  # fmt: skip
@json_option
@reporting
def verify_drain(receipt_path: Path, network: Path, as_json: bool) -> None:
    """Check the receipt of a drain. No node is asked.

    Example: lockbox-node verify-drain receipt.json --network network.pem
    """
    from lockbox_node.adapters.identity import NetworkFile
    from lockbox_node.observe.drains import receipt_said
    from protocol import certificates
    from protocol.errors import RemoteProtocolError

    signed = _signed_in(receipt_path)
    root = NetworkFile.load(network).root
    try:
        certificates.verify_drain(root, signed)
    except RemoteProtocolError as error:
        raise LockboxError(
            f"{receipt_path} is no receipt of this network: {error}", code=ErrorCode.PROOF_INVALID
        ) from None
    said = receipt_said(signed)  # of what was signed, whatever else the file says
    words = (
        f"genuine: nothing was left on {said['node']} at {said['ended']}; {counted(said['parts'], 'part')} handed over"
    )
    emit(as_json, {"receipt": said}, words)


def _signed_in(path: Path) -> Signed:
    from protocol.messages import Signed

    try:
        signed = json.loads(path.read_text(encoding="utf-8"))["signed"]
        return Signed(bytes.fromhex(signed["body"]), bytes.fromhex(signed["signature"]))
    except OSError as error:
        raise LockboxError(f"{path} cannot be read: {error.strerror}", code=ErrorCode.NOT_FOUND) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        hint = "give the file that lockbox-node drain --wait --receipt FILE wrote"
        raise LockboxError(f"{path} holds no receipt", hint, ErrorCode.PROOF_INVALID) from None


def drain_words(said: dict[str, Any]) -> str:
    """Where a drain stands, in a line or two."""
    gone = f"{counted(said['parts'], 'part')} handed over and shown by others, {said['bytes']:,} bytes"
    if said["receipt"] is not None:
        receipt = said["receipt"]
        return f"drained: nothing is left on {receipt['node'][:8]}; {gone}; the node may be stopped"
    left = f"{counted(said['parts_left'], 'part')} left, {said['bytes_left']:,} bytes"
    if said["waiting"]:
        return f"draining, but {said['waiting']}; {left}"
    if said["passes_idle"] >= IDLE_PASSES_MAX:
        why = ", ".join(f"{count} {code}" for code, count in sorted(said["stuck"].items()))
        return f"{left} that cannot go now ({why}); the daemon keeps trying; {_remedy(said['stuck'])}"
    time_left = f", about {said['left_s']:,.0f} s" if said["left_s"] else ""
    return f"draining: {left}{time_left}; {gone}"


def _remedy(stuck: dict[str, int]) -> str:
    if any(code.startswith("INSUFFICIENT_") for code in stuck):
        return "more nodes, regions or operators are needed"
    if ErrorCode.SHARD_CORRUPT in stuck:
        return "what is damaged is mended first"
    return "see the log"


def _write(path: Path, receipt: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(receipt, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise LockboxError(
            f"the receipt cannot be written to {path}: {error.strerror}", "run drain --wait again; it is kept"
        ) from None


def _watched(path: Path, *, quiet: bool) -> dict[str, Any]:
    import trio

    with _shown(quiet) as update:
        try:
            return trio.run(_finished, path, update)
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise KeyboardInterrupt from None


async def _finished(path: Path, update: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Begin or join the drain; what the daemon says when it is over, or stuck."""
    import trio

    from lockbox_node import control

    said = await control.ask_soon(path, "drain", action="start")
    while said["drain"] is not None and said["drain"]["receipt"] is None:
        if said["drain"]["passes_idle"] >= IDLE_PASSES_MAX and not said["drain"]["waiting"]:
            break
        update(said["drain"])
        await trio.sleep(POLL_S)
        said = await control.ask_soon(path, "drain", action="progress")
    return said


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A callback for the answers of the daemon: a bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield lambda _said: None
        return
    if sys.stderr.isatty():
        with _bar() as update:
            yield update
        return
    import trio

    last = [-math.inf]

    def line(said: dict[str, Any]) -> None:
        now = trio.current_time()
        if now - last[0] >= LINE_EVERY_S:
            last[0] = now
            click.echo(drain_words(said), err=True)

    yield line


@contextmanager
def _bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    words = TextColumn("{task.fields[left]:,} parts left{task.fields[time]}{task.fields[waiting]}")
    columns = (TextColumn("drain"), BarColumn(), TaskProgressColumn(), words)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("drain", total=None, left=0, time="", waiting="")

        def update(said: dict[str, Any]) -> None:
            bar.update(
                task,
                total=max(1, said["parts"] + said["parts_left"]),
                completed=said["parts"],
                left=said["parts_left"],
                time=f", about {said['left_s']:,.0f} s" if said["left_s"] else "",
                waiting=f"; {said['waiting']}" if said["waiting"] else "",
            )

        yield update
