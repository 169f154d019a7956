"""Drives the membership machine: probes, rumours, push-pull; joins through bootstrap peers; publishes who dies.

All policy is `core.membership`; here records are verified before the machine sees them, actions become requests, and
outcomes become events. The inbox is bounded: a rumour that finds it full is dropped and counted, since push-pull mends
what was lost. What is published and does not fit is found again by the sweep of healing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog
import trio
import trio.lowlevel

from lockbox_node.core.member_events import (
    Action,
    ConnectionLost,
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
    Tick,
)
from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.announcing import Announcer, NodeState
from lockbox_node.services.discovery import Discovery, is_dialable
from protocol.certificates import Role, verify_record
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import UPDATES_MAX, Done, Gossip, Members, MemberUpdate, Message, Ping, Pong, Signed, SyncMembers
from protocol.records import NodeRecord, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.core.membership import Membership
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.rpc.pool import Pool

INBOX_MAX = 4096
PUSH_PULL_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 5.0
JOIN_EVERY_S = 3.0  # while nobody is known
RENEW_SHARE = 0.5  # of a record's life
CLIENT_PAGE = 200
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
        remembered: Sequence[Signed] = (),
    ) -> None:
        self._machine = machine
        self._announcer = announcer
        self._discovery = discovery
        self._pool = pool
        self._bootstrap = bootstrap
        self._changes = changes
        self._now_unix_s = now_unix_s
        self._remembered = remembered[:REMEMBERED_MAX]
        self._inbox_send, self._inbox = trio.open_memory_channel[Event](INBOX_MAX)
        self._nonce = 0
        self.dropped = 0  # events that found the inbox or the channel full
        self.joined = trio.Event()
        self.changed = trio.Event()  # set, and replaced, at each change of a member

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(Ping, self._on_ping), Route(SyncMembers, self._on_sync), Route(Gossip, self._on_gossip)]

    def connection_lost(self, node: NodeId) -> None:
        """A connection to that node broke: ask whether it lives."""
        self._feed(ConnectionLost(node))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started after the first attempt to join, successful or not."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drive)
            self._feed(OwnSigned(self._announcer.signed, self._announcer.record))
            for signed in self._remembered:
                self._learn(signed)
            await self._join_once()
            nursery.start_soon(self._join)
            nursery.start_soon(self._keep_record_fresh)
            task_status.started()

    def records(self) -> list[Signed]:
        """Records of the members believed alive: what a restart should remember, so that it needs no bootstrap."""
        members = self._machine.members
        return [members[node].signed for node in sorted(self._machine.alive())][:REMEMBERED_MAX]

    def set_state(self, state: NodeState) -> None:
        """Announce another state of ours."""
        self._announcer.state = state
        self.renew_record()

    def renew_record(self) -> None:
        """Sign our record anew: the leaf or what it says has changed."""
        self._feed(OwnSigned(*self._announcer.renew()))

    async def leave(self) -> None:
        """Say that we are leaving, to those who are connected; bounded by the caller."""
        self._announcer.state = NodeState.LEAVING
        signed, record = self._announcer.renew()
        for action in self._machine.handle(OwnSigned(signed, record), trio.current_time()):
            if isinstance(action, Spread):
                self._spread(action)
        await trio.lowlevel.checkpoint()

    # The machine's driver

    async def _drive(self) -> None:
        async with trio.open_nursery() as sends:
            while True:
                event: Event = Tick()
                with trio.move_on_at(_finite(self._machine.next_deadline())):
                    event = await self._inbox.receive()
                for action in self._machine.handle(event, trio.current_time()):
                    self._perform(action, sends)

    def _perform(self, action: Action, sends: trio.Nursery) -> None:
        match action:
            case SendProbe(node, timeout_s):
                sends.start_soon(self._probe, node, timeout_s)
            case Declare(change):
                self._publish(change)
            case Spread():
                self._spread(action)
            case Refute(incarnation_min):
                self._feed(OwnSigned(*self._announcer.renew(incarnation_min)))
            case PushPull(node):
                sends.start_soon(self._push_pull, node)

    def _publish(self, change: MemberDead | MemberAlive) -> None:
        name = "member.dead" if isinstance(change, MemberDead) else "member.alive"
        log.info(name, node=change.node.hex()[:8])
        if isinstance(change, MemberDead):
            self._probe_too(self._discovery.failed(change.node))
        else:
            self._pool.reset_backoff(change.node)
        self._pool.pin(self._machine.neighbours())
        self.changed.set()
        self.changed = trio.Event()
        try:
            self._changes.send_nowait(change)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.dropped += 1

    def _feed(self, event: Event) -> None:
        try:
            self._inbox_send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    # What goes out

    async def _probe(self, node: NodeId, timeout_s: float) -> None:
        contact = self._discovery.contact(node)
        self._nonce += 1
        outcome: Event = ProbeFailed(node)
        with trio.move_on_after(timeout_s):
            try:
                self._pool.reset_backoff(node)
                assert contact is not None, "only members are probed"
                nonce = self._nonce
                reply = await self._pool.request(contact, Ping(nonce))
                if isinstance(reply, Pong) and reply.nonce == nonce:
                    outcome = ProbeAnswered(node, reply.incarnation)
                    self._probe_too(self._discovery.heard_from(node))
            except LockboxError as error:
                log.debug("probe.failed", node=node.hex()[:8], reason=str(error.code))
        self._feed(outcome)

    def _probe_too(self, node: NodeId | None) -> None:
        """A full bucket wants its oldest contact, or a fresh replacement, probed."""
        if node is not None:
            self._feed(ConnectionLost(node))

    def _spread(self, action: Spread) -> None:
        message = Gossip(list(action.updates[:UPDATES_MAX]))
        for node in action.targets:
            contact = self._discovery.contact(node)
            if contact is not None:
                self._pool.post(contact, message, _ignore)

    async def _push_pull(self, node: NodeId) -> None:
        contact = self._discovery.contact(node)
        if contact is None:
            return
        with trio.move_on_after(PUSH_PULL_TIMEOUT_S):
            try:
                await self._exchange(await self._pool.connection(contact))
            except LockboxError as error:
                log.debug("push_pull.failed", node=node.hex()[:8], reason=str(error.code))

    async def _exchange(self, connection: Connection) -> None:
        after = b""
        while True:
            reply = await connection.request(SyncMembers(self._machine.known(), after))
            assert isinstance(reply, Members), "the codec checked the type of the reply"
            self._take(reply.updates)
            if reply.wanted and not after:
                updates = self._machine.updates_of(reply.wanted)[:UPDATES_MAX]
                await connection.request(Gossip(updates))
            if not reply.more or not reply.updates:
                return
            after = reply.updates[-1].state.node

    async def _join(self) -> None:
        """Keep trying the bootstrap peers while nobody is known."""
        while True:
            await trio.sleep(JOIN_EVERY_S)
            if not self._machine.alive():
                await self._join_once()

    async def _join_once(self) -> None:
        if not self._bootstrap:
            self.joined.set()
        async with trio.open_nursery() as nursery:
            for host, port in self._bootstrap:
                nursery.start_soon(self._join_through, host, port)

    async def _join_through(self, host: str, port: int) -> None:
        with trio.move_on_after(JOIN_TIMEOUT_S):
            try:
                connection = await self._pool.connect_address(host, port)
                if connection.peer.record is not None:
                    self._learn(connection.peer.record)
                await self._exchange(connection)
                self.joined.set()
            except PeerUnreachable:
                log.debug("join.unreachable")
            except LockboxError as error:
                log.warning("join.refused", reason=str(error.code), message=error.message)

    async def _keep_record_fresh(self) -> None:
        while True:
            life_s = self._announcer.record.expires_unix_s - self._now_unix_s()
            await trio.sleep(max(60.0, life_s * RENEW_SHARE))
            self._feed(OwnSigned(*self._announcer.renew()))

    # What comes in

    def _take(self, updates: Sequence[MemberUpdate]) -> None:
        for update in updates:
            if update.record is not None:
                self._learn(update.record)
            self._feed(StateHeard(update.state))

    def _learn(self, signed: Signed) -> None:
        """Verify a record and hand it to the machine; one that is known is not verified again."""
        try:
            claimed = parse(signed, NodeRecord)
            member = self._machine.members.get(NodeId(claimed.node))
            if member is not None and member.incarnation >= claimed.sequence:
                return
            record = verify_record(self._announcer.root, signed)
        except RemoteProtocolError as error:
            log.warning("record.refused", reason=str(error))
            return
        if record.expires_unix_s > self._now_unix_s() and is_dialable(record):
            self._feed(RecordLearned(signed, record))

    def _on_ping(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, Ping)
        self._heard(peer)
        answer(Pong(request.nonce, self._announcer.record.sequence))

    def _on_sync(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, SyncMembers)
        if peer.role is Role.NODE:
            self._heard(peer)
            for state in request.known:
                self._feed(StateHeard(state))
            answer(self._machine.compare(request.known, request.after))
        else:
            answer(self._machine.compare([], request.after, CLIENT_PAGE))

    def _on_gossip(self, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, Gossip)
        self._heard(peer)
        self._take(request.updates)
        answer(Done())

    def _heard(self, peer: Peer) -> None:
        if peer.role is not Role.NODE:
            return
        if peer.record is not None and peer.id not in self._machine.members:
            self._learn(peer.record)
        self.joined.set()
        self._feed(HeardFrom(NodeId(peer.id)))


def _finite(deadline: float) -> float:
    return deadline if deadline > -math.inf else trio.current_time()


def _ignore(_outcome: Message | LockboxError) -> None:
    """Rumours may be lost: push-pull mends it."""
