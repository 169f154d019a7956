"""Who is in the network and who has gone: SWIM's probes, suspicions and refutations as a pure machine.

Each second one of the nearest neighbours in XOR order is probed, in turn; who fails is suspect, and dead when the
suspicion runs out without a refutation. Higher incarnation wins; of one incarnation dead > suspect > alive. An
incarnation is the sequence of a signed record, and a state counts only about a record that we hold: nobody can speak
for an incarnation that its node never signed. Who is only said to be dead is suspect, dead once our own probe fails,
through relays too.
Rumours go a few times to a few of those with whom connections stand, the neighbours and some acquaintances; push-pull
mends the rest, and with a dead member now and then, so that two halves of a split find each other. Das, Gupta and
Motivala, SWIM, 2002; after a stall of our own (Lifeguard, 2017) nobody is declared dead on old suspicions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from lockbox_node.core.acquaintances import Acquaintances
from lockbox_node.core.dissemination import Rumours
from lockbox_node.core.id_order import IdOrder
from lockbox_node.core.member_events import (
    Action,
    Barred,
    ConnectionLost,
    Declare,
    Event,
    HeardFrom,
    Member,
    MemberAlive,
    MemberDead,
    OwnSigned,
    ProbeAnswered,
    ProbeFailed,
    PushPull,
    RecordLearned,
    Refute,
    Spread,
    StateHeard,
    Status,
    Tick,
    TwinMet,
)
from lockbox_node.core.probing import Probing
from lockbox_node.core.twins import Twins
from protocol.ids import NodeId
from protocol.messages import RECORDS_MAX, Members, MemberState, MemberUpdate, Signed
from protocol.summaries import KEY_BYTES, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from random import Random

    from lockbox_node.core.member_params import MembershipParams
    from protocol.records import NodeRecord

TELL_INTERVAL_S = 1.0  # how often a member is told that we believe it suspect or dead


class Membership:
    """The member table of node `own` and what to do about it. The table never holds `own`."""

    def __init__(self, own: NodeId, params: MembershipParams, rng: Random) -> None:
        self._own = own
        self._params = params
        self._rng = rng
        self._mine: Member | None = None
        self._twins = Twins()
        self._refuted = -1  # highest incarnation that Refute was asked to exceed
        self._members: dict[NodeId, Member] = {}
        self._suspects: dict[NodeId, float] = {}  # -> deadline
        self._accused: set[NodeId] = set()  # said to be dead: our own probe decides
        self._dead: dict[NodeId, None] = {}  # oldest first
        self._barred: frozenset[NodeId] = frozenset()
        self._rumours = Rumours()
        self._acquaintances = Acquaintances(params.acquaintances, rng)
        self.probing = Probing(params, rng)
        self._told: dict[NodeId, float] = {}
        self._everybody = IdOrder()  # the table, and ourselves once we have signed
        self._living = IdOrder()  # members not dead
        self._live: list[NodeId] | None = None  # caches, None after a change
        self._watched: list[NodeId] | None = None
        self._turn = 0
        self._next_probe = self._next_push_pull = self._next_gossip = -math.inf

    @property
    def own(self) -> NodeId:
        """Whose table it is."""
        return self._own

    @property
    def members(self) -> Mapping[NodeId, Member]:
        """All members known, dead ones too, without ourselves."""
        return MappingProxyType(self._members)

    @property
    def health(self) -> int:
        """How far we doubt ourselves, 0 not at all: Lifeguard's local health multiplier."""
        return self.probing.health

    def probe_timeout_s(self, node: NodeId) -> float:
        """How long the node may take to answer a probe of ours."""
        return self.probing.timeout_s(node)

    def alive(self) -> list[NodeId]:
        """Members not believed dead (suspects may still refute): another list after any change of them or a record."""
        if self._live is None:
            self._live = [node for node, member in self._members.items() if member.status is not Status.DEAD]
        return self._live

    def neighbours(self) -> list[NodeId]:
        """Those we watch: the nearest live members in XOR order."""
        if self._watched is None:
            self._watched = self.nearest_alive(self._own, self._params.neighbours)
        return self._watched

    def partners(self) -> list[NodeId]:
        """Those to whom connections should stand: the neighbours, and the acquaintances that hear rumours too."""
        return self._acquaintances.with_neighbours(self.neighbours(), self.alive())

    def nearest_alive(self, target: bytes, count: int) -> list[NodeId]:
        """The `count` (at least 1) members nearest to `target` that are not believed dead, nearest first."""
        return self._living.nearest(target, count)

    def next_deadline(self) -> float:
        """When Tick is due; in the past until the first event."""
        gossip = self._next_gossip if self._rumours else math.inf
        suspicion = min(self._suspects.values(), default=math.inf)
        return min(self._next_probe, self._next_push_pull, gossip, suspicion)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event in; also does whatever is due at `now` (seconds, never falling)."""
        actions: list[Action] = []
        self._mind_stall(now)
        match event:
            case OwnSigned(signed, record):
                self._mine = Member(signed, record, Status.ALIVE, now)
                self._everybody.add(self._own)
                self._rumours.start(self._own)
            case RecordLearned(signed, record):
                actions += self._learn(signed, record, now)
            case TwinMet(record):
                actions += self._meet(record, in_person=True)
            case StateHeard(state):
                actions += self._hear(state, now)
            case HeardFrom(node):
                actions += self._tell(node, now)
            case ProbeAnswered(node, incarnation, round_trip_s):
                if node in self._members:
                    self.probing.answered(node, round_trip_s)
                actions += self._answered(node, incarnation, now)
            case ProbeFailed(node):
                self.probing.failed(event)
                actions += self._failed(node, now)
            case ConnectionLost(node):
                actions += self._probe(node, now)
            case Barred(nodes):
                actions += self._bar(nodes, now)
            case Tick():
                pass
            case _:
                assert_never(event)
        return actions + self._due(now)

    def known(self) -> list[MemberState]:
        """Our view for SyncMembers, ourselves included."""
        mine = [] if self._mine is None else [self._mine.state()]
        return mine + [member.state() for member in self._members.values()]

    def living(self) -> Iterator[MemberState]:
        """The same by rising id, without the dead: what summaries are made of."""
        lines = (self._line(node) for node in self._everybody)
        return (line.state() for line in lines if line is not None and line.status is not Status.DEAD)

    def summary(self) -> bytes:
        """The digests of `living`, under a key drawn anew."""
        return summary(self.living(), self._rng.randbytes(KEY_BYTES))

    def compare(
        self, known: Sequence[MemberState], after: bytes = b"", limit: int = RECORDS_MAX, groups: bytes = b""
    ) -> Members:
        """The reply to SyncMembers: what the asker lacks or has older, by rising id after `after`, `limit` at most.

        Of `groups` alone, the first bytes of ids, if any are given. Dead members that the asker never met are left out.
        `wanted` names what we lack or have older ourselves, our own record of another life included.
        """
        theirs = {state.node: state for state in known}
        news: list[MemberUpdate] = []
        for node in self._everybody.after(after):
            if groups and node[0] not in groups:
                continue
            member, state = self._line(node), theirs.get(node)
            assert member is not None, "who is in order is in the table"
            if state is None and member.status is Status.DEAD:
                continue
            if state is None or state.incarnation < member.incarnation:
                news.append(MemberUpdate(member.state(), member.signed))
            elif state.incarnation == member.incarnation and state.status < member.status:
                news.append(MemberUpdate(member.state(), None))
            if len(news) > limit:
                break
        wanted = [state.node for state in known if self._is_behind(state)]
        return Members(news[:limit], wanted[:limit], len(news) > limit)

    def updates_of(self, nodes: Iterable[bytes]) -> list[MemberUpdate]:
        """State and record of those of `nodes` that we know: the answer to `wanted`."""
        found = (self._line(NodeId(node)) for node in nodes)
        return [MemberUpdate(member.state(), member.signed) for member in found if member is not None]

    def _line(self, node: NodeId) -> Member | None:
        return self._mine if node == self._own else self._members.get(node)

    def _is_behind(self, state: MemberState) -> bool:
        """Whether we lack that node's record, or have an older one; ourselves we lack only before the first.

        A stranger that is dead to others is not missed: its record alone would make it live.
        """
        member = self._line(NodeId(state.node))
        if member is None:
            return state.node != self._own and state.status != Status.DEAD
        return member.incarnation < state.incarnation

    def _learn(self, signed: Signed, record: NodeRecord, now: float) -> list[Action]:
        node = NodeId(record.node)
        if node == self._own:
            return self._meet(record, in_person=False)
        if node in self._barred:
            return []
        member = self._members.get(node)
        if member is not None and record.sequence <= member.incarnation:
            return []
        if member is None and not self._make_room():
            return []
        self._enter(node, Member(signed, record, Status.ALIVE, now), now)
        return [Declare(MemberAlive(node))]

    def _meet(self, record: NodeRecord, *, in_person: bool) -> list[Action]:
        """A record with our own id: of ourselves, of an earlier life, or of another copy of this node."""
        if self._mine is None:
            return []
        verdict = self._twins.judge(self._mine.record, record, in_person=in_person)
        if isinstance(verdict, Refute):
            return self._refute(verdict.incarnation_min - 1)
        return [] if verdict is None else [verdict]

    def _hear(self, state: MemberState, now: float) -> list[Action]:
        node = NodeId(state.node)
        if node == self._own:
            if self._mine is None or state.incarnation != self._mine.incarnation or state.status == Status.ALIVE:
                return []
            refuting = self._refute(state.incarnation)
            if refuting:
                self.probing.accused()
            return refuting
        member = self._members.get(node)
        if member is None or state.incarnation != member.incarnation or state.status <= member.status:
            return []
        if state.status != Status.DEAD:
            return self._demote(node, Status.SUSPECT, now)
        # Whoever was cut off believes everybody else dead. So a death is seen for oneself: one probe that fails.
        self._accused.add(node)
        suspected = self._demote(node, Status.SUSPECT, now) if member.status is Status.ALIVE else []
        return suspected + self._probe(node, now)

    def _bar(self, nodes: frozenset[NodeId], now: float) -> list[Action]:
        self._barred = nodes
        living = [node for node in self.alive() if node in nodes]
        return [action for node in living for action in self._demote(node, Status.DEAD, now)]

    def _refute(self, incarnation: int) -> list[Action]:
        if incarnation <= self._refuted:
            return []
        self._refuted = incarnation
        return [Refute(incarnation + 1)]

    def _demote(self, node: NodeId, status: Status, now: float) -> list[Action]:
        self._enter(node, replace(self._members[node], status=status, since=now), now)
        return [Declare(MemberDead(node))] if status is Status.DEAD else []

    def _enter(self, node: NodeId, member: Member, now: float) -> None:
        before = self._members.get(node)
        self._members[node] = member
        self._rumours.start(node)
        self._everybody.add(node)
        if before is None or (before.status is Status.DEAD) != (member.status is Status.DEAD):
            self._live = self._watched = None
            (self._living.discard if member.status is Status.DEAD else self._living.add)(node)
        elif before.record is not member.record:
            self._live = None
        self._suspects.pop(node, None)
        self._dead.pop(node, None)
        if member.status is not Status.SUSPECT:
            self._accused.discard(node)
        if member.status is Status.SUSPECT:
            self._suspects[node] = now + self._params.suspicion_s(len(self.alive()))
        elif member.status is Status.DEAD:
            self._dead[node] = None
            self._acquaintances.drop(node)

    def _make_room(self) -> bool:
        if len(self._members) < self._params.members_max:
            return True
        oldest = next(iter(self._dead), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _forget(self, node: NodeId) -> None:
        self._everybody.discard(node)
        self._living.discard(node)
        for table in (self._members, self._dead, self._told):
            table.pop(node, None)
        self._rumours.drop(node)
        self.probing.forget(node)

    def _tell(self, node: NodeId, now: float) -> list[Action]:
        """Who is here and believed gone must know it, or it cannot refute."""
        member = self._members.get(node)
        if member is None or member.status is Status.ALIVE or now < self._told.get(node, -math.inf) + TELL_INTERVAL_S:
            return []
        self._told[node] = now
        return [Spread((member.update(),), (node,))]

    def _answered(self, node: NodeId, incarnation: int, now: float) -> list[Action]:
        self._accused.discard(node)
        member = self._members.get(node)
        if member is None:
            return []
        return [PushPull(node)] if incarnation > member.incarnation else self._tell(node, now)

    def _failed(self, node: NodeId, now: float) -> list[Action]:
        member = self._members.get(node)
        if member is not None and node in self._accused:
            return self._demote(node, Status.DEAD, now)
        if member is None or member.status is not Status.ALIVE:
            return []
        return [*self._demote(node, Status.SUSPECT, now), *self._tell(node, now)]

    def _probe(self, node: NodeId, now: float) -> list[Action]:
        member = self._members.get(node)
        if member is None or member.status is Status.DEAD:
            return []
        probe = self.probing.begin(node, self.alive(), now)
        return [] if probe is None else [probe]

    def _mind_stall(self, now: float) -> None:
        if -math.inf < self.next_deadline() < now - self._params.stall_s:
            patience = now + self._params.suspicion_s(len(self.alive()))
            self._suspects = dict.fromkeys(self._suspects, patience)
            self._next_push_pull = now

    def _due(self, now: float) -> list[Action]:
        if self._next_probe == -math.inf:
            # The first event starts the rounds, each node at its own phase.
            self._next_probe = now + self.probing.interval_s * self._rng.random()
            self._next_push_pull = now + self._params.push_pull_interval_s * self._rng.random()
            self._next_gossip = now
        actions: list[Action] = []
        for node in [node for node, deadline in self._suspects.items() if deadline <= now]:
            actions += self._demote(node, Status.DEAD, now)
        if self._next_probe <= now:
            self._next_probe = now + self.probing.interval_s
            actions += self._probe_round(now)
        if self._next_push_pull <= now:
            self._next_push_pull = now + self._params.push_pull_interval_s
            actions += self._push_pull_round(now)
        if self._rumours and self._next_gossip <= now:
            self._next_gossip = now + self._params.gossip_interval_s
            actions += self._gossip_round()
        return actions

    def _probe_round(self, now: float) -> list[Action]:
        watched = self.neighbours()
        if not watched:
            return []
        self._turn += 1
        return self._probe(watched[self._turn % len(watched)], now)

    def _push_pull_round(self, now: float) -> list[Action]:
        for node in [node for node in self._dead if self._members[node].since <= now - self._params.dead_kept_s]:
            self._forget(node)
        alive, dead = self.alive(), [node for node in self._dead if node not in self._barred]
        partners = [self._rng.choice(nodes) for nodes in (alive, dead) if nodes]
        if alive:
            self._acquaintances.meet(partners[0])
        return [PushPull(node) for node in partners]

    def _gossip_round(self) -> list[Action]:
        partners = self.partners()
        if not partners:
            return []
        targets = self._rng.sample(partners, min(self._params.fan_out, len(partners)))
        limit = self._params.transmissions(len(self.alive()) + 1)
        updates = []
        for node in self._rumours.take(self._params.updates_max, len(targets), limit):
            member = self._mine if node == self._own else self._members[node]
            assert member is not None, "a rumour is about ourselves after OwnSigned, or about a member"
            updates.append(member.update())
        return [Spread(tuple(updates), tuple(targets))]
