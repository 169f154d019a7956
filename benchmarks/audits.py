"""`python -m benchmarks.audits`: what one audit of possession costs both ends, and how much of a core that is a day.

A judge and its ward, each a process with a real store, over mutual TLS on loopback; the judge works as in a node
but without a pace. CPU is what the kernel counted for each process. Beside it, in the same run, one SHA-256 of the
same shards; the last column is what a node spends as judge and as ward at the pace that it keeps by default.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from benchmarks.rpc import Local, node_identity, prepare
from lockbox_node.adapters.clock import OsEntropy
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.cli.authority import create_node, issue
from lockbox_node.config import Config, NodeSettings
from lockbox_node.core.admission import AdmissionParams
from lockbox_node.core.audit import Verdict, proof_bytes
from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import entries_of, settled
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.pool import Contact, Pool
from lockbox_node.rpc.server import Server
from lockbox_node.services.audit_rounds import AuditRounds
from lockbox_node.services.redeeming import Redeeming
from lockbox_node.services.storage import Storage
from protocol.ids import NodeId, distance
from protocol.messages import Prove
from simulations.journal import MemoryJournal
from tests.fakes.granting import around, network
from tests.fakes.stripes import OWNER, FixedClock, make_stripe, node_of
from tests.fakes.swarm import record_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection as Wire

    from lockbox_node.ports import StripePart, StripeSummary
    from lockbox_node.services.sources import Sources
    from protocol.records import NodeRecord

STORE = StoreParams(free_floor_bytes=0, free_floor_percent=0.0, ballast_bytes=0)
UNPACED = AuditParams(first_s=3600.0, audits_per_s=1e6, bytes_per_s=1e12, again_s=3600.0)
UNLIMITED = AdmissionParams(node_rate=1e9, node_burst=1e9)
MEMBERS = 1000  # that the draw chooses from
WARD_INDEX, JUDGE_INDEX = 3, 4
KIB = 1024
ROWS = ((KIB, 2, 400), (64 * KIB, 2, 60), (256 * KIB, 8, 24))  # shard bytes, groups, parts
READY_S = 60.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Shape:
    """The parts of one row."""

    shard_bytes: int
    groups: int
    count: int

    def parts(self, index: int, judge: bytes, ward: bytes) -> list[StripePart]:
        """What the holder of `index` keeps; the judge and the ward are the only holders that live."""
        found = []
        for number in range(self.count):
            stripe = make_stripe(number, groups=self.groups, shard_bytes=self.shard_bytes)
            holders = [(at, node_of(at)) for at in range(10) if at not in (WARD_INDEX, JUDGE_INDEX)]
            entries = entries_of([*holders, (WARD_INDEX, ward), (JUDGE_INDEX, judge)], 1)
            found.append(replace(stripe.parts[index], entries=entries))
        return found


def serve(home: Path, shape: Shape, judge: bytes, port_goes_to: Wire) -> None:
    """The ward's process."""

    async def main() -> None:
        identity = await node_identity(home / "ward")
        own = identity.node_id
        with closing(ShardStoreFile.open(home / "ward-data", STORE, FixedClock(), own)) as store:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                for part in shape.parts(WARD_INDEX, judge, own):
                    await settled(lambda answer, part=part: store.put(part, (), OWNER, answer))  # type: ignore[misc]
                redeeming = Redeeming(network().root, lambda: around(own, []), FixedClock(), MemoryJournal())
                clock = FixedClock()
                storage = Storage(store, own, clock, lambda *_: [], lambda *_: [], lambda _table: None, redeeming)
                dispatcher = Dispatcher(UNLIMITED)
                dispatcher.add(*(route for route in storage.routes() if route.request is Prove))
                local, net = Local(identity, own), TcpNetwork(identity)
                pool = Pool(net, local, dispatcher)
                await nursery.start(pool.run)
                port_goes_to.send((own, await nursery.start(Server(net, pool, local, dispatcher).run)))

    trio.run(main)


class Village:
    """What the judge knows: itself, its ward, and MEMBERS others, one of whom draws."""

    doubted = False

    def __init__(self, own: NodeId, ward: NodeId, port: int) -> None:
        self.own, self._ward, self._port = own, ward, port
        others = [NodeId(node_of(number)) for number in range(1000, 1000 + MEMBERS)]
        self._alive = {node: with_leaf(record_of(node)) for node in (own, ward, *others)}
        self._nearest = sorted(self._alive)

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Everybody."""
        return self._alive

    def suspected(self, _node: NodeId) -> bool:
        """Nobody."""
        return False

    def contact(self, node: NodeId) -> Contact | None:
        """The ward's."""
        return Contact(node, (f"127.0.0.1:{self._port}",)) if node == self._ward else None

    def nearest_nodes(self, target: bytes, count: int) -> list[NodeId]:
        """Of some that lie beside the target: a member table answers as fast as that."""
        start = int.from_bytes(target[:8], "big") * len(self._nearest) >> 64
        beside = self._nearest[max(0, start - count) : start + count]
        return sorted(beside, key=lambda node: distance(node, target))[:count]

    def look_at(self, summary: StripeSummary) -> None:
        """Nothing is lost here."""
        raise AssertionError(summary)


