"""Who is nearest to an address: the member table says who there is, the routing table who has answered us.

Up to about 10,000 nodes the member table is complete and exact, so every choice comes from it. What is derived from all
of it is kept until a live member or its record changes; the nearest, asked for at every stripe, need no look at all.
The routing table orders the answers to FIND_NODE (who answered us first) and says whom else to probe. Both give signed
records, so an answer can hide a node but neither invent nor alter one. Source: DESIGN section 4, Finding and Knowing.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from lockbox_node.config import host_port
from lockbox_node.core.documents import NO_RULES, Rules
from lockbox_node.core.member_events import Status
from lockbox_node.core.placement import Candidate
from lockbox_node.errors import ConfigError
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.announcing import Announcer, NodeState
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId, distance
from protocol.messages import FindNode, Message, Nodes, Signed
from protocol.records import NodeRecord, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from lockbox_node.core.membership import Membership
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.routing_table import RoutingTable
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer


def contact_of(record: NodeRecord) -> Contact:
    """Where the node of a record is dialled."""
    return Contact(NodeId(record.node), tuple(record.addresses))


def contacts_of(records: Iterable[Signed]) -> list[Contact]:
    """Where the nodes of these records, which nobody verified yet, may be dialled; what cannot be is left out."""
    found = []
    for signed in records:
        with suppress(RemoteProtocolError):
            record = parse(signed, NodeRecord)
            if is_dialable(record):
                found.append(contact_of(record))
    return found


def is_dialable(record: NodeRecord) -> bool:
    """Whether every address of the record is HOST:PORT."""
    try:
        return all(host_port(address, "a record's address")[1] > 0 for address in record.addresses)
    except ConfigError:
        return False


def is_eligible(record: NodeRecord) -> bool:
    """May new shards be placed there: active and not full."""
    return record.state == NodeState.ACTIVE and record.free_class > 0


def is_failing(record: NodeRecord) -> bool:
    """Does it say itself that what it holds should be elsewhere: it drains, leaves, or lost its disk."""
    return record.state in (NodeState.DRAINING, NodeState.LEAVING)


def _nobody(_address: bytes, _descriptor_hash: bytes) -> frozenset[NodeId]:
    return frozenset()


class _View:
    """What follows from the live members, our own record and the regions, until one changes; each once it is asked."""

    def __init__(self, live: Sequence[NodeId], membership: Membership, own: NodeRecord, regions: RegionTable) -> None:
        self.live, self.own, self.regions = live, own, regions
        members = membership.members
        records = {node: members[node].record for node in live}
        records[NodeId(own.node)] = own
        self.records = MappingProxyType(records)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Where shards may be placed."""
        eligible = (record for record in self.records.values() if is_eligible(record))
        return [Candidate(record.node, record.region, record.operator) for record in eligible]

    @cached_property
    def failing(self) -> frozenset[NodeId]:
        """Live members, others than ourselves, that say that they will not be for long, or whose region is none now."""
        others = (record for record in self.records.values() if record is not self.own)
        return frozenset(
            NodeId(record.node) for record in others if is_failing(record) or record.region not in self.regions
        )


