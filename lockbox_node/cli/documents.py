"""`lockbox-node ca revoke | release | region | policy | publish`: what the authority says to its whole network.

Each but the last signs the next version of one document in the authority's directory; `publish` hands all of
them to a node, and gossip does the rest.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import click

from lockbox_node.cli.authority import ca, directory_option, issued_ids, locked, open_authority
from lockbox_node.cli.output import counted, emit, json_option, reporting
from lockbox_node.cli.signing import Signing
from lockbox_node.config import host_port
from lockbox_node.core.regions import Region
from lockbox_node.errors import AssetNotFound, ConfigError, LockboxError, UsageError
from protocol.errors import ErrorCode
from protocol.ids import ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lockbox_node.core.regions import RegionTable

__all__ = ["ca"]

DIGITS = 6  # of a degree, as documents have it


@ca.command()
@directory_option
@click.argument("peer", metavar="ID")
@click.option("--reason", required=True, help="Why, for people; everybody can read it.")
@click.option("--unknown", is_flag=True, help="Revoke an id to which this authority issued nothing.")
@json_option
@reporting
def revoke(directory: Path, peer: str, reason: str, unknown: bool, as_json: bool) -> None:
    """Put a node, client or operator out for good. Publish it then.

    Example: lockbox-node ca revoke --dir ca 3f1c...e0 --reason "disk stolen"
    """
    identifier = _hash("ID", peer)
    root, key = open_authority(directory)
    if not unknown and identifier not in issued_ids(directory):
        raise AssetNotFound(
            f"this authority has issued nothing to {identifier.hex()[:8]}", "check the id, or give --unknown"
        )
    with locked(directory):
        signing = Signing(directory, root, key)
        new = signing.revoke(identifier, reason)
    version = signing.versions()["revocations"]
    emit(
        as_json,
        {"id": identifier.hex(), "reason": signing.revoked()[identifier], "new": new, "version": version},
        f"{identifier.hex()} is revoked{'' if new else ' already'}: {counted(len(signing.revoked()), 'id')} in all\n"
        f"{_then_publish(directory)}",
    )


@ca.command()
@directory_option
@click.option("--version", "name", required=True, help="What people call the software, for example 1.2.")
@click.option("--hash", "software", required=True, help="What it measures as: lockbox-node software-hash.")
@click.option("--not-after", default="", metavar="T", help="Its end: a date (UTC) or unix seconds.")
@json_option
@reporting
def release(directory: Path, name: str, software: str, not_after: str, as_json: bool) -> None:
    """Accept a software, or set its end. Nodes with any other only read, once there is a list.

    Example: lockbox-node ca release --dir ca --version 1.2 --hash 9a41...07 --not-after 2030-01-01
    """
    measured, until_unix_s = _hash("--hash", software), _unix_s(not_after)
    root, key = open_authority(directory)
    with locked(directory):
        signing = Signing(directory, root, key)
        released = signing.release(measured, name, until_unix_s)
    emit(
        as_json,
        {
            "software": measured.hex(),
            "not_after_unix_s": until_unix_s or None,
            "releases": len(released),
            "version": signing.versions()["releases"],
        },
        f"{counted(len(released), 'release')} accepted; a node with any other software only reads\n"
        f"{_then_publish(directory)}",
    )


@ca.group()
def region() -> None:
    """Add, move and remove regions, for the whole network. Nodes in a region that is no more are emptied.

    Example: lockbox-node ca region add --dir ca lisbon 38.72 -9.14
    """


@region.command(name="add", context_settings={"ignore_unknown_options": True})  # -9.14 is no option
@directory_option
@click.argument("name")
@click.argument("latitude", type=float)
@click.argument("longitude", type=float)
@json_option
@reporting
def region_add(directory: Path, name: str, latitude: float, longitude: float, as_json: bool) -> None:
    """Add a region, or say where it stands now: degrees, north and east positive. Publish it then.

    Example: lockbox-node ca region add --dir ca lisbon 38.72 -9.14
    """
    here = round(latitude, DIGITS), round(longitude, DIGITS)
    _change_regions(directory, as_json, lambda table: table.with_region(Region(name, name, *here)))


@region.command(name="remove")
@directory_option
@click.argument("name")
@json_option
@reporting
def region_remove(directory: Path, name: str, as_json: bool) -> None:
    """Take a region away. What its nodes hold goes elsewhere, nothing new comes to them. Publish it then.

    Example: lockbox-node ca region remove --dir ca lisbon
    """
    _change_regions(directory, as_json, lambda table: table.without(name))


@region.command(name="list")
@directory_option
@json_option
@reporting
def region_list(directory: Path, as_json: bool) -> None:
    """Every region with its coordinates, and those too near to be used together with it.

    Example: lockbox-node ca region list --dir ca
    """
    _change_regions(directory, as_json, lambda table: table)


def _change_regions(directory: Path, as_json: bool, change: Callable[[RegionTable], RegionTable]) -> None:
    root, key = open_authority(directory)
    with locked(directory):
        signing = Signing(directory, root, key)
        before = signing.regions()
        try:
            table = change(before)
        except ConfigError as error:
            raise UsageError(error.message, error.hint) from None
        new = table != before and signing.set_regions(table)
    rows = [
        f"{name:<20} {one.latitude:>11.6f} {one.longitude:>11.6f}  {', '.join(sorted(table.near[name]))}".rstrip()
        for name, one in sorted(table.regions.items())
    ]
    emit(
        as_json,
        {
            "regions": {
                name: {"latitude": one.latitude, "longitude": one.longitude, "near": sorted(table.near[name])}
                for name, one in sorted(table.regions.items())
            },
            "new": new,
            "version": signing.versions()["regions"],
        },
        "\n".join([f"{'REGION':<20} {'LATITUDE':>11} {'LONGITUDE':>11}  NEARER THAN 1000 KM", *rows])
        + (f"\n{_then_publish(directory)}" if new else ""),
    )


@ca.command()
@directory_option
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@json_option
@reporting
def policy(directory: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Set what all nodes go by: healing=on|off, hold-off=S, sweep=S, returning=S, guard=S, audit=S.

    KEY= takes one away.

    Example: lockbox-node ca policy --dir ca hold-off=60 guard=120
    """
    root, key = open_authority(directory)
    with locked(directory):
        signing = Signing(directory, root, key)
        standing = signing.set_policy(settings)
    words = " ".join(f"{key}={standing[key]}" for key in sorted(standing)) or "nothing is set"
    emit(
        as_json,
        {"policy": standing, "version": signing.versions()["policy"]},
        f"policy: {words}\n{_then_publish(directory)}",
    )


