"""Who is nearest to an address: the member table and the routing table, asked as one.

Up to about 10,000 nodes the member table is complete and exact; the routing table holds those who answered us, in
buckets, and stands in while the member table is not complete. Both give signed records, so an answer can hide a node
but neither invent nor alter one. Source: DESIGN section 4, Finding and Knowing.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from lockbox_node.config import host_port
from lockbox_node.core.member_events import Status
from lockbox_node.core.placement import Candidate
from lockbox_node.errors import ConfigError
from lockbox_node.rpc.dispatch import Route
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.announcing import Announcer, NodeState
from protocol.ids import NodeId, distance
from protocol.messages import FindNode, Message, Nodes, Signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lockbox_node.core.membership import Membership
    from lockbox_node.core.routing_table import RoutingTable
    from lockbox_node.ports import Answer
    from lockbox_node.rpc.hello import Peer
    from protocol.records import NodeRecord


def contact_of(record: NodeRecord) -> Contact:
    """Where the node of a record is dialled."""
    return Contact(NodeId(record.node), tuple(record.addresses))


def is_dialable(record: NodeRecord) -> bool:
    """Whether every address of the record is HOST:PORT."""
    try:
        return all(host_port(address, "a record's address")[1] > 0 for address in record.addresses)
    except ConfigError:
        return False


def is_eligible(record: NodeRecord) -> bool:
    """May new shards be placed there: active and not full."""
    return record.state == NodeState.ACTIVE and record.free_class > 0


class Discovery:
    """Reads the member table that `services.membership` drives; keeps the routing table."""

    def __init__(self, announcer: Announcer, membership: Membership, table: RoutingTable) -> None:
        self._announcer = announcer
        self._membership = membership
        self._table = table

    @property
    def own(self) -> NodeId:
        """Our node id."""
        return self._announcer.id

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(FindNode, self._find_node)]

    def alive(self) -> Mapping[NodeId, NodeRecord]:
        """Records of everybody believed alive, ourselves included."""
        members = self._membership.members
        found = {node: members[node].record for node in self._membership.alive()}
        found[self.own] = self._announcer.record
        return found

    def contact(self, node: NodeId) -> Contact | None:
        """How to reach a member, dead or alive; None when it is unknown or ourselves."""
        member = self._membership.members.get(node)
        return None if member is None else contact_of(member.record)

    def candidates(self) -> list[Candidate]:
        """Where shards may be placed now."""
        return [
            Candidate(record.node, record.region, record.operator)
            for record in self.alive().values()
            if is_eligible(record)
        ]

    def nearest_nodes(self, target: bytes, count: int) -> list[NodeId]:
        """The nearest live nodes, ourselves included, nearest first."""
        nodes = {*self._membership.alive(), *self._from_table(target, count), self.own}
        return heapq.nsmallest(count, nodes, key=lambda node: distance(node, target))

    def nearest(self, target: bytes, count: int) -> list[Signed]:
        """Their signed records."""
        members = self._membership.members
        return [
            self._announcer.signed if node == self.own else members[node].signed
            for node in self.nearest_nodes(target, count)
        ]

    def nearest_contacts(self, target: bytes, count: int) -> list[Contact]:
        """Contacts of the nearest live nodes other than ourselves."""
        found = (self.contact(node) for node in self.nearest_nodes(target, count + 1))
        return [contact for contact in found if contact is not None][:count]

    def heard_from(self, node: NodeId) -> NodeId | None:
        """The node answered us over an authenticated connection: it belongs into its bucket.

        Returns the contact to probe when that bucket is full.
        """
        member = self._membership.members.get(node)
        if member is None:
            return None
        host, port = host_port(member.record.addresses[0], "a record's address")
        return self._table.seen(node, host, port, member.record.operator)

    def failed(self, node: NodeId) -> NodeId | None:
        """The node is dead: out of its bucket. Returns the replacement to probe, if any."""
        return self._table.failed(node)

    def _from_table(self, target: bytes, count: int) -> Iterable[NodeId]:
        members = self._membership.members
        for contact in self._table.nearest(target, count):
            member = members.get(NodeId(contact.id))
            if member is not None and member.status is not Status.DEAD:
                yield NodeId(contact.id)

    def _find_node(self, request: Message, _peer: Peer, answer: Answer[Message]) -> None:
        assert isinstance(request, FindNode)
        answer(Nodes(self.nearest(request.target, request.count)))
