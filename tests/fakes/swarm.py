"""Membership machines over a heap with virtual time: no trio, no sockets, thousands of virtual seconds in one."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lockbox_node.core.member_events import (
    Action,
    Declare,
    Event,
    HeardFrom,
    MemberAlive,
    MemberDead,
    OwnSigned,
    ProbeAnswered,
    ProbeFailed,
    PushPull,
    RecordLearned,
    Refute,
    SendProbe,
    Spread,
    StateHeard,
    Status,
    Tick,
)
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from protocol.ids import NodeId
from protocol.messages import MemberState, MemberUpdate, Signed
from protocol.records import NodeRecord

if TYPE_CHECKING:
    from collections.abc import Callable

PARAMS = MembershipParams()


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def record_of(node: NodeId, sequence: int = 1, epoch: int = 1) -> NodeRecord:
    return NodeRecord(
        node, sequence, 2**40, ["127.0.0.1:1"], "eu-west-1", "op", 1, 9, [1], bytes(32), 1, 0, epoch, bytes(16), [b"x"]
    )


def signed_of(record: NodeRecord) -> Signed:
    return Signed(record.node + record.sequence.to_bytes(8, "big"), bytes(64))


def learned(node: NodeId, sequence: int = 1, epoch: int = 1) -> RecordLearned:
    record = record_of(node, sequence, epoch)
    return RecordLearned(signed_of(record), record)


def own_signed(node: NodeId, sequence: int = 1) -> OwnSigned:
    record = record_of(node, sequence)
    return OwnSigned(signed_of(record), record)


def heard(node: NodeId, status: Status, incarnation: int = 1) -> StateHeard:
    return StateHeard(MemberState(node, incarnation, int(status)))


@dataclass
class Swarm:
    """Machines over a heap: messages take 1 to 20 ms, a probe of a node out of reach fails after its timeout."""

    count: int
    seed: int
    now: float = 0.0
    down: set[NodeId] = field(default_factory=set)
    apart: set[NodeId] = field(default_factory=set)  # run on, cut off from all others: what is sent across is lost
    broken: set[tuple[NodeId, NodeId]] = field(default_factory=set)  # pairs whose probes get lost
    declared: list[tuple[float, NodeId, MemberDead | MemberAlive]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.ids = [NodeId(self.rng.randbytes(32)) for _ in range(self.count)]
        self.machines = {node: Membership(node, PARAMS, random.Random(self.rng.random())) for node in self.ids}
        self.sequence = dict.fromkeys(self.ids, 1)
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.frozen: dict[NodeId, list[Event]] = {}
        self.order = itertools.count()
        self.wakes: dict[NodeId, float] = {}
        for node in self.ids:
            self.deliver(node, own_signed(node))
        for node in self.ids:
            self.pull(node, self.ids[0] if node != self.ids[0] else self.ids[1])

    def after(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.order), act))

    def latency(self) -> float:
        return self.rng.uniform(0.001, 0.02)

    def send(self, node: NodeId, *events: Event) -> None:
        for event in events:
            self.after(self.latency(), lambda event=event: self.deliver(node, event))  # type: ignore[misc]

    def deliver(self, node: NodeId, event: Event) -> None:
        if node in self.down:
            self.frozen.setdefault(node, []).append(event)
            return
        made = self.machines[node]
        for action in made.handle(event, self.now):
            self.perform(node, action)
        deadline = max(self.now, made.next_deadline())
        if self.wakes.get(node) != deadline:
            self.wakes[node] = deadline
            self.after(deadline - self.now, lambda: self.wake(node, deadline))

    def wake(self, node: NodeId, deadline: float) -> None:
        if self.wakes.get(node) == deadline and node not in self.down:
            del self.wakes[node]
            self.deliver(node, Tick())

    def perform(self, node: NodeId, action: Action) -> None:
        match action:
            case SendProbe():
                self.probe(node, action)
            case Declare(event):
                self.declared.append((self.now, node, event))
            case Spread(updates, targets):
                for target in targets:
                    if self.parted(node, target):
                        continue
                    self.send(target, *self.events_of(updates))
            case Refute(incarnation_min):
                self.sequence[node] = max(self.sequence[node] + 1, incarnation_min)
                self.deliver(node, own_signed(node, self.sequence[node]))
            case PushPull(target):
                if target not in self.down and not self.parted(node, target):
                    self.pull(node, target)

    def probe(self, node: NodeId, action: SendProbe) -> None:
        target = action.node
        if self.reaches(node, target):
            self.send(target, HeardFrom(node))
            delay = self.latency()
            self.after(delay, lambda: self.deliver(node, ProbeAnswered(target, self.sequence[target], delay)))
            return
        relays = [relay for relay in action.relays if self.reaches(node, relay)]
        if any(self.reaches(relay, target) for relay in relays):
            outcome: Event = ProbeAnswered(target, self.sequence[target])
        else:
            outcome = ProbeFailed(target, len(action.relays), len(relays))
        self.after(action.timeout_s + action.relayed_s, lambda: self.deliver(node, outcome))

    def reaches(self, node: NodeId, target: NodeId) -> bool:
        """Whether a probe comes through."""
        broken = (node, target) in self.broken or (target, node) in self.broken
        return target not in self.down and not self.parted(node, target) and not broken

    def parted(self, node: NodeId, target: NodeId) -> bool:
        return (node in self.apart) != (target in self.apart)

    def events_of(self, updates: tuple[MemberUpdate, ...] | list[MemberUpdate]) -> list[Event]:
        events: list[Event] = []
        for update in updates:
            if update.record is not None:
                events.append(learned(NodeId(update.state.node), update.state.incarnation))
            events.append(StateHeard(update.state))
        return events

    def pull(self, node: NodeId, target: NodeId) -> None:
        known = self.machines[node].known()
        reply = self.machines[target].compare(known)
        self.send(target, *(StateHeard(state) for state in known))
        self.send(target, *self.events_of(self.machines[node].updates_of(reply.wanted)))
        self.send(node, *self.events_of(reply.updates))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.queue and self.queue[0][0] <= end:
            self.now, _, act = heapq.heappop(self.queue)
            act()
        self.now = end

    def stop(self, nodes: list[NodeId]) -> None:
        self.down |= set(nodes)

    def resume(self, node: NodeId) -> None:
        """Continue a stopped process: what waited in its sockets arrives at once."""
        self.down.discard(node)
        for event in [*self.frozen.pop(node, []), Tick()]:
            self.deliver(node, event)

    def deaths(self) -> list[tuple[NodeId, NodeId]]:
        """Who declared whom dead, so far."""
        return [(by, event.node) for _, by, event in self.declared if isinstance(event, MemberDead)]

    def views(self) -> set[frozenset[NodeId]]:
        """What the running machines believe alive, themselves included."""
        return {frozenset([*self.machines[node].alive(), node]) for node in self.ids if node not in self.down}

    def agreed(self, alive: set[NodeId]) -> bool:
        return self.views() == {frozenset(alive)}
