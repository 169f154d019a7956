"""What a client says in Hello: who it is and what time it has, and nothing about its software."""

from __future__ import annotations

from dataclasses import dataclass

from lockbox_node.client.greeting import Greeter
from protocol.certificates import NetworkRoot, Role
from protocol.ids import ClientId
from simulations.identities import NOW_UNIX_S, FakeNetwork

NETWORK = FakeNetwork()
CLIENT = NETWORK.client(1)  # signatures of certificates differ each time they are made


@dataclass
class Identity:
    """A Certified: the guest's or a client's."""

    root: NetworkRoot
    role: Role
    client_id: ClientId
    chain: tuple[bytes, ...]


class Clock:
    """A wall clock that a test moves."""

    now = NOW_UNIX_S

    def now_unix_s(self) -> float:
        """See the port."""
        return self.now


def greeter(clock: Clock) -> Greeter:
    return Greeter(Identity(NETWORK.root, CLIENT.role, ClientId(CLIENT.id), tuple(CLIENT.chain)), clock)


def test_a_client_shows_its_chain_and_network_and_claims_nothing_else() -> None:
    one = greeter(Clock())
    hello = one.hello()
    assert hello.chain == CLIENT.chain
    assert hello.network == NETWORK.root.network_id == one.root.network_id
    assert (hello.record, hello.software, hello.versions) == (None, b"", [1])
    assert (one.id, one.role) == (CLIENT.id, Role.CLIENT)


def test_each_hello_has_the_time_of_its_own_moment() -> None:
    clock = Clock()
    one = greeter(clock)
    first = one.hello().clock_unix_ms
    clock.now += 1.5
    assert one.hello().clock_unix_ms - first == 1500
