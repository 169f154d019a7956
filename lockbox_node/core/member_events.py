"""What membership is about: a member and its status, the events that the machine takes, the actions that it asks for.

Rule: events are past or state, actions are imperative; all are frozen. The machine that maps one to the other is
`core.membership`; the service that drives it performs each action without a policy of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from protocol.messages import MemberState, MemberUpdate, Signed

if TYPE_CHECKING:
    from protocol.ids import NodeId
    from protocol.records import NodeRecord


class Status(IntEnum):
    """What a member is believed to be; the numbers of the wire, and their precedence within one incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the table; `since` is when it got its status, in the machine's time."""

    signed: Signed
    record: NodeRecord
    status: Status
    since: float

    @property
    def incarnation(self) -> int:
        """The sequence of its record."""
        return self.record.sequence

    def state(self) -> MemberState:
        """The line as it goes over the wire."""
        return MemberState(self.record.node, self.incarnation, int(self.status))

    def update(self) -> MemberUpdate:
        """The rumour: good news carries the record, since the receiver may lack it."""
        return MemberUpdate(self.state(), self.signed if self.status is Status.ALIVE else None)


@dataclass(frozen=True, slots=True)
class OwnSigned:
    """We signed a (new) record of our own."""

    signed: Signed
    record: NodeRecord


@dataclass(frozen=True, slots=True)
class RecordLearned:
    """A record whose chain and signature the service verified."""

    signed: Signed
    record: NodeRecord


@dataclass(frozen=True, slots=True)
class TwinMet:
    """A peer that holds our own identity showed this record as its own; verified, of another instance than ours."""

    record: NodeRecord


@dataclass(frozen=True, slots=True)
class StateHeard:
    """What some peer believes; of an update with a record, `RecordLearned` comes first."""

    state: MemberState


@dataclass(frozen=True, slots=True)
class HeardFrom:
    """The node itself spoke to us over an authenticated connection."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The outcome of `SendProbe`: the node's own incarnation; `round_trip_s` when no relay was needed."""

    node: NodeId
    incarnation: int
    round_trip_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """The outcome of `SendProbe`: no answer in time, or no connection; of `asked` relays `heard` said so too."""

    node: NodeId
    asked: int = 0
    heard: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A connection to the node broke: the moment to ask whether it lives."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Barred:
    """These nodes, and no others, are revoked: they are dead, whatever they sign."""

    nodes: frozenset[NodeId]


@dataclass(frozen=True, slots=True)
class Tick:
    """The deadline passed."""


Event = (
    OwnSigned
    | RecordLearned
    | TwinMet
    | StateHeard
    | HeardFrom
    | ProbeAnswered
    | ProbeFailed
    | ConnectionLost
    | Barred
    | Tick
)


@dataclass(frozen=True, slots=True)
class MemberAlive:
    """The node joined, came back, or has a newer record: take it from the table."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class MemberDead:
    """The node is gone until a newer record of it turns up."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Ping the node, and if it does not answer within `timeout_s`, let each of `relays` do so within `relayed_s`.

    Report ProbeAnswered or ProbeFailed, exactly once.
    """

    node: NodeId
    timeout_s: float
    relays: tuple[NodeId, ...] = ()
    relayed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Declare:
    """Publish to the other services."""

    event: MemberDead | MemberAlive


@dataclass(frozen=True, slots=True)
class Spread:
    """Push one Gossip message with these updates to each target; losses do not matter."""

    updates: tuple[MemberUpdate, ...]
    targets: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Refute:
    """Sign a new record of our own with at least this sequence, then report OwnSigned."""

    incarnation_min: int


@dataclass(frozen=True, slots=True)
class PushPull:
    """Exchange tables with the node: SyncMembers there, what it lacks by Gossip."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Yield:
    """Stop serving now: a later life of this node runs, and `epoch` is its."""

    epoch: int


Action = SendProbe | Declare | Spread | Refute | PushPull | Yield
