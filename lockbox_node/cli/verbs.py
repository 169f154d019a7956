"""What `lockbox-testnet` may ask of a running test network: the verbs of its socket.

Each returns when what it asks for is done, with `text` for people beside the fields for scripts. Names are checked
before anything is touched; a node that hangs delays nobody for longer than `NODE_TIMEOUT_S`.
"""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.cli import faults
from lockbox_node.cli.partitions import Partition
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from lockbox_node import control
    from lockbox_node.cli.network import Member, Testnet

NODE_TIMEOUT_S = 5.0  # for one node to answer
COLUMNS = "NODE  STATE     REGION          OPERATOR  ALIVE  DEAD  STRIPES  SHARDS  CORRUPT  REPAIRED  PENDING"


def verbs_of(testnet: Testnet) -> dict[str, control.Verb]:
    """The verbs of the control socket."""
    verbs = Verbs(testnet)
    return {
        "kill": verbs.kill,
        "restart": verbs.restart,
        "stop": verbs.stop,
        "cont": verbs.cont,
        "kill-region": verbs.kill_region,
        "add": verbs.add,
        "corrupt": verbs.corrupt,
        "wipe": verbs.wipe,
        "policy": verbs.policy,
        "partition": verbs.partition,
        "heal": verbs.heal,
        "status": verbs.status,
    }


class Verbs:
    """Requests are maps from the command line, answers are maps for it."""

    def __init__(self, testnet: Testnet) -> None:
        self._testnet = testnet

    async def kill(self, request: dict[str, Any]) -> object:
        """SIGKILL; done when the processes are gone."""
        members = self._testnet.named(request["nodes"])
        await self._kill(members)
        return _told(members, "killed")

    async def kill_region(self, request: dict[str, Any]) -> object:
        """The same for all nodes of one region."""
        region = request["region"]
        members = [member for member in self._testnet.members.values() if member.region == region]
        if not members:
            used = dict.fromkeys(member.region for member in self._testnet.members.values())
            raise UsageError(f"no node is in region {region!r}", f"in use: {', '.join(used)}")
        await self._kill(members)
        return _told(members, "killed")

    async def restart(self, request: dict[str, Any]) -> object:
        """Kill what runs, start all, wait until every running node knows them."""
        members = self._testnet.named(request["nodes"])
        await self._kill(members)
        await self._testnet.start(members)
        return _told(members, "ready again")

    async def stop(self, request: dict[str, Any]) -> object:
        """SIGSTOP; done when the processes stand still."""
        members = self._testnet.named(request["nodes"])
        _require_running(members)
        for member in members:
            await member.daemon.pause()
        return _told(members, "stopped")

    async def cont(self, request: dict[str, Any]) -> object:
        """SIGCONT; done when the documents of the network, and the partition, are in force there."""
        members = self._testnet.named(request["nodes"])
        _require_running(members)
        for member in members:
            member.daemon.resume()
        await self._tell_parting(members)
        await self._testnet.publish()
        return _told(members, "running again")

    async def add(self, request: dict[str, Any]) -> object:
        """New nodes; done when all that run know them."""
        members = await self._testnet.add(request["count"], request["region"])
        return _told(members, "added and ready")

    async def corrupt(self, request: dict[str, Any]) -> object:
        """Flip bits in the stored shards of these nodes, one after the other."""
        members = self._testnet.named(request["nodes"])
        changed = 0
        for number, member in enumerate(members):
            damage = partial(faults.corrupt, member.data, request["share"], request["seed"] + number)
            changed += await trio.to_thread.run_sync(damage)
        return {**_told(members, f"corrupted, {changed} shards changed"), "changed": changed}

    async def wipe(self, request: dict[str, Any]) -> object:
        """These nodes lose their disks, and keep who they are. Those that ran are started and ready again."""
        members = self._testnet.named(request["nodes"])
        ran = [member for member in members if member.daemon.state != "down"]
        await self._kill(members)
        for member in members:
            await trio.to_thread.run_sync(faults.wipe, member.data)
        if ran:
            await self._testnet.start(ran)
        return _told(members, "wiped")

    async def policy(self, request: dict[str, Any]) -> object:
        """The authority's next policy for every node: those that run now, those that are down, those to come."""
        self._testnet.set_policy(request["settings"])
        await self._testnet.publish()
        return _told(self._testnet.running(), " ".join(request["settings"]))

    async def partition(self, request: dict[str, Any]) -> object:
        """Two sides hear nothing of one another from now on, instead of whatever partition stood before."""
        partition = Partition.of(request["a"], request["b"], request["client"], self._testnet.members)
        self._testnet.part(partition)
        await self._tell_parting(self._testnet.running())
        return {**partition.described(), "text": partition.words()}

    async def heal(self, _request: dict[str, Any]) -> object:
        """Everybody hears everybody; done when all that run have taken it."""
        stood = self._testnet.partition
        self._testnet.part(None)
        await self._tell_parting(self._testnet.running())
        return {"healed": stood is not None, "text": "healed" if stood else "there was no partition"}

    async def status(self, _request: dict[str, Any]) -> object:
        """Every node's line; `status` is what it says of itself, missing when it is down or does not answer."""
        rows: list[dict[str, Any]] = [
            {**member.described(), "state": member.daemon.state} for member in self._testnet.members.values()
        ]
        async with trio.open_nursery() as nursery:
            for row, member in zip(rows, self._testnet.members.values(), strict=True):
                if row["state"] == "up":
                    nursery.start_soon(_ask_status, row, member)
        partition = self._testnet.partition
        lines = status_lines(rows) if partition is None else [*status_lines(rows), f"partition: {partition.words()}"]
        return {"nodes": rows, "partition": partition and partition.described(), "text": "\n".join(lines)}

    async def _kill(self, members: list[Member]) -> None:
        for member in members:
            member.daemon.signal(signal.SIGKILL)
        for member in members:
            await member.daemon.kill()
        self._testnet.save()

    async def _tell_parting(self, members: list[Member]) -> None:
        await _tell(members, "parting")


