"""Round trips over the world: what a client waits for, counted and timed, on `lockbox-testnet up --latency world`.

Every request of an operation is written down with its node and its times. The last answer that the operation ended
with, the answer that let that one be asked, and so on back to the start: that chain is what was waited for. Its length
is the number of round trips, its links are the needed ones; whoever had to be dialled for it costs up to three more
(TCP, TLS 1.3, Hello; fewer when its dial was under way). Ideal times come from the delays alone, so a ratio of 1 is
light in fibre and nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.local_network import LocalNetwork, local_network
from benchmarks.workload import Small, joined, wallet_in
from lockbox_node.client.nearness import COLD_TRIPS
from lockbox_node.core.tiers import Tier, tier_named
from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from lockbox_node.client.members import Member
    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from lockbox_node.rpc.pool import Posted
    from protocol.messages import Message

NODES = 21
PLACES = ("eu-central-1", "us-east-1", "ap-southeast-2")
OPERATIONS = 30
WARM_LOCKS = 8  # until every node is connected
NAPS, NAP_S = 100, 0.01
SETTLE_S = 3.0  # until pointers are spread
SIZE = 1024
LATENCY = "latency.json"


@dataclass(slots=True)
class Asked:
    """One request of an operation, to a node so far away. Times are trio's."""

    round_trip_ms: float
    posted_at: float
    posted: Posted | None = None
    answered_at: float = float("inf")

    @property
    def trips(self) -> int:
        """Round trips that it took, those of its dial included."""
        assert self.posted is not None
        dial_ms = (self.posted.sent_at - self.posted_at) * 1000
        return 1 + min(COLD_TRIPS - 1, round(dial_ms / self.round_trip_ms))


@dataclass(slots=True)
class Operation:
    """What one operation asked, and how long it took."""

    began: float
    took_ms: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    def chain(self) -> list[Asked]:
        """The requests that were waited for, the last one first."""
        before, found = self.began + self.took_ms / 1000, []
        while answered := [one for one in self.asked if one.answered_at <= before]:
            found.append(max(answered, key=lambda one: one.answered_at))
            before = found[-1].posted_at
        return found


_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


class Watched:
    """A vault whose requests are written down by the operation that they belong to."""

    def __init__(self, vault: Vault, round_trips_ms: dict[str, float]) -> None:
        self.vault = vault
        self.round_trips_ms = round_trips_ms
        self._post = vault.post
        vault.post = self.post  # type: ignore[method-assign]

    def post(self, member: Member, request: Message, answer: Callable[[Outcome], None]) -> Posted:
        """As the vault's."""
        operation = _current.get()
        if operation is None:
            return self._post(member, request, answer)
        asked = Asked(self.round_trips_ms[member.record.region], trio.current_time())
        operation.asked.append(asked)

        def answered(outcome: Outcome) -> None:
            if not isinstance(outcome, LockboxError):
                asked.answered_at = trio.current_time()
            answer(outcome)

        asked.posted = self._post(member, request, answered)
        return asked.posted

    async def timed(self, work: Callable[[], Awaitable[None]]) -> Operation:
        """Run `work`."""
        operation = Operation(trio.current_time())
        token = _current.set(operation)
        try:
            await work()
        finally:
            _current.reset(token)
        operation.took_ms = (trio.current_time() - operation.began) * 1000
        return operation

    def row(self, place: str, name: str, operations: Sequence[Operation]) -> str:
        """One line of the table."""
        chains = [one.chain() for one in operations]
        trips = [sum(link.trips for link in chain) for chain in chains]
        slowest = [max(link.round_trip_ms for link in chain) for chain in chains]
        needed = [sum(link.trips * link.round_trip_ms for link in chain) for chain in chains]
        took = [one.took_ms for one in operations]
        by_slowest = [t / (n * ms) for t, n, ms in zip(took, trips, slowest, strict=True)]
        by_needed = [t / ms for t, ms in zip(took, needed, strict=True)]
        columns = (
            place,
            name,
            _span(trips, 0),
            _span(slowest, 0),
            f"{_span(took, 0)}, p95 {sorted(took)[int(len(took) * 0.95)]:.0f}",
            _span(by_slowest, 2),
            _span(by_needed, 2),
        )
        return f"| {' | '.join(columns)} |"


HEAD = [
    "| client in | operation | round trips | slowest needed link, ms | took, ms | took / (round trips x slowest link) "
    "| took / sum of needed links |",
    "|---|---|---|---|---|---|---|",
]


