"""The client's view of the members: records merged from several nodes, verified only when they are used.

A record's id is proved by TLS when its node is dialled; what it says of region, operator and state counts for
placement, so `candidate`s are verified before they are chosen (1.6 kB and two certificates each: too much for all of
10,000 members at every start). A node that failed us is left out for a while. Source: DESIGN, Identity and Addresses.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.placement import Candidate
from lockbox_node.rpc.pool import Contact
from protocol.certificates import NetworkRoot, verify_record
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.records import NodeRecord, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

    from lockbox_node.services.lookups import Known
    from protocol.messages import MemberUpdate, Signed

ACTIVE = 1
ALIVE, DEAD = 0, 2
MEMBERS_MAX = 20_000  # as many as one sync_members may name


@dataclass(slots=True)
class Member:
    """One member as the client knows it; `verified` once its record's chain and signature were checked."""

    signed: Signed
    record: NodeRecord
    contact: Contact
    candidate: Candidate
    number: int  # its id, for distances
    alive: bool = True
    verified: bool = False
    shunned_until: float = 0.0  # trio time


class MemberView:
    """All known members. Everything is synchronous; `now` is trio time."""

    def __init__(self, root: NetworkRoot) -> None:
        self._root = root
        self._members: dict[bytes, Member] = {}
        self._barred: Collection[bytes] = frozenset()
        self.complete = True  # some node's whole table was read
        self.refuses: Callable[[bytes], bool] = lambda _software: False  # may no new shard go to a node with it
        self.excluded: Container[bytes] = frozenset()  # nodes that are given nothing new

    def __len__(self) -> int:
        return len(self._members)

    def get(self, node: bytes) -> Member | None:
        """The member of that id, if known."""
        return self._members.get(node)

    def is_strange(self, node: bytes) -> bool:
        """Whether nothing is known of the node, not even that it is barred: reading the members again may help."""
        return node not in self._members and node not in self._barred

    def bar(self, nodes: Collection[bytes]) -> None:
        """These nodes, and no others, are revoked: they are no members, whatever anybody says of them."""
        self._barred = nodes
        for node in sorted(nodes):
            self._members.pop(node, None)

    def all(self) -> list[Member]:
        """Every member, in id order."""
        return [self._members[node] for node in sorted(self._members)]

    def merge(self, views: Sequence[Iterable[MemberUpdate]]) -> None:
        """Take what several nodes said: the newest record of each member; dead when most who know it say so."""
        dead: Counter[bytes] = Counter()
        known: Counter[bytes] = Counter()
        for view in views:
            for update in view:
                node = update.state.node
                known[node] += 1
                dead[node] += update.state.status == DEAD
                if update.record is not None:
                    self._take(node, update.record)
        for node in known:
            member = self._members.get(node)
            if member is not None:
                member.alive = 2 * dead[node] <= known[node] if known[node] > 1 else not dead[node]

    def take_records(self, records: Iterable[Signed]) -> None:
        """Records that came with another answer: believed alive by the one that sent them."""
        for signed in records:
            try:
                node = parse(signed, NodeRecord).node
            except RemoteProtocolError:
                continue
            self._take(node, signed)

    def take_found(self, found: Iterable[Known]) -> None:
        """Members that a lookup found: verified, and they have just answered. When all is full, others make room."""
        for one in found:
            node = one.record.node
            if node not in self._members and len(self._members) >= MEMBERS_MAX:
                del self._members[next(iter(self._members))]
            self._take(node, one.signed)
            member = self._members.get(node)
            if member is not None:
                member.alive, member.shunned_until = True, 0.0
                member.verified = member.verified or member.signed == one.signed

    def _take(self, node: bytes, signed: Signed) -> None:
        if node in self._barred:
            return
        have = self._members.get(node)
        if have is not None and have.signed.body == signed.body:
            return
        try:
            record = parse(signed, NodeRecord)
        except RemoteProtocolError:
            return  # whoever sent it: a record that does not parse is no member
        if record.node != node:
            return
        if have is None:
            if len(self._members) < MEMBERS_MAX:
                self._members[node] = _member(signed, record)
        elif record.sequence > have.record.sequence:
            self._replace(have, signed, record)
        elif not self.verify(node):  # the newer one was invented, to hide this one
            self._members[node] = _member(signed, record)

    def _replace(self, have: Member, signed: Signed, record: NodeRecord) -> None:
        """A newer record of a known member, if it holds: a false one must not take the good one's place."""
        try:
            verify_record(self._root, signed)
        except RemoteProtocolError:
            return
        member = self._members[record.node] = _member(signed, record)
        member.alive, member.shunned_until, member.verified = have.alive, have.shunned_until, True

    def shun(self, node: bytes, until: float) -> None:
        """It failed us: neither asked nor chosen before `until`, unless nothing else is left."""
        member = self._members.get(node)
        if member is not None:
            member.shunned_until = until

    def is_live(self, node: bytes, now: float) -> bool:
        """Whether it is believed alive and has not failed us lately."""
        member = self._members.get(node)
        return member is not None and member.alive and member.shunned_until <= now

    def nearest(self, target: bytes, count: int, now: float) -> list[Member]:
        """The `count` nearest live members in XOR order, shunned ones after all others."""
        goal = int.from_bytes(target, "big")
        live = (member for member in self._members.values() if member.alive)
        near = heapq.nsmallest(count, live, key=lambda member: member.number ^ goal)
        near.sort(key=lambda member: member.shunned_until > now)
        return near

    def nearest_verified(self, target: bytes, count: int, now: float) -> list[Member]:
        """The same, each with a verified record: invented members cannot crowd out the real ones."""
        while True:
            near = self.nearest(target, count, now)
            good = [member for member in near if self.verify(member.record.node)]
            if len(good) == len(near):
                return good

    def candidates(self, target: bytes, now: float, count: int, without: Container[bytes] = ()) -> list[Candidate]:
        """The `count` nearest that may hold a new shard: alive, active, with room and software that is not refused, not
        shunned, not excluded, record verified.
        """
        goal = int.from_bytes(target, "big")
        eligible = [
            member
            for node, member in self._members.items()
            if member.alive
            and member.shunned_until <= now
            and member.record.state == ACTIVE
            and member.record.free_class > 0
            and node not in without
            and node not in self.excluded
            and not self.refuses(member.record.software)
        ]
        near = heapq.nsmallest(count, eligible, key=lambda member: member.number ^ goal)
        return [member.candidate for member in near if self.verify(member.record.node)]

    def verify(self, node: bytes) -> bool:
        """Whether the member's record holds; a false one is forgotten."""
        member = self._members.get(node)
        if member is None:
            return False
        if not member.verified:
            try:
                verify_record(self._root, member.signed)
            except RemoteProtocolError:
                del self._members[node]
                return False
            member.verified = True
        return True

    def distinct_operators(self, members: Sequence[Member], count: int) -> list[Member]:
        """`members` reordered: the first ones of `count` distinct operators lead, the others follow in their order."""
        seen: dict[str, Member] = {}
        for member in members:
            if member.record.operator not in seen and len(seen) < count:
                seen[member.record.operator] = member
        first = list(seen.values())
        leading = {member.record.node for member in first}
        return first + [member for member in members if member.record.node not in leading]


def _member(signed: Signed, record: NodeRecord) -> Member:
    return Member(
        signed,
        record,
        Contact(NodeId(record.node), tuple(record.addresses)),
        Candidate(record.node, record.region, record.operator),
        int.from_bytes(record.node, "big"),
    )


def addresses_of(view: MemberView, count: int) -> list[str]:
    """Up to `count` addresses of live members, for the cache that the next start tries beside the bootstrap."""
    spread: Mapping[str, Member] = {member.record.operator: member for member in view.all() if member.alive}
    ordered = [*spread.values(), *(member for member in view.all() if member.alive)]
    return list(dict.fromkeys(member.record.addresses[0] for member in ordered))[:count]
