"""Which tables are told to whom, in which batches, and what bounds it. Time is trio's test clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import trio

from lockbox_node.core.storage_params import StorageParams, StoreParams
from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.ports import Answer, settled
from lockbox_node.rpc.pool import Contact
from lockbox_node.services.pointers import APPROACH_S, PointerSpreader
from protocol.ids import NodeId, distance
from protocol.messages import NO_INDEX, Done, HolderEntry, HolderTable, Message, TellHolders, Told
from simulations.memory_store import MemoryStore
from tests.fakes.stripes import NOW_UNIX_S, OWNER, FixedClock, Stripe, make_stripe, node_of

NODES = [node_of(number) for number in range(30)]


@dataclass
class Net:
    """Counts what is posted; answers at once unless told to be silent."""

    silent: bool = False
    outcome: Message | LockboxError = field(default_factory=Done)
    posts: list[tuple[float, bytes, TellHolders]] = field(default_factory=list)
    taken: list[tuple[Told, bytes]] = field(default_factory=list)

    def take(self, told: Told, _tables: list[HolderTable], teacher: bytes) -> None:
        self.taken.append((told, teacher))

    def post(self, contact: Contact, request: Message, answer: Answer[Message], /) -> None:
        assert isinstance(request, TellHolders)
        self.posts.append((trio.current_time(), contact.node, request))
        if not self.silent:
            answer(self.outcome)


def nearest(target: bytes, count: int) -> list[Contact]:
    nodes = sorted(NODES, key=lambda node: distance(node, target))
    return [Contact(NodeId(node), ()) for node in nodes[:count]]


def spreader(net: Net, own: bytes, params: StorageParams, store: MemoryStore | None = None) -> PointerSpreader:
    store = store or MemoryStore(StoreParams(), FixedClock())
    return PointerSpreader(NodeId(own), net, nearest, store, net.take, params)


def by_distance(stripe: Stripe) -> list[bytes]:
    return sorted((e.node for e in stripe.table.entries), key=lambda node: distance(node, stripe.signer.address))


@pytest.fixture
def net() -> Net:
    return Net()


async def test_the_two_nearest_holders_tell_the_nearest_nodes_that_hold_nothing(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stripe = make_stripe(1)
    holders = by_distance(stripe)
    for own in holders[:2]:
        one = spreader(net, own, StorageParams())
        await nursery.start(one.run)
        one.on_stored(stripe.table)
    await trio.sleep(1)
    wanted = {c.node for c in nearest(stripe.signer.address, 20)} - set(holders)
    told = [node for _, node, _ in net.posts]
    assert set(told) == wanted
    assert len(told) == 2 * len(wanted)
    nursery.cancel_scope.cancel()


async def test_the_other_holders_ask_the_two_nearest_and_hand_on_what_they_say(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stripe = make_stripe(1)
    net.outcome = Told([stripe.signer.tombstone(1)], [], [])
    one = spreader(net, by_distance(stripe)[2], StorageParams())
    await nursery.start(one.run)
    one.on_stored(stripe.table)
    await trio.sleep(1)
    asked = [node for _, node, _ in net.posts]
    assert asked == [contact.node for contact in nearest(stripe.signer.address, 2)]
    assert net.taken == [(net.outcome, node) for node in asked]
    nursery.cancel_scope.cancel()


async def test_nothing_is_told_of_what_is_in_trash_or_said_to_be_lost(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    store = MemoryStore(StoreParams(), FixedClock())
    over, live = make_stripe(1, lease_s=5), make_stripe(2)
    lost = HolderEntry(NO_INDEX, node_of(4), 9)
    for part in (over.parts[0], replace(live.parts[0], entries=(*live.parts[0].entries, lost))):
        await settled(partial(store.put, part, (), OWNER))
    await settled(partial(store.expire, NOW_UNIX_S + 10, 1.0))
    one = spreader(net, by_distance(live)[0], StorageParams(), store)
    await nursery.start(one.run)
    await trio.sleep(60)
    tables = [table for _, _, request in net.posts for table in request.tables]
    assert {table.address for table in tables} == {live.signer.address}
    assert all(entry.node != lost.node for table in tables for entry in table.entries)
    nursery.cancel_scope.cancel()


async def test_tables_are_gathered_and_travel_in_batches(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stripes = [make_stripe(number, holders=[0, *range(20, 29)]) for number in range(12)]
    own = node_of(0)
    mine = [stripe for stripe in stripes if own in by_distance(stripe)[:2]]
    assert len(mine) > 1
    one = spreader(net, own, StorageParams(spread_batch_max=1))
    other_net = Net()
    batched = spreader(other_net, own, StorageParams())
    await nursery.start(one.run)
    await nursery.start(batched.run)
    for stripe in stripes:
        one.on_stored(stripe.table)
        batched.on_stored(stripe.table)
        batched.on_stored(stripe.table)
    await trio.sleep(2)
    assert {at for at, _, _ in other_net.posts} == {0.5}
    assert len({node for _, node, _ in other_net.posts}) == len(other_net.posts)
    assert all(len(request.tables) == 1 for _, _, request in net.posts)
    assert sum(len(request.tables) for _, _, request in other_net.posts) == len(net.posts)
    assert batched.counts["told"] == len(net.posts)
    nursery.cancel_scope.cancel()


async def test_requests_in_flight_are_bounded_and_the_rest_waits(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    net.silent = True
    stripes = [stripe for number in range(40) if NODES[0] in by_distance(stripe := make_stripe(number))[:2]]
    one = spreader(net, NODES[0], StorageParams(spread_posts_max=12, spread_pending_max=2))
    await nursery.start(one.run)
    for stripe in stripes[:5]:
        one.on_stored(stripe.table)
    await trio.sleep(5)
    assert 0 < len(net.posts) <= 20
    assert one.counts["dropped"] == len(stripes[:5]) - 2
    nursery.cancel_scope.cancel()


async def test_every_batch_to_one_neighbour_counts_as_a_request_of_its_own(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    net.silent = True
    stripes = [stripe for number in range(40) if NODES[0] in by_distance(stripe := make_stripe(number))[:2]]
    one = spreader(net, NODES[0], StorageParams(spread_posts_max=21, spread_batch_max=1))
    await nursery.start(one.run)
    for stripe in stripes[:5]:
        one.on_stored(stripe.table)
    await trio.sleep(5)
    assert 0 < len(net.posts) <= 21
    nursery.cancel_scope.cancel()


async def test_an_unreachable_neighbour_is_counted_and_stops_nothing(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    net.outcome = PeerUnreachable("gone")
    stripe = make_stripe(1)
    one = spreader(net, by_distance(stripe)[0], StorageParams())
    await nursery.start(one.run)
    one.on_stored(stripe.table)
    await trio.sleep(1)
    failed = one.counts["failed"]
    assert failed == len(net.posts) > 0
    one.on_stored(stripe.table)
    await trio.sleep(1)
    assert one.counts["failed"] == 2 * failed
    nursery.cancel_scope.cancel()


async def test_held_stripes_are_told_again_every_half_day_and_after_a_join(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    store = MemoryStore(StoreParams(), FixedClock())
    stripes = [stripe for number in range(40) if NODES[0] in by_distance(stripe := make_stripe(number))[:2]]
    for stripe in stripes:
        await settled(partial(store.put, stripe.parts[0], (), OWNER))
    one = spreader(net, NODES[0], StorageParams(renew_page=2), store)
    await nursery.start(one.run)

    def told() -> set[bytes]:
        tables: list[HolderTable] = [table for _, _, request in net.posts for table in request.tables]
        net.posts.clear()
        return {table.address for table in tables}

    everything = {stripe.signer.address for stripe in stripes}
    await trio.sleep(60)
    assert told() == everything
    await trio.sleep(3600)
    assert told() == set()
    one.on_joined()
    await trio.sleep(60)
    assert told() == everything
    await trio.sleep(12 * 3600)
    assert told() == everything
    nursery.cancel_scope.cancel()


async def test_a_neighbourhood_is_approached_before_it_is_told_and_a_slow_lookup_holds_nothing_up(
    net: Net, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stripes = [make_stripe(1), make_stripe(2)]
    approached: list[tuple[float, bytes]] = []

    async def approach(address: bytes) -> None:
        approached.append((trio.current_time(), address))
        if address == stripes[1].signer.address:
            await trio.sleep_forever()

    store = MemoryStore(StoreParams(), FixedClock())
    for stripe in stripes:
        own = NodeId(by_distance(stripe)[0])
        one = PointerSpreader(own, net, nearest, store, net.take, StorageParams(), approach)
        await nursery.start(one.run)
        one.on_stored(stripe.table)
    await trio.sleep(20)
    assert {address for _, address in approached} == {stripe.signer.address for stripe in stripes}
    told = [moment for moment, _, request in net.posts if request.tables[0].address == stripes[1].signer.address]
    assert told
    assert min(told) >= approached[0][0] + APPROACH_S
    nursery.cancel_scope.cancel()