@ca.command()
@directory_option
@click.option("--to", "address", required=True, metavar="HOST:PORT", help="A node of the network.")
@json_option
@reporting
def publish(directory: Path, address: str, as_json: bool) -> None:
    """Hand all documents to a node, which tells the others.

    Example: lockbox-node ca publish --dir ca --to 192.0.2.1:7420
    """
    try:
        host, port = host_port(address, "--to")
    except ConfigError as error:
        raise UsageError(error.message, error.hint) from None
    root, key = open_authority(directory)
    import lockbox_node.observe.logging  # noqa: F401  # first: it loads structlog without rich

    # isort: split
    import trio

    from lockbox_node.cli.publishing import fetch, hand_over

    signing = Signing(directory, root, key)
    with locked(directory):
        taken = signing.take(trio.run(fetch, root, key, host, port))
    if taken:
        raise LockboxError(
            f"the network has newer documents than {directory}: {', '.join(taken)}; they were taken from there",
            "make your change again, then publish it",
            ErrorCode.STALE,
        )
    trio.run(hand_over, root, key, host, port, signing.signed())
    versions = signing.versions()
    words = ", ".join(f"{kind} {version}" for kind, version in versions.items())
    emit(as_json, {"to": address, "documents": versions}, f"{address} has {words}")


def _hash(option: str, text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != ID_BYTES or len(text) != 2 * ID_BYTES:
        raise UsageError(f"{option} is not {2 * ID_BYTES} hex digits", "give it in full")
    return value


def _unix_s(text: str) -> int:
    """0 for nothing."""
    if not text:
        return 0
    try:
        if text.isascii() and text.isdecimal() and len(text) < 16:
            return max(1, int(text))
        moment = datetime.datetime.fromisoformat(text)
        return max(1, int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()))
    except (ValueError, OverflowError):
        raise UsageError(f"--not-after is {text!r}", "give a date as 2030-01-01, or unix seconds") from None


def _then_publish(directory: Path) -> str:
    return f"tell the network with:\n  lockbox-node ca publish --dir {directory} --to HOST:PORT"
