"""The handlers of one holder over a store in memory: what tests of storage and comparing ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.hello import Peer
from lockbox_node.services.comparing import Comparing
from lockbox_node.services.redeeming import Redeeming
from lockbox_node.services.storage import Storage
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import NodeId
from protocol.messages import NUMBERS, GetShards, HolderTable, Message, PutStripe, Signed, Told
from simulations.journal import MemoryJournal
from simulations.memory_store import MemoryStore
from tests.fakes.granting import around, grants, network, verifier, wish
from tests.fakes.stripes import FixedClock, Stripe, bytes_of, node_of

OWN = NodeId(node_of(0))
VERIFIERS = 4  # that the holder knows
NOTHING_TOLD = Told([], [], [])
RECORDS = [Signed(b"a record", bytes(64))]


def peer_of(role: Role, peer_id: bytes) -> Peer:
    return Peer(peer_id, role, "op1", "127.0.0.1", Downgrade.NONE, None, b"", 0.0)


CLIENT = peer_of(Role.CLIENT, bytes_of("client"))
GUEST = peer_of(Role.GUEST, bytes_of("guest"))
HOLDER = peer_of(Role.NODE, node_of(3))
STRANGER = peer_of(Role.NODE, node_of(77))


@dataclass
class Bench:
    """The handlers of a holder over a store in memory, answering at once."""

    near: bool = True
    told: list[HolderTable] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = FixedClock()
        self.store = MemoryStore(StoreParams(), self.clock)
        self.around = around(OWN, [verifier(number) for number in range(VERIFIERS)])
        self.journal = MemoryJournal()
        self.now = 0.0
        self.redeeming = self.redeems()
        self.storage = Storage(
            self.store,
            OWN,
            self.clock,
            lambda _target, _count: RECORDS,
            lambda _target, _count: [OWN] if self.near else [],
            self.told.append,
            self.redeeming,
        )
        self.missing: list[HolderTable] = []
        self.differing: list[bytes] = []
        self.comparing = Comparing(
            self.store,
            OWN,
            self.clock,
            lambda _target, _count: [OWN] if self.near else [],
            self,
        )
        routes = [*self.storage.routes(), *self.comparing.routes()]
        self.handlers = {route.request: route.handler for route in routes}

    def redeems(self) -> Redeeming:
        """A life over what the journal has kept."""
        return Redeeming(network().root, lambda: self.around, self.clock, self.journal, lambda: self.now)

    def on_missing(self, table: HolderTable) -> None:
        self.missing.append(table)

    def on_differing(self, node: bytes) -> None:
        self.differing.append(node)

    def ask(self, request: Message, peer: Peer = CLIENT) -> Message:
        """The reply; raises what the peer would be refused with."""
        answers: list[Any] = []
        self.handlers[type(request)](request, peer, answers.append)  # type: ignore[call-arg]
        assert len(answers) == 1
        if isinstance(answers[0], LockboxError):
            raise answers[0]
        assert isinstance(answers[0], Message)
        return answers[0]

    def refused(self, request: Message, peer: Peer = CLIENT) -> ErrorCode:
        """The code of the refusal."""
        with pytest.raises((LockboxError, RemoteProtocolError)) as caught:
            self.ask(request, peer)
        error = caught.value
        assert isinstance(error, LockboxError | RemoteProtocolError)
        return error.code


def put_of(stripe: Stripe, index: int = 0, changes: dict[str, object] | None = None) -> PutStripe:
    part = stripe.parts[index]
    request = PutStripe(part.descriptor, list(part.slots), index, list(part.shards), list(part.entries))
    return msgspec.structs.replace(request, **(changes or {}))


def get_of(stripe: Stripe, peer: Peer | None = CLIENT, operation: type[Message] = GetShards) -> GetShards:
    access = None if peer is None else wish(stripe.signer, peer.id, operation=NUMBERS[operation])
    granted = [] if access is None else grants(access)
    return GetShards(stripe.signer.address, stripe.parts[0].descriptor_hash, access, granted)