class Discovery:
    """Reads the member table that `services.membership` drives; keeps the routing table."""

    def __init__(self, announcer: Announcer, membership: Membership, table: RoutingTable) -> None:
        self._announcer = announcer
        self._membership = membership
        self._table = table
        self._seen: _View | None = None
        self._rules: Callable[[], Rules] = lambda: NO_RULES
        self._now_unix_s: Callable[[], float] = lambda: 0.0
        self.excluded: Callable[[], Collection[bytes]] = tuple  # who may hold nothing new, whatever it says
        self.outvoted: Callable[[], Collection[bytes]] = tuple  # of them, whose parts move away
        self.unproven: Callable[[bytes, bytes], frozenset[NodeId]] = _nobody  # who failed to prove a part of that slot

    @property
    def own(self) -> NodeId:
        """Our node id."""
        return self._announcer.id

    @property
    def regions(self) -> RegionTable:
        """The network's region table."""
        return self._rules().regions

    def go_by(self, rules: Callable[[], Rules], now_unix_s: Callable[[], float]) -> None:
        """Which documents are in force from now on, and by which clock."""
        self._rules, self._now_unix_s = rules, now_unix_s

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(FindNode, self._find_node)]

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Records of everybody believed alive, ourselves included; it stays as it is when that changes."""
        return self._view().records

    def failing(self) -> frozenset[NodeId]:
        """Live members, others than ourselves, that should hold nothing for long.

        They say so, their region is none now, or they are outvoted.
        """
        view, excluded = self._view(), self.outvoted()
        return view.failing if not excluded else view.failing | self._elsewhere(view, excluded)

    def failing_at(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        """The same, and who failed to prove to us that it still has its part of this slot identity."""
        unproven = self.unproven(address, descriptor_hash)
        return self.failing() | unproven if unproven else self.failing()

    def _elsewhere(self, view: _View, excluded: Collection[bytes]) -> frozenset[NodeId]:
        return frozenset(NodeId(node) for node in excluded if node in view.records and node != self.own)

    def known(self, node: NodeId) -> NodeRecord | None:
        """The record of a node, dead or alive, ourselves included."""
        member = self._membership.members.get(node)
        return self._announcer.record if node == self.own else None if member is None else member.record

    def suspected(self, node: NodeId) -> bool:
        """Whether membership does not hear a member at the moment, or believes it dead."""
        member = self._membership.members.get(node)
        return node != self.own and (member is None or member.status is not Status.ALIVE)

    def health(self) -> int:
        """How far we doubt ourselves: the local health multiplier."""
        return self._membership.health

    def contact(self, node: NodeId) -> Contact | None:
        """How to reach a member, dead or alive; None when it is unknown or ourselves."""
        member = self._membership.members.get(node)
        return None if member is None else contact_of(member.record)

    def candidates(self) -> list[Candidate]:
        """Where shards may be placed now."""
        view, excluded = self._view(), self.excluded()
        rules, now_unix_s = self._rules(), self._now_unix_s()
        allowed = [one for one in view.candidates if one.node not in excluded]
        return [one for one in allowed if not rules.refuses(view.records[NodeId(one.node)].software, now_unix_s)]

    def nearest_nodes(self, target: bytes, count: int) -> list[NodeId]:
        """The nearest live nodes, ourselves included, nearest first."""
        found = [*self._membership.nearest_alive(target, count), self.own]
        return sorted(found, key=lambda node: distance(node, target))[:count]

    def nearest(self, target: bytes, count: int) -> list[Signed]:
        """Their signed records."""
        return [self.signed(node) for node in self.nearest_nodes(target, count)]

    def signed(self, node: NodeId) -> Signed:
        """The signed record of a member or of ourselves."""
        return self._announcer.signed if node == self.own else self._membership.members[node].signed

    def nearest_contacts(self, target: bytes, count: int) -> list[Contact]:
        """Contacts of the nearest live nodes other than ourselves."""
        members = self._membership.members
        return [contact_of(members[node].record) for node in self._membership.nearest_alive(target, count)]

    def nearest_answered(self, target: bytes, count: int) -> list[NodeId]:
        """The nearest contacts of the routing table: who has answered us."""
        return [NodeId(contact.id) for contact in self._table.nearest(target, count)]

    def heard_from(self, node: NodeId) -> NodeId | None:
        """The node answered us over an authenticated connection: it belongs into its bucket.

        Returns the contact to probe when that bucket is full.
        """
        member = self._membership.members.get(node)
        if member is None or member.status is Status.DEAD:
            return None
        host, port = host_port(member.record.addresses[0], "a record's address")
        return self._table.seen(node, host, port, member.record.operator)

    def failed(self, node: NodeId) -> NodeId | None:
        """The node is dead: out of its bucket. Returns the replacement to probe, if any."""
        return self._table.failed(node)

    def _view(self) -> _View:
        live, own, regions = self._membership.alive(), self._announcer.record, self.regions
        seen = self._seen
        if seen is None or seen.live is not live or seen.own is not own or seen.regions is not regions:
            seen = self._seen = _View(live, self._membership, own, regions)
        return seen

    def _find_node(self, request: Message, _peer: Peer, answer: Answer[Message]) -> None:
        """The nearest; who has answered us stands first, since the asker will try them in this order."""
        assert isinstance(request, FindNode)
        nodes = self.nearest_nodes(request.target, request.count)
        nodes.sort(key=lambda node: node != self.own and node not in self._table)
        answer(Nodes([self.signed(node) for node in nodes]))
