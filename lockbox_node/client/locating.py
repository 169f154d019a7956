"""Which nodes a client gives nothing new, since they do not stand where they claim.

Under the policy `location = measured` every node whose members are read is also asked for the reports that contradict a
claim. The client checks their signatures and judges by itself (core.location), by witnesses alone, since it stands
nowhere: so a node that lies can hide a contradiction that nobody else tells, and accuse with its own voice only.
Source: DESIGN, Evidence of location; SPEC.md, Vantage reports.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.location import ELECTORS, Kilometres, judge, region_km
from lockbox_node.core.policy import Governed
from lockbox_node.core.vantages import VantageTable
from lockbox_node.errors import LockboxError
from protocol.certificates import NetworkRoot, verify_vantage
from protocol.errors import RemoteProtocolError
from protocol.ids import NodeId
from protocol.records import parse
from protocol.vantage import CompareVantages, Vantage, Vantages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lockbox_node.client.members import MemberView
    from lockbox_node.core.documents import Rules
    from lockbox_node.rpc.pool import Contact, Pool
    from protocol.messages import Signed
    from protocol.records import NodeRecord

ASK_TIMEOUT_S = 2.0
PAGES_MAX = 16  # of one node
AGAIN_S = 60.0  # between two questions of a client that goes on running


class Locating:
    """One per client. Says in `members.excluded` who is refuted."""

    def __init__(
        self,
        root: NetworkRoot,
        own: bytes,
        pool: Pool,
        members: MemberView,
        now_unix_s: Callable[[], float],
        rules: Callable[[], Rules],
    ) -> None:
        self._root, self._pool, self._members = root, pool, members
        self._now_unix_s, self._rules = now_unix_s, rules
        self._table = VantageTable(NodeId(own))
        self._turn = 0
        self.km: Kilometres = lambda a, b: region_km(a, b, rules().regions)
        self.refused = 0  # reports that did not hold

    @property
    def enforced(self) -> bool:
        """Whether the policy excludes who is refuted."""
        return Governed().under_all(self._rules().settings)[0].measured

    async def learn(self, contact: Contact) -> None:
        """Read the contradictions that a node knows of; one that does not answer in time is not waited for."""
        if not self.enforced:
            return
        after = b""
        with trio.move_on_after(ASK_TIMEOUT_S), suppress(LockboxError):
            for _ in range(PAGES_MAX):
                reply = await self._pool.request(contact, CompareVantages([], after))
                assert isinstance(reply, Vantages), "the codec checked the type of the reply"
                last = self.take(reply.vantages)
                if not reply.more or last <= after:
                    break
                after = last

    async def keep_up(self) -> None:
        """Ask one connected node after another, until cancelled."""
        while True:
            await trio.sleep(AGAIN_S)
            contacts = [self._members.get(connection.peer.id) for connection in self._pool.connections()]
            known = [member.contact for member in contacts if member is not None]
            if known:
                self._turn += 1
                await self.learn(known[self._turn % len(known)])
            self.judge()

    def take(self, reports: Iterable[Signed]) -> bytes:
        """Keep what holds and is new; the greatest judge that was named."""
        last, claims = b"", self._claims()
        for signed in reports:
            try:
                claimed = parse(signed, Vantage)
                last = max(last, claimed.judge)
                if self._table.objection(claimed, self._now_unix_s(), claims) is None:
                    self._table.keep(signed, verify_vantage(self._root, signed))
            except RemoteProtocolError:
                self.refused += 1
        return last

    def judge(self) -> None:
        """Exclude who is refuted now, by the members as they are known now."""
        if not self.enforced:
            self._members.excluded = frozenset()
            return
        sightings = self._table.sightings(self._now_unix_s())
        # Who is nearest to the accused decides how many witnesses are needed: invented neighbours must not.
        for subject in sorted({one.subject for one in sightings}):
            self._members.nearest_verified(subject, ELECTORS + 1, trio.current_time())
        # Operator and region of a witness decide: a record that nobody signed must not give it others.
        for node in sorted({one.judge for one in sightings} | {one.subject for one in sightings}):
            self._members.verify(node)
        self._members.excluded = frozenset(judge(None, self._claims(), (), sightings, self.km).refuted)

    def _claims(self) -> Mapping[NodeId, NodeRecord]:
        return {NodeId(member.record.node): member.record for member in self._members.all() if member.alive}
