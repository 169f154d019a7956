"""A client that measures: what a network of `lockbox-node` costs from where this process stands, as one JSON line.

`python -m tests.real.far_client SUMMARY HOME REGION`: SUMMARY is a file with what `lockbox-testnet up --json` prints.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.round_trips import SETTLE_S, SIZE, Watched
from benchmarks.workload import Small, joined, wallet_in
from lockbox_node.cli.delays import round_trip_ms
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.tiers import tier_named

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.local_network import LocalNetwork
    from benchmarks.round_trips import Operation

OPERATIONS = 15
CONNECTS = 5


class Described:
    """As much of a LocalNetwork as a client needs."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary


async def measured(network: LocalNetwork, home: Path, region: str) -> dict[str, Any]:
    """Quickest TCP connects by region, then locks and unlocks over open connections."""
    round_trips = {name: round_trip_ms(region, name) for name in BUILT_IN.regions}
    with wallet_in(network, home) as wallet:
        async with joined(network, wallet) as vault:
            client = Watched(vault, round_trips)
            small = Small(vault, tier_named("standard"), SIZE, [])
            for _ in range(3):
                await small.lock_one()
            locks = [await client.timed(small.lock_one) for _ in range(OPERATIONS)]
            await trio.sleep(SETTLE_S)
            await small.unlock_one()
            unlocks = [await client.timed(small.unlock_one) for _ in range(OPERATIONS)]
            connects = {
                member.record.region: min([await connect_ms(member.contact.addresses[0]) for _ in range(CONNECTS)])
                for member in vault.members.all()
            }
    return {"connect_ms": connects, "lock": described(locks), "unlock": described(unlocks)}


async def connect_ms(address: str) -> float:
    """TCP alone."""
    host, _, port = address.rpartition(":")
    began = trio.current_time()
    stream = await trio.open_tcp_stream(host, int(port))
    took_ms = (trio.current_time() - began) * 1000
    await stream.aclose()
    return took_ms


def described(operations: list[Operation]) -> dict[str, float]:
    """Round trips, and the quickest beside what light in fibre needs."""
    chains = [one.chain() for one in operations]
    ideal_ms = [sum(link.trips * link.round_trip_ms for link in chain) for chain in chains]
    ratios = [one.took_ms / ideal for one, ideal in zip(operations, ideal_ms, strict=True)]
    return {
        "trips": statistics.median(sum(link.trips for link in chain) for chain in chains),
        "took_ms": min(one.took_ms for one in operations),
        "ratio": min(ratios),
    }


def main() -> None:
    """Measure and print."""
    summary, home, region = sys.argv[1:]
    network: Any = Described(json.loads(Path(summary).read_text()))
    print(json.dumps(trio.run(measured, network, Path(home), region)))


if __name__ == "__main__":
    main()
