"""`lockbox-node`: set up, run and ask a storage node; and the authority that admits nodes (`ca`).

`run` is the daemon; `status`, `members` and `backup` talk to it through its control socket. Heavy imports happen
inside the commands, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lockbox_node.cli.asking import ask_node, config_option
from lockbox_node.cli.output import counted, emit, json_option, program, reporting


@program("lockbox-node")
def main() -> None:
    """Run a LockBox storage node, or the authority of a network.

    Example: lockbox-node run --config /var/lib/lockbox/node.toml
    """


_AUTHORITY = "lockbox_node.cli.authority"
main.add_later("ca", "lockbox_node.cli.documents", "ca", "Make a network, sign its certificates and documents.")
_BACKUPS = "lockbox_node.cli.backups"
main.add_later("backup", _BACKUPS, "backup", "Back up the running node, all of it or what changed.")
main.add_later("restore", _BACKUPS, "restore", "Make a node of a backup, in a new directory.")
_DRAINS = "lockbox_node.cli.drains"
main.add_later("drain", _DRAINS, "drain", "Hand over everything that the running node holds.")
main.add_later("resume", _DRAINS, "resume", "Have the node take part again: trust its view, end a drain.")
main.add_later("verify-drain", _DRAINS, "verify_drain", "Check the receipt of a drain; no node is asked.")
main.add_later("init", _AUTHORITY, "node_init", "Make the files of a new node.")
main.add_later("report", "lockbox_node.cli.report", "report", "What if a region, operator or release vanished now.")
main.add_later("audit", "lockbox_node.cli.audits", "audit", "Have other holders prove their parts, now.")
_CERTIFICATES = "lockbox_node.cli.certificates"
main.add_later(
    "verify-certificate", _CERTIFICATES, "verify_certificate", "Check who held what, with nothing but files."
)
main.add_later("scrub", "lockbox_node.cli.upkeep", "scrub", "Read everything that is stored, now, and check it.")


@main.command()
@config_option
@click.option("--die-with", type=int, hidden=True, help="Be killed when this process, our parent, ends.")
@click.option("--parting", type=click.Path(path_type=Path), hidden=True, help="Of test networks: who is cut off.")
@click.option("--latency", type=click.Path(path_type=Path), hidden=True, help="Of test networks: who is how far away.")
@reporting
def run(config_path: Path, die_with: int | None, parting: Path | None, latency: Path | None) -> None:
    """Run the daemon until SIGTERM.

    Example: lockbox-node run --config /var/lib/lockbox/node.toml
    """
    from lockbox_node import daemon

    if die_with is not None:
        daemon.die_with(die_with)
    daemon.run(config_path, parting, latency)


@main.command()
@config_option
@json_option
@reporting
def status(config_path: Path, as_json: bool) -> None:
    """What the running daemon says of itself.

    Example: lockbox-node status --config /var/lib/lockbox/node.toml
    """
    said = ask_node(config_path, "status")
    members, stored, repairs = said["members"], said["bytes"], said["repairs"]
    lines = [
        f"node        {said['id'][:8]}  {said['state']}" + (", revoked" if said["revoked"] else ""),
        f"region      {said['region']} of {said['operator']}",
        *_location_lines(said["location"], said["region"]),
        f"software    {said['version']} ({said['software'][:16]})",
        f"members     {members['alive']} alive, {members['suspect']} suspect, {members['dead']} dead",
        f"stored      {counted(said['stripes'], 'part')} ({counted(said['shards'], 'shard')}), "
        f"{stored['logical']:,} bytes, {stored['disk']:,} on disk; {counted(said['corrupt'], 'part')} corrupt",
        f"trash       {counted(said['trash'], 'part')}, {stored['trash']:,} bytes; "
        f"{stored['reserved']:,} bytes are reserved",
        f"scrub       {_scrub_words(said['scrub'], said['last_scrub'])}",
        f"audits      {_audit_words(said['audits'])}",
        f"clock       {'trusted' if said['clock']['trusted'] else 'not trusted: ' + said['clock']['why']}",
        f"repairs     {_repair_words(repairs)}",
        *_drain_lines(said["drain"]),
        f"backup      {_backup_words(said['last_backup'])}",
        *_restored_lines(said["restored"]),
        f"documents   {', '.join(f'{kind} {version}' for kind, version in said['documents'].items()) or 'none yet'}",
        f"certificate identity until {said['certificates']['identity_until']}",
    ]
    emit(as_json, said, "\n".join(lines))


def _location_lines(said: dict[str, Any], region: str) -> list[str]:
    lines = [f"location    {said['level']}; policy {said['policy']}; {counted(len(said['refuted']), 'node')} refuted"]
    if said["doubted"]:
        lines.append("            too many others contradict what was measured here: is node.region right?")
    if said["contradicted_by"]:
        by = [
            f"{one['node'][:8]} of {one['operator']} ({one['region']}, at most {one['within_km']:,} km away)"
            for one in said["contradicted_by"]
        ]
        lines.append(f"            {region} is contradicted by {', '.join(by)}")
    return lines


def _drain_lines(said: dict[str, Any] | None) -> list[str]:
    if said is None:
        return []
    from lockbox_node.cli.drains import drain_words

    return [f"drain       {drain_words(said)}"]


def _restored_lines(found: dict[str, int] | None) -> list[str]:
    if found is None:
        return []
    words = "{checked} parts checked, {dropped} stale dropped, {missing} missing, {mended} mended".format(**found)
    return [f"restored    {words}"]


def _repair_words(repairs: dict[str, Any]) -> str:
    words = f"{repairs['done']} done, {repairs['failed']} failed, {repairs['pending']} pending"
    if repairs["pending"] and repairs["left_s"]:
        words += f" (about {repairs['left_s']:,.0f} s)"
    if repairs["margin_worst"] is not None:
        words += f"; the worst stripe may lose {repairs['margin_worst']} more"
    return words if repairs["enabled"] else words + ", paused"


def _scrub_words(scrub: dict[str, Any], last: dict[str, Any] | None) -> str:
    words = scrub["state"] if scrub["progress"] in (0, 1) else f"{scrub['state']}, {scrub['progress']:.0%}"
    if scrub["state"] == "waiting":
        words = f"the next in {counted(round(scrub['due_in_s'] / 86_400), 'day')}"
    if last is None:
        return f"{words}; none has ended yet"
    return f"{words}; the last ended {last['finished']}: {counted(last['parts'], 'part')}, {last['corrupt']:,} corrupt"


def _audit_words(audits: dict[str, Any]) -> str:
    counts = [f"{audits[verdict]:,} {verdict}" for verdict in ("held", "missing", "corrupt", "silent")]
    words = f"{audits['state']}; {', '.join(counts)}; {counted(audits['findings'], 'part')} not proven"
    excluded = [one["node"][:8] for one in audits["faults"] if one["excluded"]]
    return f"{words}; nothing new for {', '.join(excluded)}" if excluded else words


def _backup_words(last: dict[str, Any] | None) -> str:
    if last is None:
        return "none yet"
    import datetime

    made = datetime.datetime.fromtimestamp(last["unix_s"], datetime.UTC).isoformat(timespec="seconds")
    return f"the last {made}: {last['kind']}, {last['bytes']:,} bytes written"


@main.command()
@config_option
@json_option
@reporting
def members(config_path: Path, as_json: bool) -> None:
    """Who is in the network, as this node sees it.

    Example: lockbox-node members --config /var/lib/lockbox/node.toml
    """
    said = ask_node(config_path, "members")
    lines = ["NODE      STATUS   REGION          LOCATION  OPERATOR  ADDRESS"]
    lines += [
        f"{row['id'][:8]}  {row['status']:<7}  {row['region']:<14}  {row['location']:<8}  {row['operator']:<8}  "
        f"{row['addresses'][0]}"
        for row in said["members"]
    ]
    emit(as_json, said, "\n".join(lines))


@main.command(name="software-hash")
@json_option
@reporting
def software_hash(as_json: bool) -> None:
    """What this installation measures as. It is SHA-256 over the installed files.

    Example: lockbox-node software-hash
    """
    from lockbox_node.adapters.software_hash import software_hash as measure

    measured = measure().hex()
    emit(as_json, {"software": measured}, measured)


@main.command()
@json_option
@reporting
def version(as_json: bool) -> None:
    """The version of the program and of the protocol.

    Example: lockbox-node version --json
    """
    import importlib.metadata

    own = importlib.metadata.version("lockbox-node")
    emit(as_json, {"version": own, "protocol": [1]}, f"lockbox-node {own}, protocol 1")


if __name__ == "__main__":
    main()
