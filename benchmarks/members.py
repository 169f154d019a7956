"""A member table of 10,000 signed records, and what it costs to tell of them: `python -m benchmarks.members`.

The table is the daemon's own (`core.membership`), filled with real records whose chains and signatures were verified as
the daemon does. Memory is what the process grew by. What a node sends is computed, not run: real messages, encoded,
times how often the machine's own limits let one node pass on one rumour.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec

from lockbox_node.core.member_events import OwnSigned, RecordLearned, Status
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from lockbox_node.services.announcing import RECORD_LIFE_S, RENEW_SHARE
from lockbox_node.services.exchanging import CLIENT_PAGE, PAGE
from protocol.certificates import verify_record
from protocol.ids import ID_BYTES, NodeId
from protocol.messages import Members, MemberState, MemberUpdate, Ping, Pong, Signed, SyncMembers
from protocol.records import NodeRecord, parse
from protocol.summaries import KEY_BYTES, summary
from simulations.identities import FakeNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from protocol.messages import Message

REPEATS = 21
NEAREST = 20
PAGE_BYTES = 4096  # of memory


def size(message: Message) -> int:
    """Bytes of a message on the wire, without its envelope and TLS."""
    return len(msgspec.msgpack.encode(message))


def memory_bytes() -> int:
    """Resident memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def took(act: Callable[[], object]) -> str:
    """`median (min-max)` in ms of CPU."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        act()
        times.append(1000 * (time.process_time() - start))
    return f"{statistics.median(times):.3f} ({min(times):.3f}-{max(times):.3f}) ms"


class Filled:
    """A machine that knows `count` members, each by a record that came as bytes and was verified."""

    def __init__(self, count: int) -> None:
        network = FakeNetwork()
        nodes = [network.node(number) for number in range(count + 1)]
        wires = [msgspec.msgpack.encode(node.record) for node in nodes]
        self.record_bytes = statistics.fmean(map(len, wires))
        self.own = NodeId(nodes[0].id)
        self.machine = Membership(self.own, MembershipParams(), Random(1))
        signed = msgspec.msgpack.decode(wires[0], type=Signed)
        self.machine.handle(OwnSigned(signed, parse(signed, NodeRecord)), 0.0)
        before, start = memory_bytes(), time.process_time()
        for wire in wires[1:]:
            signed = msgspec.msgpack.decode(wire, type=Signed)
            self.machine.handle(RecordLearned(signed, verify_record(network.root, signed)), 0.0)
        self.learn_us = 1e6 * (time.process_time() - start) / count
        self.member_bytes = (memory_bytes() - before) / count
        del nodes  # only now: what they leave behind would be used again, and not be counted
        self.sequence = self.machine.known()[0].incarnation

    def renew_one(self) -> None:
        """A member signs a newer record: what was derived from the old table no longer holds."""
        self.sequence += 1
        member = next(iter(self.machine.members.values()))
        record = msgspec.structs.replace(member.record, sequence=self.sequence)
        self.machine.handle(RecordLearned(member.signed, record), 0.0)


def table_rows(filled: Filled) -> Iterator[str]:
    """What the table weighs and how fast it answers."""
    machine, known = filled.machine, filled.machine.known()
    middle = sorted(machine.members)[len(machine.members) // 2]
    target = Random(1).randbytes(ID_BYTES)

    def alive_anew() -> None:
        filled.renew_one()
        machine.alive()

    yield f"| a table of {len(machine.members):,} members | |"
    yield "|---|---|"
    yield f"| signed record, bytes | {filled.record_bytes:,.0f} |"
    yield f"| memory of a member, bytes | {filled.member_bytes:,.0f} |"
    yield f"| a record decoded, verified, taken in | {filled.learn_us:,.0f} us |"
    yield f"| `compare`, a client's page of {CLIENT_PAGE} | {took(lambda: machine.compare([], middle, CLIENT_PAGE))} |"
    yield f"| `compare` with a node that has the same table | {took(lambda: machine.compare(known, b'', PAGE))} |"
    yield f"| summary of the living | {took(lambda: summary(machine.living(), bytes(KEY_BYTES)))} |"
    yield f"| `known` | {took(machine.known)} |"
    yield f"| `alive`, after a record was renewed | {took(alive_anew)} |"
    yield f"| the {NEAREST} nearest to an address | {took(lambda: machine.nearest_alive(target, NEAREST))} |"


def gossip_rows(filled: Filled, online_h: float) -> Iterator[str]:
    """Bytes that one node sends in a second of a network whose members live for `online_h` on average."""
    params, known = MembershipParams(), filled.machine.known()
    count = len(known)
    copies = math.ceil(params.transmissions(count) / params.fan_out) * params.fan_out
    signed = next(iter(filled.machine.members.values())).signed
    alive = size(MemberUpdate(known[1], signed))
    gone = size(MemberUpdate(MemberState(known[1].node, known[1].incarnation, int(Status.DEAD)), None))
    changes = count / (online_h * 3600)  # joins in a second, and deaths
    renewals = count / (RECORD_LIFE_S * RENEW_SHARE)
    digests = summary(filled.machine.living(), bytes(KEY_BYTES))
    compared = size(SyncMembers([], b"", [], digests)) + size(Members([], [], False))
    rows = {
        "tables compared, nothing differs": compared / params.push_pull_interval_s,
        f"records renewed, {renewals:.2f}/s": renewals * copies * alive,
        f"joins, {changes:.2f}/s": changes * copies * alive,
        f"deaths, {changes:.2f}/s, suspected first": changes * copies * 2 * gone,
        "probes and their answers": (size(Ping(2**62)) + size(Pong(2**62, known[0].incarnation)))
        / params.probe_interval_s,
    }
    yield f"| {count:,} nodes, online for {online_h:g} h on average | bytes sent by a node in a second |"
    yield "|---|---|"
    yield from (f"| {name} | {value:,.0f} |" for name, value in rows.items())
    yield f"| all | {sum(rows.values()):,.0f} |"
    yield f"\nA node sends one rumour up to {copies} times; with a record it has {alive:,} bytes, without {gone}."


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--online-hours", type=float, default=24.0)
    options = parser.parse_args()
    filled = Filled(options.members)
    print("\n".join(table_rows(filled)) + "\n")
    print("\n".join(gossip_rows(filled, options.online_hours)))


if __name__ == "__main__":
    main()