def _span(values: Sequence[float], digits: int) -> str:
    middle, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}-{most})"


def move_clients(network: LocalNetwork, region: str) -> dict[str, float]:
    """From their next connection on clients stand in `region`; the round trips to all regions from there."""
    path = network.directory / LATENCY
    said = json.loads(path.read_text())
    said["elsewhere"] = region
    written = path.with_suffix(".moved")
    written.write_text(json.dumps(said))
    written.replace(path)
    round_trips: dict[str, float] = said["round_trip_ms"][region]
    return round_trips


@asynccontextmanager
async def watched(network: LocalNetwork, wallet: Wallet, region: str) -> AsyncIterator[tuple[Watched, float]]:
    """A client in `region` that has just started, and how many ms it took to join."""
    round_trips = move_clients(network, region)
    began = trio.current_time()
    async with joined(network, wallet) as vault:
        yield Watched(vault, round_trips), (trio.current_time() - began) * 1000


async def connect_row(client: Watched, place: str) -> str:
    """The farthest node to which there is no connection yet."""
    vault = client.vault
    cold = [member for member in vault.members.all() if vault.pool.ready(member.record.node) is None]
    farthest = max(cold, key=lambda member: client.round_trips_ms[member.record.region])
    ms = client.round_trips_ms[farthest.record.region]
    began = trio.current_time()
    await vault.pool.connection(farthest.contact)
    took_ms = (trio.current_time() - began) * 1000
    trips = COLD_TRIPS - 1
    ratio = f"{took_ms / (trips * ms):.2f}"
    return f"| {place} | connect: TCP, TLS 1.3, Hello | {trips} | {ms:.0f} | {took_ms:.0f} | {ratio} | {ratio} |"


async def rows(network: LocalNetwork, home: Path, place: str, tier: Tier, count: int) -> list[str]:
    """Everything from one place: cold, then warm."""
    lines: list[str] = []
    home.mkdir()
    with wallet_in(network, home) as wallet:
        async with watched(network, wallet, place) as (client, joined_ms):
            lines.append(f"| {place} | join, nothing known but addresses | - | - | {joined_ms:.0f} | - | - |")
            lines.append(await connect_row(client, place))
        async with watched(network, wallet, place) as (client, _):
            small = Small(client.vault, tier, SIZE, [])
            lines.append(client.row(place, "first lock, cold", [await client.timed(small.lock_one)]))
        await trio.sleep(SETTLE_S)
        async with watched(network, wallet, place) as (client, _):
            small = Small(client.vault, tier, SIZE, small.locked)
            lines.append(client.row(place, "first unlock, cold", [await client.timed(small.unlock_one)]))
            lines += await warm_rows(client, place, tier, count)
    return lines


async def warm_rows(client: Watched, place: str, tier: Tier, count: int) -> list[str]:
    """Locks, then unlocks, over connections that stand."""
    small = Small(client.vault, tier, SIZE, [])
    for _ in range(WARM_LOCKS):
        await small.lock_one()
    locks = [await client.timed(small.lock_one) for _ in range(count)]
    await trio.sleep(SETTLE_S)
    await small.unlock_one()
    unlocks = [await client.timed(small.unlock_one) for _ in range(count)]
    return [client.row(place, "lock, warm", locks), client.row(place, "unlock, warm", unlocks)]


def table(nodes: int, places: Sequence[str], count: int, tier: Tier) -> list[str]:
    """The lines, from a network of its own."""
    lines = list(HEAD)
    late: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="lockbox-trips-") as directory,
        local_network(nodes, "--latency", "world", "--policy", "healing=off") as network,
    ):
        for place in places:
            late += trio.run(lateness)
            lines += trio.run(rows, network, Path(directory) / place, place, tier, count)
    lines += [
        "",
        f"A process that wanted to sleep {NAP_S * 1000:.0f} ms in the same run was late by, ms: {_span(late, 1)}",
    ]
    return lines


async def lateness() -> list[float]:
    """By how many ms this machine wakes a process too late: what it adds to every step of every process."""
    late = []
    for _ in range(NAPS):
        due = trio.current_time() + NAP_S
        await trio.sleep_until(due)
        late.append((trio.current_time() - due) * 1000)
    return late


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Round trips of a client of a network all over the world.")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--places", default=",".join(PLACES))
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--tier", default="standard")
    options = parser.parse_args()
    for line in table(options.nodes, options.places.split(","), options.operations, tier_named(options.tier)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