def _require_running(members: list[Member]) -> None:
    for member in members:
        if member.daemon.pid is None:
            raise UsageError(f"{member.name} is down", "start it with: lockbox-testnet restart")


async def _tell(members: list[Member], verb: str, **arguments: object) -> None:
    """Ask all at once. LockboxError when a daemon that runs does not take it; the others have it all the same."""
    failures: list[LockboxError] = []

    async def one(member: Member) -> None:
        try:
            with trio.fail_after(NODE_TIMEOUT_S):
                await member.ask(verb, **arguments)
        except trio.TooSlowError:
            failures.append(LockboxError(f"{member.name} does not answer", "is it stopped?"))
        except LockboxError as error:
            if member.daemon.state == "up":
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(one, member)
    if failures:
        raise failures[0]


async def _ask_status(row: dict[str, Any], member: Member) -> None:
    try:
        with trio.move_on_after(NODE_TIMEOUT_S):
            row["status"] = await member.ask("status")
    except LockboxError:
        row["state"] = member.daemon.state


def _told(members: list[Member], word: str) -> dict[str, object]:
    names = [member.name for member in members]
    return {"nodes": names, "done": word, "text": f"{', '.join(names)}: {word}"}


def status_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table for people, and a last line that counts."""
    lines = [COLUMNS]
    for row in rows:
        said = row.get("status") or {}
        members, repairs = said.get("members", {}), said.get("repairs", {})
        lines.append(
            f"{row['name']:<5} {row['state']:<9} {row['region']:<15} {row['operator']:<8} "
            f"{members.get('alive', '-'):>6} {members.get('dead', '-'):>5} {said.get('stripes', '-'):>8} "
            f"{said.get('shards', '-'):>7} {said.get('corrupt', '-'):>8} {repairs.get('done', '-'):>9} "
            f"{repairs.get('pending', '-'):>8}"
        )
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    paused = any(not row["status"]["repairs"]["enabled"] for row in rows if row.get("status"))
    return [*lines, f"{len(rows)} nodes: {counts}" + _healing_words(rows) + ("; healing is paused" if paused else "")]


def _healing_words(rows: list[dict[str, Any]]) -> str:
    """How safe the worst stripe of all is, and what waits."""
    said = [row["status"]["repairs"] for row in rows if row.get("status")]
    margins = [one["margin_worst"] for one in said if one.get("margin_worst") is not None]
    waiting = sum(one.get("pending", 0) for one in said)
    words = f"; the worst stripe may lose {min(margins)} more" if margins else ""
    if waiting:
        left_s = max(one.get("left_s", 0.0) for one in said)
        words += f"; {waiting} repairs wait" + (f", about {left_s:,.0f} s" if left_s else "")
    return words
