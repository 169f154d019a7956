"""Locks and unlocks through the real client against a running test network: rates, latencies, CPU of all processes.

"Clients" are tasks of one client process that share one vault and its connections, each with one operation in flight:
the figures are those of a busy gateway, not of many short commands. CPU is read from /proc for the daemons and for
ourselves, before and after.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from mnemonic import Mnemonic

from benchmarks.local_network import PASSPHRASE, LocalNetwork
from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.adapters.workers import ThreadWorkers
from lockbox_node.client.greeting import Greeter
from lockbox_node.client.lock import lock
from lockbox_node.client.sink import FileSink, Sink
from lockbox_node.client.source import BytesSource, FileSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.vault import Ports, Vault, open_vault
from lockbox_node.client.wallet import AssetEntry, Wallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from lockbox_node.core.tiers import Tier

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: operations per second, median and 95th percentile in ms, CPU ms per operation (client, all nodes)."""

    operations: int
    per_second: float
    p50_ms: float
    p95_ms: float
    client_cpu_ms: float
    nodes_cpu_ms: float


class MemorySink(Sink):
    """Bytes of one asset, compared and forgotten."""

    ordered = False

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)

    def write_at(self, offset: int, piece: memoryview) -> None:
        """Keep a piece."""
        self.content[offset : offset + len(piece)] = piece

    def commit(self) -> None:
        """Nothing to make permanent."""

    def discard(self) -> None:
        """Nothing to take away."""


@asynccontextmanager
async def vault_of(network: LocalNetwork, home: Path) -> AsyncIterator[Vault]:
    """A joined vault with the wallet in `home`."""
    with wallet_in(network, home) as wallet:
        async with joined(network, wallet) as vault:
            yield vault


def wallet_in(network: LocalNetwork, home: Path) -> Wallet:
    """The wallet in `home`, made if there is none."""
    entropy, summary = OsEntropy(), network.summary
    if (home / "wallet").exists():
        return Wallet.open(home / "wallet", PASSPHRASE, entropy)
    return Wallet.create(
        home / "wallet",
        Mnemonic("english").generate(256),
        PASSPHRASE,
        PASSPHRASE,
        Path(summary["network"]).read_bytes(),
        summary["bootstrap"],
        Path(summary["client_cert"]).read_bytes(),
        Path(summary["client_key"]).read_bytes(),
        entropy,
    )


@asynccontextmanager
async def joined(network: LocalNetwork, wallet: Wallet) -> AsyncIterator[Vault]:
    """A vault of that wallet that knows nothing of the network but its bootstrap addresses."""
    summary = network.summary
    entropy, clock = OsEntropy(), SystemClock()
    network_file = NetworkFile.load(Path(summary["network"]))
    identity = ClientIdentity.load(network_file, Path(summary["client_cert"]), Path(summary["client_key"]), clock)
    ports = Ports(TcpNetwork(identity), entropy, clock, ThreadWorkers(trio.CapacityLimiter(2)))
    async with open_vault(ports, Greeter(identity, clock), wallet, summary["bootstrap"]) as vault:
        yield vault


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


async def measured(
    clients: int, seconds: float, pids: Sequence[int], operation: Callable[[], Awaitable[None]]
) -> Measured:
    """Run `operation` in `clients` tasks for `seconds`; every failure is raised."""
    latencies: list[float] = []
    nodes_before, own_before = cpu_seconds(pids), time.process_time()
    started = time.perf_counter()

    async def one() -> None:
        while time.perf_counter() - started < seconds:
            began = time.perf_counter()
            await operation()
            latencies.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one)
    took = time.perf_counter() - started
    done = len(latencies)
    return Measured(
        done,
        done / took,
        statistics.median(latencies) * 1000,
        sorted(latencies)[int(done * 0.95)] * 1000,
        (time.process_time() - own_before) / done * 1000,
        (cpu_seconds(pids) - nodes_before) / done * 1000,
    )


@dataclass(slots=True)
class Small:
    """Small assets: locks them, then unlocks them in turn and compares."""

    vault: Vault
    tier: Tier
    size: int
    locked: list[tuple[AssetEntry, bytes]]
    turn: int = 0

    async def lock_one(self) -> None:
        """Lock `size` random bytes."""
        content = os.urandom(self.size)
        result = await lock(self.vault, BytesSource(bytearray(content)), self.tier)
        assert result.placed == result.wanted
        self.locked.append((result.asset, content))

    async def unlock_one(self) -> None:
        """Unlock the next one and demand the same bytes."""
        self.turn += 1
        asset, content = self.locked[self.turn % len(self.locked)]
        sink = MemorySink(self.size)
        await unlock(self.vault, asset, sink)
        assert sink.content == content


async def large(vault: Vault, tier: Tier, path: Path, output: Path) -> tuple[float, float]:
    """Lock and unlock one file; seconds each. The bytes are compared."""
    source = FileSource(path)
    started = time.perf_counter()
    try:
        result = await lock(vault, source, tier)
    finally:
        source.close()
    locked_s = time.perf_counter() - started
    started = time.perf_counter()
    await unlock(vault, result.asset, FileSink(output, force=True))
    unlocked_s = time.perf_counter() - started
    assert path.read_bytes() == output.read_bytes()
    return locked_s, unlocked_s
