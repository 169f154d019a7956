"""A network under attack, and what it loses: `python -m benchmarks.storm [--nodes 25] [--assets 200] [--minutes 2]`.

Real daemons, assets of all four tiers, locks and unlocks without pause. Meanwhile two hands break things by a seed:
SIGKILL and restart, a disk wiped, shards rotten, a process stopped, a clean restart. Each hand breaks one node at a
time and takes the next only when what that one lost is whole again, so that no stripe ever falls below k. At the end
every node is up and every asset must be there: byte-identical, healthy, in place; what was deleted stays deleted.
Prints a report; the exit code is 1 when a line of it does not hold.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import trio
import trio.lowlevel

from benchmarks.local_network import CommandFailed, command, local_network
from benchmarks.workload import MemorySink, vault_of
from lockbox_node.client.ending import delete
from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.verify import verify
from lockbox_node.core.audit import Verdict
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import AssetNotFound, LockboxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from benchmarks.local_network import LocalNetwork
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.verify import VerifyResult
    from lockbox_node.client.wallet import AssetEntry

HANDS = 2  # nodes broken at once: what Basic, the smallest tier, may lose
LOCKERS, UNLOCKERS = 2, 2
AWAY_S = (1.0, 20.0)
ROT = 0.05  # of a node's shards
WHOLE_TIMEOUT_S = 240.0  # until what one fault took is whole again
UNLOCKS_MAX, WINDOW_S = 4, 65.0  # of one asset: verifiers grant five a minute
SIZES = (1_000, 5_000, 40_000, 400_000)
DELETED_SHARE = 0.05
FAULTS = ("kill", "kill", "wipe", "rot", "stop", "restart")


@dataclass
class Held:
    """One asset and what it must give back."""

    entry: AssetEntry
    content: bytes
    unlocked_at: list[float] = field(default_factory=list)

    def may_be_unlocked(self, now: float) -> bool:
        """Whether one more is within the rate."""
        self.unlocked_at = [at for at in self.unlocked_at if now - at < WINDOW_S]
        return len(self.unlocked_at) < UNLOCKS_MAX


@dataclass
class Storm:
    """What was done and what came of it."""

    network: LocalNetwork
    vault: Vault
    rng: Random
    wanted: int
    ends_at: float
    assets: list[Held] = field(default_factory=list)
    deleted: list[Held] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)  # names of nodes in a hand now
    faults: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=lambda: {"lock": [], "unlock": []})
    whole_s: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the time of breaking is over."""
        return time.monotonic() >= self.ends_at

    # Load

    async def locking(self) -> None:
        """Lock until there are as many as are wanted, then now and then; delete a few."""
        while not self.over:
            tier, size = self.rng.choice(TIERS), self.rng.choice(SIZES)
            content = os.urandom(size)
            done = await self._timed("lock", partial(lock, self.vault, BytesSource(bytearray(content)), tier))
            if done is not None:
                self.assets.append(Held(done.asset, content))
            if self.assets and self.rng.random() < DELETED_SHARE:
                await self._delete(self.assets.pop(self.rng.randrange(len(self.assets))))
            await trio.sleep(0.2 if len(self.assets) < self.wanted else 2.0)

    async def unlocking(self) -> None:
        """Unlock one after another and compare."""
        while not self.over:
            await trio.sleep(0.1)
            free = [held for held in self.assets if held.may_be_unlocked(time.monotonic())]
            if free:
                held = self.rng.choice(free)
                held.unlocked_at.append(time.monotonic())
                await self._timed("unlock", partial(self.opened, held))

    async def opened(self, held: Held) -> bool:
        """Unlock one; AssertionError when other bytes come out."""
        sink = MemorySink(len(held.content))
        await unlock(self.vault, held.entry, sink)
        assert sink.content == held.content, "other bytes came out than went in"
        return True

    async def _timed(self, what: str, operation: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        began = time.monotonic()
        try:
            done = await operation()
        except LockboxError as error:
            self.failures[f"{what}: {error.code.value}"] += 1
            return None
        self.took[what].append(time.monotonic() - began)
        return done

    async def _delete(self, held: Held) -> None:
        try:
            await delete(self.vault, held.entry)
        except LockboxError as error:
            self.failures[f"delete: {error.code.value}"] += 1
            return
        self.deleted.append(held)

    # Breaking

    async def hand(self) -> None:
        """Break one node after another."""
        while not self.over:
            name = self.rng.choice([node["name"] for node in self.network.nodes if node["name"] not in self.broken])
            fault = self.rng.choice(FAULTS)
            self.broken.add(name)
            self.faults[fault] += 1
            _say(f"{fault} {name}")
            await getattr(self, fault)(name)
            began = time.monotonic()
            if await self._until_whole(name):
                self.whole_s.setdefault(fault, []).append(time.monotonic() - began)
            else:
                self.problems.append(f"{fault} of {name}: not whole again after {WHOLE_TIMEOUT_S:.0f} s")
                _say(self.problems[-1])
            self.broken.discard(name)

    async def kill(self, name: str) -> None:
        """SIGKILL, a while of absence, a restart."""
        await self._verb("kill", name)
        await trio.sleep(self.rng.uniform(*AWAY_S))
        await self._verb("restart", name)

    async def wipe(self, name: str) -> None:
        """The disk is gone; the node comes back with its identity alone."""
        await self._verb("wipe", name)

    async def rot(self, name: str) -> None:
        """Bits flip where they lie; a scrub reads them."""
        await self._verb("corrupt", name, "--share", str(ROT), "--seed", str(self.rng.randrange(2**31)))
        data = next(node["data"] for node in self.network.nodes if node["name"] == name)
        config = str(Path(data) / "node.toml")
        await _run(partial(command, "lockbox-node", "scrub", "--config", config, "--json", expect=None))

    async def stop(self, name: str) -> None:
        """SIGSTOP, a while, SIGCONT."""
        await self._verb("stop", name)
        await trio.sleep(self.rng.uniform(*AWAY_S))
        await self._verb("cont", name)

    async def restart(self, name: str) -> None:
        """SIGTERM and a new start."""
        await self._verb("restart", name)

    async def _verb(self, *words: str) -> None:
        try:
            await _run(partial(self.network.verb, *words))
        except CommandFailed as failed:
            self.problems.append(str(failed).splitlines()[0])
            _say(str(failed))

    async def _until_whole(self, name: str) -> bool:
        """Whether every asset soon misses nothing but what the other hand holds."""
        deadline = time.monotonic() + WHOLE_TIMEOUT_S
        while time.monotonic() < deadline:
            ours = {node["id"] for node in self.network.nodes if node["name"] in self.broken - {name}}
            short = [held for held in list(self.assets) if not await self._is_whole(held, ours)]
            if not short:
                return True
            await trio.sleep(5.0)  # holders prove a part to one person 30 times a minute, and there are two hands
        return False

    async def _is_whole(self, held: Held, excused: set[str]) -> bool:
        """Whether every index is held, those of excused nodes left out."""
        try:
            found = await verify(self.vault, held.entry)
        except LockboxError:
            return held not in self.assets  # deleted meanwhile
        missing = lacking(found)
        return missing <= sum(line.node.hex() in excused for line in found.holders) if missing else True

    # The end

    async def judge(self) -> Iterator[str]:
        """Lines of the report about what is left."""
        began = time.monotonic()
        whole = await self._until_whole("")
        ended_s = time.monotonic() - began
        states = Counter[str]()
        wrong: list[str] = []
        for held in self.assets:
            try:
                await trio.lowlevel.checkpoint()
                await self.opened(held)
                states[(await verify(self.vault, held.entry)).state] += 1
            except (LockboxError, AssertionError) as error:
                wrong.append(str(error))
        back = 0
        for held in self.deleted:
            try:
                await unlock(self.vault, held.entry, MemorySink(len(held.content)))
            except (AssetNotFound, LockboxError):
                continue
            back += 1
        healthy = states["healthy"]
        if not whole or wrong or back or healthy < len(self.assets):
            self.problems.append(f"at the end: {dict(states)}, {len(wrong)} not unlocked ({wrong[:2]}), {back} back")
        return iter(
            [
                f"| assets unlocked byte-identical | {len(self.assets) - len(wrong)} of {len(self.assets)} |",
                f"| healthy: every shard proved by a live legal holder | {healthy} of {len(self.assets)} |",
                f"| deleted and still gone | {len(self.deleted) - back} of {len(self.deleted)} |",
                f"| whole after the last fault | {ended_s:.1f} s |",
            ]
        )


def lacking(found: VerifyResult) -> int:
    """How many indices of all stripes nobody proved."""
    stripes = {line.stripe for line in found.holders}
    held = {(line.stripe, line.index) for line in found.holders if line.verdict is Verdict.HELD}
    return len(stripes) * found.tier.n - len(held)


async def _run(work: Callable[[], Any]) -> Any:  # noqa: ANN401
    return await trio.to_thread.run_sync(work)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ranked = sorted(values)
    p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    return f"{len(ranked)}; median {statistics.median(ranked):.2f} s, p99 {p99:.2f} s"


async def blow(
    network: LocalNetwork, home: Path, seed: int, assets: int, minutes: float
) -> tuple[list[str], list[str]]:
    """The whole storm: the lines of the report, and what did not hold."""
    async with vault_of(network, home) as vault:
        storm = Storm(network, vault, Random(seed), assets, time.monotonic() + 60 * minutes)
        async with trio.open_nursery() as nursery:
            for _ in range(LOCKERS):
                nursery.start_soon(storm.locking)
            for _ in range(UNLOCKERS):
                nursery.start_soon(storm.unlocking)
            await trio.sleep(min(15.0, 15 * minutes))
            for _ in range(HANDS):
                nursery.start_soon(storm.hand)
        ending = await storm.judge()
        rows = await _run(network.status)
    repairs = Counter[str]()
    for row in rows:
        said = row.get("status")
        if said is None:
            storm.problems.append(f"{row['name']} is {row['state']} and does not answer")
            continue
        done = said["repairs"]
        repairs.update({**done["by_cause"], "failed": done["failed"], "let go": done["let_go"]})
    return [
        f"| storm of {minutes:g} min, {len(network.nodes)} nodes, seed {seed} | |",
        "|---|---|",
        f"| faults | {sum(storm.faults.values())}: {_counted(storm.faults)} |",
        *(f"| {what}s under it | {_spread(values)} |" for what, values in storm.took.items()),
        f"| operations refused | {_counted(storm.failures) or 'none'} |",
        *(f"| whole again after {fault} | {_spread(values)} |" for fault, values in sorted(storm.whole_s.items())),
        f"| repairs | {_counted(repairs)} |",
        *ending,
        *(f"| DOES NOT HOLD | {problem} |" for problem in storm.problems),
    ], storm.problems


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--nodes", type=int, default=25)
    parser.add_argument("--assets", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    with local_network(options.nodes) as network:
        home = network.directory / "home-storm"
        home.mkdir()
        lines, problems = trio.run(blow, network, home, options.seed, options.assets, options.minutes)
    table = "\n".join(lines)
    print(table)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(table + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
