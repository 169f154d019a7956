"""Calls a second over one connection of mutual TLS on loopback, two processes: `python -m benchmarks.rpc [--reps 5]`.

A client asks a node, through the pool and the server as in production, with roles and rates checked. About 200 B each
way, at 1 and at 64 calls in flight; 64 KiB replies besides. Median (lowest-highest) of the repetitions.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile, NodeIdentity
from lockbox_node.adapters.keystores import FileKeyStore
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.cli.authority import create_authority, create_client, create_node, issue
from lockbox_node.config import Config, NodeSettings
from lockbox_node.core.admission import AdmissionParams
from lockbox_node.rpc.dispatch import Dispatcher, Route
from lockbox_node.rpc.pool import Pool
from lockbox_node.rpc.server import Server
from protocol.certificates import Role
from protocol.messages import FindHolders, GetSlot, Hello, Holders, Message, Signed, Slots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection as Wire

    from lockbox_node.errors import LockboxError
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from protocol.certificates import NetworkRoot

SMALL = GetSlot(bytes(32), Signed(bytes(80), bytes(64)))
SMALL_REPLY = Slots([], Signed(bytes(110), bytes(64)))
LARGE = FindHolders(bytes(32))
LARGE_REPLY = Holders([], Signed(bytes(32 * 1024), bytes(64)), [Signed(bytes(32 * 1024), bytes(64))])
UNLIMITED = AdmissionParams(client_rate=1e9, client_burst=1e9)


class Identity(Protocol):
    """What node and client identities of the adapters have in common."""

    root: NetworkRoot

    @property
    def role(self) -> Role: ...
    @property
    def chain(self) -> Sequence[bytes]: ...


@dataclass
class Local:
    """A LocalIdentity over an adapter's identity."""

    identity: Identity
    id: bytes

    @property
    def role(self) -> Role:
        return self.identity.role

    @property
    def root(self) -> NetworkRoot:
        return self.identity.root

    def hello(self) -> Hello:
        software = bytes(32) if self.role is Role.NODE else b""
        clock_unix_ms = int(SystemClock().now_unix_s() * 1000)
        return Hello(list(self.identity.chain), [1], self.root.network_id, None, software, clock_unix_ms)


def small(_request: GetSlot, _peer: Peer, answer: Answer[Message]) -> None:
    """Answer at once."""
    answer(SMALL_REPLY)


def large(_request: FindHolders, _peer: Peer, answer: Answer[Message]) -> None:
    """Answer at once."""
    answer(LARGE_REPLY)


def serve(home: Path, port_goes_to: Wire) -> None:
    """A node's process."""

    async def main() -> None:
        identity = await node_identity(home)
        local = Local(identity, identity.node_id)
        network = TcpNetwork(identity)
        dispatcher = Dispatcher(UNLIMITED)
        dispatcher.add(Route(GetSlot, small), Route(FindHolders, large))
        pool = Pool(network, local, dispatcher)
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            port_goes_to.send(await nursery.start(Server(network, pool, local, dispatcher).run))

    trio.run(main)


async def node_identity(home: Path) -> NodeIdentity:
    """Of the node below `home`, in the network below it."""
    keystore = FileKeyStore.load(home / "node" / "identity" / "key.pem")
    root = NetworkFile.load(home / "ca" / "network.pem").root
    return await NodeIdentity.load(home / "node" / "identity", root, keystore, SystemClock(), OsEntropy())


async def calls_per_s(connection: Connection, request: Message, in_flight: int, seconds: float) -> float:
    """Calls answered in `seconds`; as many as `in_flight` wait at any time, each answer posts the next call."""
    done = 0
    ended = trio.Event()
    deadline = time.perf_counter() + seconds
    waiting = in_flight

    def answered(result: Message | LockboxError) -> None:
        nonlocal done, waiting
        assert isinstance(result, Message), result
        done += 1
        if done % 16 or time.perf_counter() < deadline:
            connection.post(request, answered)
            return
        waiting -= 1
        if not waiting:
            ended.set()

    started = time.perf_counter()
    for _ in range(in_flight):
        connection.post(request, answered)
    await ended.wait()
    return done / (time.perf_counter() - started)


async def requests_per_s(connection: Connection, request: Message, seconds: float) -> float:
    """One awaited request after the other."""
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        await connection.request(request)
        done += 1
    return done / (time.perf_counter() - started)


def measure(seconds: float, reps: int) -> dict[str, list[float]]:
    """Calls a second by row."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        prepare(home)
        ours, theirs = multiprocessing.Pipe()
        node = multiprocessing.get_context("spawn").Process(target=serve, args=(home, theirs))
        node.start()
        try:
            return trio.run(_measure, home, ours.recv(), seconds, reps)
        finally:
            node.terminate()
            node.join()


async def _measure(home: Path, port: int, seconds: float, reps: int) -> dict[str, list[float]]:
    network_file = NetworkFile.load(home / "ca" / "network.pem")
    identity = ClientIdentity.load(network_file, home / "client.pem", home / "client.key", SystemClock())
    pool = Pool(TcpNetwork(identity), Local(identity, identity.client_id))
    rows: dict[str, list[float]] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        connection = await pool.connect_address("127.0.0.1", port)
        for _ in range(reps):
            for row, rate in (
                ("200 B, awaited one by one", await requests_per_s(connection, SMALL, seconds)),
                ("200 B, 1 in flight", await calls_per_s(connection, SMALL, 1, seconds)),
                ("200 B, 64 in flight", await calls_per_s(connection, SMALL, 64, seconds)),
                ("64 KiB, 16 in flight", await calls_per_s(connection, LARGE, 16, seconds)),
            ):
                rows.setdefault(row, []).append(rate)
        nursery.cancel_scope.cancel()
    return rows


def prepare(home: Path) -> None:
    """The files of a network, a client and a node."""
    create_authority(home / "ca", "benchmark")
    create_client(home / "client.key", home / "client.csr")
    issue(home / "ca", home / "client.csr", "client", home / "client.pem")
    settings = NodeSettings(region="us-east-1", operator="benchmark")
    request = create_node(home / "node", home / "ca" / "network.pem", Config(node=settings))
    issue(home / "ca", request, "node", home / "node" / "identity" / "node.pem")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    arguments = parser.parse_args()
    for row, rates in measure(arguments.seconds, arguments.reps).items():
        print(f"{row}: {statistics.median(rates):,.0f} /s ({min(rates):,.0f}-{max(rates):,.0f}), {arguments.reps} runs")


if __name__ == "__main__":
    main()
