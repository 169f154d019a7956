"""Drives the membership machine: probes, rumours, exchanges; joins through bootstrap peers; publishes who dies.

All policy is `core.membership`; here records are verified before the machine sees them, actions become requests, and
outcomes become events. The inbox is bounded: a rumour that finds its share of it full is dropped and counted, since
push-pull mends what was lost; the rest is kept for what we did ourselves (outcomes of probes, our own records), so that
no flood of rumours silences us. What is published and does not fit is found again by the sweep of healing. When a
later life of this node runs elsewhere, `run` ends with Superseded, and everything that serves with it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

import structlog
import trio

from lockbox_node.core.detection import Detection
from lockbox_node.core.member_events import (
    Action,
    Barred,
    ConnectionLost,
    Declare,
    Event,
    HeardFrom,
    MemberAlive,
    MemberDead,
    OwnSigned,
    PushPull,
    RecordLearned,
    Refute,
    SendProbe,
    Spread,
    StateHeard,
    Status,
    Tick,
    TwinMet,
    Yield,
)
from lockbox_node.errors import LockboxError, Superseded
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.announcing import Announcer, NodeState
from lockbox_node.services.exchanging import Exchanging
from lockbox_node.services.introducing import Introducing
from lockbox_node.services.joining import Joining
from lockbox_node.services.probing import Prober
from lockbox_node.services.records import Records
from protocol.certificates import Role
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import (
    UPDATES_MAX,
    Done,
    Gossip,
    MemberState,
    MemberUpdate,
    Message,
    Ping,
    Pong,
    Signed,
    SyncMembers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.membership import Membership
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Contact, Pool
    from lockbox_node.services.discovery import Discovery
    from protocol.records import NodeRecord

INBOX_MAX = 4096
RUMOURS_MAX = 3072  # of the inbox
PUSH_PULL_TIMEOUT_S = 10.0
JOIN_EVERY_S = 3.0  # while nobody answers
RENEW_LOOK_S = 60.0  # how often our record is looked at
REMEMBERED_MAX = 1000

log = structlog.get_logger()


class MembershipService:
    """One per node. `changes` receives MemberDead and MemberAlive, in order."""

    def __init__(
        self,
        machine: Membership,
        announcer: Announcer,
        discovery: Discovery,
        pool: Pool,
        bootstrap: Sequence[tuple[str, int]],
        changes: trio.MemorySendChannel[MemberDead | MemberAlive],
        now_unix_s: Callable[[], float],
        on_joined: Callable[[], None],
        remembered: Sequence[Signed] = (),
    ) -> None:
        self._machine = machine
        self._announcer = announcer
        self._discovery = discovery
        self._pool = pool
        self._joining = Joining(pool, bootstrap, self._met)
        self._changes = changes
        self._on_joined = on_joined
        self._remembered = remembered[:REMEMBERED_MAX]
        self._inbox_send, self._inbox = trio.open_memory_channel[Event](INBOX_MAX)
        self.prober = Prober(machine, discovery, pool, self._reached)
        self._present: set[NodeId] = set()  # published as alive
        self.foreign = Records(machine, announcer, now_unix_s)
        self.introducing = Introducing(machine, announcer, pool.dial_backs, self._believe)
        self.exchanging = Exchanging(machine, self._take_from, self._hear, complete=not bootstrap)
        self.exchanging.on_shown = self.introducing.answered
        self.detection = Detection()
        self._barred: frozenset[NodeId] = frozenset()
        self.dropped = 0  # events that found the inbox or the channel full
        self.joined = trio.Event()  # another node was reached, or none is needed
        self.changed = trio.Event()  # set, and replaced by a new one, at each change of the members

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        ours = [Route(Ping, self._on_ping), Route(SyncMembers, self._on_sync), Route(Gossip, self._on_gossip)]
        return [*ours, *self.prober.routes()]

    def connection_lost(self, node: NodeId) -> None:
        """The connection to that node broke: ask whether it lives, if it is ours to watch.

        Others may have let us go for want of room: to ask them all would open what they closed, without end.
        """
        if node in self._machine.neighbours():
            self._feed(ConnectionLost(node))

    def met_same(self, signed: Signed, leaf: bytes) -> None:
        """A peer whose TLS leaf is `leaf` has our own id, and says that `signed` is its record."""
        twin = self.foreign.of_twin(signed, leaf)
        if twin is not None:
            self._feed(TwinMet(twin))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started after the first attempt to join, successful or not."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drive)
            self._feed(OwnSigned(self._announcer.signed, self._announcer.record))
            for signed in self._remembered:
                with suppress(RemoteProtocolError):  # it went bad on the disk
                    self.learn(signed)
            if self._joining.alone:
                self.joined.set()
            await self._joining.once()
            nursery.start_soon(self._join)
            nursery.start_soon(self._keep_record_fresh)
            task_status.started()

    @property
    def complete(self) -> bool:
        """Whether some node's whole table was read, or there is none to read."""
        return self.exchanging.complete

    def records(self) -> list[Signed]:
        """Records of the members believed alive: what a restart should remember, so that it needs no bootstrap."""
        members = self._machine.members
        return [members[node].signed for node in sorted(self._machine.alive())][:REMEMBERED_MAX]

    def set_state(self, state: NodeState) -> None:
        """Announce another state of ours."""
        self._announcer.state = state
        self.renew_record()

    def bar(self, nodes: frozenset[NodeId]) -> None:
        """These nodes, and no others, are revoked."""
        self._barred = nodes
        self._feed(Barred(nodes))

    def renew_record(self) -> None:
        """Sign our record anew: the leaf or what it says has changed."""
        self._feed(OwnSigned(*self._announcer.renew()))
        self._tell_changed()

    async def leave(self) -> None:
        """Say that we are leaving, to those who are connected; bounded by the caller."""
        self._announcer.state = NodeState.LEAVING
        signed, record = self._announcer.renew()
        farewell = Gossip([MemberUpdate(MemberState(record.node, record.sequence, int(Status.ALIVE)), signed)])
        connections = self._pool.connections()
        heard = trio.Semaphore(0)
        for connection in connections:
            connection.post(farewell, lambda _outcome: heard.release())
        for _ in connections:
            await heard.acquire()

    def stop_publishing(self) -> None:
        """Close `changes`: whoever works on them ends."""
        self._changes.close()

    # The machine's driver

    async def _drive(self) -> None:
        async with trio.open_nursery() as sends:
            while True:
                event: Event = Tick()
                with trio.move_on_at(max(self._machine.next_deadline(), trio.current_time())):
                    event = await self._inbox.receive()
                for action in self._machine.handle(event, trio.current_time()):
                    self._perform(action, sends)

    def _perform(self, action: Action, sends: trio.Nursery) -> None:
        match action:
            case SendProbe(node):
                sends.start_soon(self._probe, action, self._discovery.contact(node))
            case Declare(change):
                self._publish(change)
            case Spread():
                self._spread(action)
            case Refute(incarnation_min):
                self._feed(OwnSigned(*self._announcer.renew(incarnation_min)))
            case PushPull(node):
                self._pool.pin(self._machine.partners())
                sends.start_soon(self._push_pull, node)
            case Yield(epoch):
                log.error("node.superseded", epoch=self._announcer.record.epoch, other_epoch=epoch)
                raise Superseded(
                    f"another copy of this node is running with a later epoch ({epoch})",
                    "nothing was lost here; stop one of them, then start the one that is to stay",
                )
            case _:
                assert_never(action)

    def _publish(self, change: MemberDead | MemberAlive) -> None:
        name = "member.dead" if isinstance(change, MemberDead) else "member.alive"
        log.info(name, node=change.node.hex()[:8])
        if isinstance(change, MemberDead):
            self._present.discard(change.node)
            self.detection.declared_dead(change.node, trio.current_time(), expected=self._is_expected(change.node))
            self._probe_too(self._discovery.failed(change.node))
        else:
            self._pool.reset_backoff(change.node)
            if change.node not in self._present:
                self._present.add(change.node)
                self._on_joined()
        self._pool.pin(self._machine.partners())
        self._tell_changed()
        try:
            self._changes.send_nowait(change)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.dropped += 1

    def _note_life(self, node: NodeId) -> None:
        if node in self._machine.neighbours():
            self.detection.heard(node, trio.current_time())

    def _is_expected(self, node: NodeId) -> bool:
        """Whether a death is none: it said that it leaves, or it is barred."""
        member = self._machine.members.get(node)
        return member is None or member.record.state == NodeState.LEAVING or node in self._barred

    def _tell_changed(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _feed(self, event: Event) -> None:
        """Give the machine an event; a rumour only while rumours have room."""
        rumour = isinstance(event, RecordLearned | StateHeard | HeardFrom)
        try:
            if rumour and self._inbox.statistics().current_buffer_used >= RUMOURS_MAX:
                raise trio.WouldBlock
            self._inbox_send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    # What goes out

    async def _probe(self, action: SendProbe, contact: Contact | None) -> None:
        self._feed(await self.prober.probe(action, contact))

    def _reached(self, node: NodeId) -> None:
        """The node answered us over a connection that its certificate opened."""
        self.joined.set()
        self._note_life(node)
        self._probe_too(self._discovery.heard_from(node))

    def _probe_too(self, node: NodeId | None) -> None:
        """A full bucket wants its oldest contact, or a fresh replacement, probed."""
        if node is not None:
            self._feed(ConnectionLost(node))

    def _spread(self, action: Spread) -> None:
        message = Gossip(list(action.updates[:UPDATES_MAX]))
        ours = any(update.state.node == self._announcer.id for update in message.updates)
        for node in action.targets:
            contact = self._discovery.contact(node)
            if contact is not None:
                # Push-pull mends what is lost.
                self._pool.post(contact, message, self.introducing.answered if ours else lambda _outcome: None)

    async def _push_pull(self, node: NodeId) -> None:
        contact = self._discovery.contact(node)
        if contact is None:
            return
        with trio.move_on_after(PUSH_PULL_TIMEOUT_S):
            try:
                await self._exchange(await self._pool.connection(contact))
            except (LockboxError, RemoteProtocolError) as error:
                log.debug("push_pull.failed", node=node.hex()[:8], reason=str(error.code))

    async def _exchange(self, connection: Connection) -> None:
        await self.exchanging.through(connection)
        self._reached(NodeId(connection.peer.id))

    async def _join(self) -> None:
        """Keep trying the bootstrap peers while nobody has answered, or nobody is left."""
        while True:
            await trio.sleep(JOIN_EVERY_S)
            if not self.joined.is_set() or not self._machine.alive() or self.introducing.unreachable:
                await self._joining.once()

    async def _met(self, connection: Connection) -> None:
        """A bootstrap peer answered. LockboxError, RemoteProtocolError."""
        if connection.peer.record is not None:
            self._introduce(connection.peer.record, connection.peer)
        await self._exchange(connection)

    async def _keep_record_fresh(self) -> None:
        while True:
            await trio.sleep(RENEW_LOOK_S)
            if self._announcer.outdated():
                self.renew_record()

    # What comes in

    def _take_from(self, update: MemberUpdate, peer: Peer) -> None:
        """RemoteProtocolError when its record does not verify."""
        if update.record is not None:
            self._introduce(update.record, peer)
        self._hear(update.state)

    def _introduce(self, signed: Signed, peer: Peer) -> None:
        """`peer` shows a record: believed, or dialled back first. RemoteProtocolError."""
        waiting = self._learn_from(signed, peer)
        if waiting is not None:
            self.introducing.dial_back(signed, waiting)

    def _learn_from(self, signed: Signed, peer: Peer) -> NodeRecord | None:
        """Take a record that `peer` shows; returns it when its node must be dialled back first. RemoteProtocolError."""
        record = self.foreign.news(signed)
        if record is None or self.introducing.needed(record, peer):
            return record
        self._believe(signed, record)
        return None

    def _believe(self, signed: Signed, record: NodeRecord) -> None:
        self._feed(RecordLearned(signed, record))

    def _hear(self, state: MemberState) -> None:
        if state.status != Status.ALIVE:  # that somebody lives is news only with a newer record
            self._feed(StateHeard(state))

    def learn(self, signed: Signed) -> None:
        """Verify a record that a member told us, and hand it to the machine. RemoteProtocolError."""
        record = self.foreign.news(signed)
        if record is not None:
            self._believe(signed, record)

    def _on_ping(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, Ping)
        self._heard(peer)
        answer(Pong(request.nonce, self._announcer.record.sequence))

    def _on_sync(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, SyncMembers)
        self._heard(peer)
        answer(self.exchanging.answer_to(request, peer))

    def _on_gossip(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, Gossip)
        self._heard(peer)
        waiting: tuple[Signed, NodeRecord] | None = None
        for update in request.updates:  # ends at the first record that does not verify; what stood before it is taken
            record = None if update.record is None else self._learn_from(update.record, peer)
            if update.record is not None and record is not None:
                waiting = update.record, record
            self._hear(update.state)
        if waiting is None:
            answer(Done())
        else:
            self.introducing.dial_back(*waiting, lambda error: answer(Done() if error is None else error))

    def _heard(self, peer: Peer) -> None:
        """A peer spoke to us. A node that we believe gone, or do not know, may have brought a newer record."""
        if peer.role is not Role.NODE:
            return
        self.joined.set()
        self._note_life(NodeId(peer.id))
        member = self._machine.members.get(NodeId(peer.id))
        missing = member is None or member.status is not Status.ALIVE
        if missing and peer.record is not None and self.introducing.idle(NodeId(peer.id)):
            self._introduce(peer.record, peer)
        self._feed(HeardFrom(NodeId(peer.id)))