def with_leaf(record: NodeRecord) -> NodeRecord:
    """A record with a leaf as long as real ones."""
    return structs.replace(record, chain=[record.node * 16])


@dataclass(frozen=True)
class Cost:
    """Of one audit, in milliseconds of CPU."""

    judge_ms: float
    ward_ms: float
    hash_ms: float


def cpu_s(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def audited(home: Path, shape: Shape, wire: Wire, pid: int, reps: int) -> list[Cost]:
    """One row."""
    if not wire.poll(READY_S):
        raise TimeoutError("the ward did not start")
    ward, port = wire.recv()
    identity = await node_identity(home / "judge")
    own = identity.node_id
    village = Village(own, ward, port)
    pool = Pool(TcpNetwork(identity), Local(identity, own))
    data, clock = home / "judge-data", FixedClock()
    costs = []
    with closing(ShardStoreFile.open(data, STORE, clock, own)) as store:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for part in shape.parts(JUDGE_INDEX, own, ward):
                await settled(lambda answer, part=part: store.put(part, (), OWNER, answer))  # type: ignore[misc]
            await nursery.start(pool.run)
            nobody: Sources = None  # type: ignore[assignment]  # nobody needs to be told
            rounds = AuditRounds(
                store, pool, village, nobody, OsEntropy(), clock.now_unix_s, village, lambda: False, 0.0, UNPACED
            )
            await nursery.start(rounds.run)
            for rep in range(reps + 1):
                before, theirs = time.process_time(), cpu_s(pid)
                rounds.start_now()
                while rounds.last.running:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.02)
                assert rounds.last.counts == {Verdict.HELD: shape.count}, rounds.last
                spent, spent_there = time.process_time() - before, cpu_s(pid) - theirs
                if rep:  # the first one warms up
                    per = 1000 / shape.count
                    costs.append(Cost(spent * per, spent_there * per, 1000 * hash_s(shape)))
            nursery.cancel_scope.cancel()
    return costs


def hash_s(shape: Shape) -> float:
    """One SHA-256 of the shards of one part."""
    shard = bytes(shape.shard_bytes)
    times = max(1, 2_000_000 // (shape.shard_bytes * shape.groups))
    began = time.perf_counter()
    for _ in range(times):
        for _ in range(shape.groups):
            hashlib.sha256(shard).digest()
    return (time.perf_counter() - began) / times


def measure(shape: Shape, reps: int) -> list[Cost]:
    """One row, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="lockbox-audits-") as name:
        home = Path(name)
        prepare(home / "one")
        (home / "ward").symlink_to(home / "one")
        for data in ("ward-data", "judge-data"):
            (home / data).mkdir()
        judge_of(home)
        judge = trio.run(node_identity, home / "judge").node_id
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(home, shape, judge, theirs))
        process.start()
        assert process.pid is not None
        try:
            return trio.run(audited, home, shape, ours, process.pid, reps)
        finally:
            process.terminate()
            process.join()


def judge_of(home: Path) -> None:
    """A second node of the same network."""
    settings = NodeSettings(region="eu-west-1", operator="benchmark")
    (home / "judge").mkdir()
    (home / "judge" / "ca").symlink_to(home / "one" / "ca")
    request = create_node(home / "judge" / "node", home / "one" / "ca" / "network.pem", Config(node=settings))
    issue(home / "one" / "ca", request, "node", home / "judge" / "node" / "identity" / "node.pem")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reps", type=int, default=5)
    reps = parser.parse_args().reps
    names = ("shards", "proof", "judge, ms CPU", "ward, ms CPU", "both / SHA-256", "at most a second", "of a core")
    print(f"| {' | '.join(names)} |")
    print("|---|---|---|---|---|---|---|")
    for row in ROWS:
        shape = Shape(*row)
        costs = measure(shape, reps)
        judge, ward, hashed = (
            statistics.median(getattr(one, name) for one in costs) for name in ("judge_ms", "ward_ms", "hash_ms")
        )
        both = [one.judge_ms + one.ward_ms for one in costs]
        shown = proof_bytes(make_stripe("a", groups=shape.groups, shard_bytes=shape.shard_bytes).descriptor)
        pace = 1 / AuditParams().rest_s(shown)
        total = statistics.median(both)
        print(
            f"| {shape.groups} of {shape.shard_bytes // KIB} KiB | {shown // KIB} KiB | {judge:.2f} | {ward:.2f} | "
            f"{total / hashed:.1f} ({min(both) / hashed:.1f}-{max(both) / hashed:.1f}) | {pace:.2f} | "
            f"{pace * total / 10:.2f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
