"""`lockbox-node backup` and `lockbox-node restore`: ask the daemon for a backup, make a node of one.

A backup is made by the daemon, as its user, and goes on when the command is interrupted. A restore needs no daemon: it
writes a new directory. Both draw a bar on a terminal when they take a while.
"""

from __future__ import annotations

import datetime
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lockbox_node.observe.logging  # noqa: F401  # first: it loads structlog without rich

# isort: split

import click
import trio

from lockbox_node import control
from lockbox_node.adapters.backup_set import load_manifest
from lockbox_node.adapters.clock import SystemClock
from lockbox_node.adapters.store_restore import Restored
from lockbox_node.adapters.store_restore import restore as restore_backup
from lockbox_node.cli.asking import config_option, socket_of
from lockbox_node.cli.output import counted, emit, json_option, reporting
from lockbox_node.cli.session import progress_bar
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POLL_S = 0.2

Told = tuple[int, int]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--full", is_flag=True, help="Copy everything anew, not only what changed since the last full backup.")
@config_option
@json_option
@reporting
def backup(directory: Path, full: bool, config_path: Path, as_json: bool) -> None:
    """Back up the running node into DIR: all of it the first time, what changed after that.

    The identity key is in the backup: keep it as you keep the node.

    Example: lockbox-node backup /mnt/backup/n01 --config /var/lib/lockbox/node.toml
    """
    socket = socket_of(config_path)
    path = os.path.abspath(directory)

    async def told() -> Told:
        said = await control.ask_soon(socket, "backup-progress")
        return said["done"], said["total"]

    async def make() -> dict[str, Any]:
        return await control.ask(socket, "backup", directory=path, full=full)

    try:
        said = _watched("backing up", make, told)
    except KeyboardInterrupt:
        hint = "see it with lockbox-node status when it is done"
        raise LockboxError("interrupted; the backup goes on in the daemon", hint) from None
    emit(as_json, {**said, "directory": path}, backup_words(said, path))


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--dir", "target", required=True, type=click.Path(path_type=Path, file_okay=False), help="The new node's directory."
)
@json_option
@reporting
def restore(directory: Path, target: Path, as_json: bool) -> None:
    """Make a node of the backup in DIR, in a new directory. The node that it was made of must never run again.

    Example: lockbox-node restore /mnt/backup/n01 --dir /var/lib/lockbox
    """
    try:
        restored = _watched("restoring", *_restoring(directory, target))
    except KeyboardInterrupt:
        raise LockboxError("interrupted; nothing was restored", "run it again") from None
    emit(as_json, restored_payload(restored), restored_words(restored))


def _restoring(source: Path, target: Path) -> tuple[Callable[[], Awaitable[Restored]], Callable[[], Awaitable[Told]]]:
    done = [0]
    source, target = source.absolute(), target.absolute()
    total = load_manifest(source).restored_bytes

    def advance(count: int) -> None:
        trio.from_thread.check_cancelled()
        done[0] += count

    async def told() -> Told:
        await trio.lowlevel.checkpoint()
        return done[0], total

    async def make() -> Restored:
        work = partial(restore_backup, source, target, SystemClock(), advance)
        return await trio.to_thread.run_sync(work)

    return make, told


def _watched(words: str, make: Callable[[], Awaitable[Any]], told: Callable[[], Awaitable[Told]]) -> Any:  # noqa: ANN401  # whatever `make` returns
    """Run `make` under a bar. Ctrl-C is a KeyboardInterrupt, not a group that holds one."""
    try:
        return trio.run(_with_bar, words, make, told)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


async def _with_bar(words: str, make: Callable[[], Awaitable[Any]], told: Callable[[], Awaitable[Told]]) -> Any:  # noqa: ANN401  # whatever `make` returns
    """The result of `make`, with a bar of what `told` says meanwhile."""
    with progress_bar(words) as draw:
        async with trio.open_nursery() as nursery:
            if draw is not None:
                nursery.start_soon(_draw, draw, told)
            made = await make()
            nursery.cancel_scope.cancel()
    return made


async def _draw(draw: Callable[[int, int], None], told: Callable[[], Awaitable[Told]]) -> None:
    while True:
        await trio.sleep(POLL_S)
        done, total = await told()
        draw(done, total)


# What is printed


def backup_words(said: dict[str, Any], path: str) -> str:
    """`backup`, for people."""
    big = said["big"]
    lines = [
        f"{said['kind']} backup of {counted(said['parts'], 'part')} in {path}: {said['bytes']:,} bytes written, "
        f"{counted(big['files'], 'large file')} ({big['linked']:,} linked and {big['copied']:,} copied now)"
    ]
    if said["missing"]:
        lines.append(f"found damaged meanwhile and not in it: {counted(said['missing'], 'large file')}")
    if said["full_advised"]:
        lines.append("the delta is more than half of the full copy: --full begins anew")
    if said["same_disk"]:
        lines.append("it is on the disk of the node itself: copy the directory elsewhere")
    lines.append("the node's identity key is in it: keep it as you keep the node")
    return "\n".join(lines)


def restored_payload(restored: Restored) -> dict[str, object]:
    """`restore --json`."""
    manifest = restored.manifest
    return {
        "node": manifest.node,
        "store": manifest.store,
        "backup_unix_s": manifest.made_unix_s,
        "kind": manifest.kind,
        "parts": manifest.parts,
        "big_files": manifest.big_files,
        "missing": restored.marked,
        "epoch": restored.epoch,
        "config": str(restored.config),
    }


def restored_words(restored: Restored) -> str:
    """`restore`, for people."""
    manifest = restored.manifest
    made = datetime.datetime.fromtimestamp(manifest.made_unix_s, datetime.UTC).isoformat(timespec="seconds")
    lines = [
        f"node {manifest.node[:8]} as it was at {made}: {counted(manifest.parts, 'part')}, "
        f"{counted(manifest.big_files, 'large file')}",
    ]
    if restored.marked:
        lines.append(f"missing or damaged in the backup, marked for healing: {counted(restored.marked, 'large file')}")
    lines += [
        f"it listens on {restored.listen} and advertises {restored.advertised}: see node.listen, node.advertise there",
        "at its first start it asks its siblings for what it is missing; the node it was made of must never run again",
        f"  lockbox-node run --config {restored.config}",
    ]
    return "\n".join(lines)
