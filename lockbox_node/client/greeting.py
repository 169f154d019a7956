"""What a client says in Hello: its certificate chain, no record, no software claim, its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol.messages import Hello

if TYPE_CHECKING:
    from lockbox_node.ports import WallClock
    from protocol.certificates import NetworkRoot, Role
    from protocol.ids import ClientId

PROTOCOL_VERSIONS = [1]


class Certified(Protocol):
    """A client's or the guest's identity, as its adapter loads it."""

    root: NetworkRoot

    @property
    def role(self) -> Role:
        """CLIENT, OPERATOR or GUEST."""
        ...

    @property
    def client_id(self) -> ClientId:
        """What nodes know us by."""
        ...

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first, without the root."""
        ...


class Greeter:
    """The LocalIdentity of a client."""

    def __init__(self, identity: Certified, clock: WallClock) -> None:
        self._identity = identity
        self._clock = clock
        self.id: bytes = identity.client_id
        self.role = identity.role
        self.root = identity.root

    def hello(self) -> Hello:
        """What opens a connection."""
        return Hello(
            chain=list(self._identity.chain),
            versions=PROTOCOL_VERSIONS,
            network=self.root.network_id,
            record=None,
            software=b"",
            clock_unix_ms=int(self._clock.now_unix_s() * 1000),
        )
