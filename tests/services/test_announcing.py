"""Our record and our Hello: signed anew when they must be, always with a higher sequence."""

from __future__ import annotations

import pytest

from lockbox_node.services.announcing import RECORD_LIFE_S, Announcer, NodeState, Standing
from protocol.certificates import verify_record
from protocol.errors import LocalProtocolError
from simulations.identities import NOW_UNIX_S, FakeNetwork, Papers

GIB = 1 << 30


class Clock:
    """A wall clock that a test sets."""

    now = NOW_UNIX_S

    def now_unix_s(self) -> float:
        """See the port."""
        return self.now


class World:
    """An announcer, its clock and its free space."""

    def __init__(self, capacity_bytes: int = 16 * GIB, region: str = "eu-west-1") -> None:
        self.network = FakeNetwork()
        self.clock = Clock()
        self.free = 10
        identity = Papers(self.network.node(1))
        standing = Standing(("node1:7420",), region, capacity_bytes, bytes(32), 7, b"one of this node")
        self.announcer = Announcer(identity, self.network.root, standing, self.clock, lambda: self.free)


def test_the_record_verifies_and_says_who_and_where() -> None:
    world = World()
    record = verify_record(world.network.root, world.announcer.signed)
    assert record == world.announcer.record
    assert (record.node, record.addresses, record.region) == (world.announcer.id, ["node1:7420"], "eu-west-1")
    assert (record.state, record.free_class, record.capacity_class) == (NodeState.JOINING, 10, 4)
    assert (record.epoch, record.instance) == (7, b"one of this node")


def test_the_sequence_rises_even_when_the_clock_stands_still_or_goes_back() -> None:
    world = World()
    first = world.announcer.record.sequence
    world.announcer.renew()
    world.clock.now -= 1000
    world.announcer.renew()
    assert world.announcer.record.sequence == first + 2


def test_a_refutation_exceeds_what_is_said_of_us() -> None:
    world = World()
    _, record = world.announcer.renew(world.announcer.record.sequence + 10_000_000)
    assert record.sequence == int(NOW_UNIX_S * 1000) + 10_000_000


def test_a_fresh_record_is_not_outdated_and_a_half_aged_one_is() -> None:
    world = World()
    assert not world.announcer.outdated()
    world.clock.now += RECORD_LIFE_S / 2 + 2
    assert world.announcer.outdated()
    world.announcer.renew()
    assert not world.announcer.outdated()


def test_a_clock_that_was_set_back_makes_the_record_outdated() -> None:
    world = World()
    world.clock.now -= 3600
    assert world.announcer.outdated()


def test_less_room_makes_the_record_outdated() -> None:
    world = World()
    world.free = 9
    assert world.announcer.outdated()
    assert world.announcer.renew()[1].free_class == 9


@pytest.mark.parametrize(("capacity_bytes", "wanted"), [(0, 0), (GIB, 0), (3 * GIB, 1), (1 << 60, 30)])
def test_capacity_is_told_as_a_power_of_two_gib(capacity_bytes: int, wanted: int) -> None:
    assert World(capacity_bytes).announcer.record.capacity_class == wanted


def test_hello_carries_the_present_record_and_clock() -> None:
    world = World()
    world.announcer.state = NodeState.ACTIVE
    world.announcer.renew()
    world.clock.now += 7
    hello = world.announcer.hello()
    assert hello.record == world.announcer.signed
    assert hello.clock_unix_ms == int((NOW_UNIX_S + 7) * 1000)
    assert hello.network == world.network.root.network_id


def test_a_record_that_cannot_be_said_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        World(region="x" * 100)
