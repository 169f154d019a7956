"""Whole runs of a product that breaks one invariant on purpose: each is found, and named, by the run itself."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from lockbox_node.client import stripes
from lockbox_node.client.vault import Vault
from lockbox_node.core.member_events import RecordLearned
from lockbox_node.core.repair import Guard
from lockbox_node.core.storage_params import StorageParams
from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from lockbox_node.ports import PutOutcome
from lockbox_node.services.healing import Healing
from lockbox_node.services.membership import MembershipService
from protocol.ids import Address
from protocol.records import NodeRecord, parse
from simulations.disk import SimDisk, SimStore
from simulations.identities import FakeNetwork
from simulations.invariants import Limits
from simulations.parts import MemoryParts
from simulations.people import a_person
from simulations.running import STOP_S, Plan, run
from simulations.staging import quick_healing
from tests.simulations.nets import nodes_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from lockbox_node.config import Config
    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.slots import Ruling
    from lockbox_node.core.tiers import Tier
    from lockbox_node.ports import Answer, Owner, StripePart
    from protocol.ids import DescriptorHash
    from protocol.messages import Signed
    from simulations.cluster import Cluster, Host
    from simulations.kept import Kept
    from simulations.people import Kept as Asset
    from simulations.people import Person

NODES = 9
QUICK = quick_healing()


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


def failure_of(
    act: Callable[[Cluster, Person], Awaitable[object]], config: Config = QUICK, nodes: int = NODES, wait_s: float = 2.0
) -> str:
    """What breaks while a person acts, or a little later."""

    async def play(cluster: Cluster, _seconds: float) -> None:
        async with a_person(cluster, 1) as person:
            await act(cluster, person)
            await trio.sleep(wait_s)

    return run(Plan("planted", nodes, 1, 0.01), play, config).failure


async def locked(person: Person, size: int = 5000) -> Asset:
    asset = await person.lock(size, BASIC)
    assert asset is not None
    return asset


def holders(cluster: Cluster, asset: Asset) -> list[Host]:
    return [host for host in cluster.hosts.values() if host.disk.parts.standing(Address(asset.asset.address))]


def make_parts(cluster: Cluster, broken: type[MemoryParts]) -> None:
    for host in cluster.hosts.values():
        host.disk.parts.__class__ = broken


def test_nothing_breaks_while_nothing_is_broken() -> None:
    async def act(_cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        assert await person.unlock(asset)
        await person.delete(asset)

    assert failure_of(act) == ""


def test_1_a_store_that_acknowledges_before_its_flush() -> None:
    class Hasty(SimStore):
        def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
            answer(PutOutcome(()))
            super().put(part, replaces, owner, lambda _outcome: None)

    async def act(cluster: Cluster, person: Person) -> None:
        for host in cluster.living():
            assert host.life is not None
            host.life.store.__class__ = Hasty
            host.disk.slowness = 500.0
        await locked(person)

    assert "5 parts of an asset were acknowledged, 0 are on disks" in failure_of(act)


def test_2_a_store_that_hands_out_what_it_did_not_verify() -> None:
    class Unchecked(MemoryParts):
        def get(self, address: Address, descriptor_hash: DescriptorHash) -> StripePart:
            return self._parts[address, descriptor_hash].part

    async def act(cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        make_parts(cluster, Unchecked)
        for host in holders(cluster, asset):
            host.disk.parts.standing(Address(asset.asset.address))[0].flip(0, 0, 0)
        await person.unlock(asset)

    assert "handed out with other bytes than their owner signed" in failure_of(act)


def test_2_an_unlock_that_gives_other_bytes() -> None:
    async def act(_cluster: Cluster, person: Person) -> None:
        await person.unlock(replace(await locked(person), digest=b"of what she locked"))

    assert "an unlock gave other bytes than were locked" in failure_of(act)


def test_3_a_node_that_believes_a_record_of_another_network() -> None:
    async def act(cluster: Cluster, _person: Person) -> None:
        signed = FakeNetwork(2).node(99).record
        assert signed is not None
        learned = RecordLearned(signed, parse(signed, NodeRecord))
        nodes_of(cluster)[3].machine.handle(learned, trio.current_time())

    assert "node4 believes in 1 nodes that the network does not have" in failure_of(act)


def test_4_a_log_line_that_names_an_asset() -> None:
    class Chatty(MemoryParts):
        def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner) -> PutOutcome:
            structlog.get_logger().info("part.stored", at=part.address.hex()[:8])
            return super().put(part, replaces, owner)

    async def act(cluster: Cluster, person: Person) -> None:
        make_parts(cluster, Chatty)
        await locked(person)

    assert "the log line part.stored names an asset or a client" in failure_of(act)


def test_5_a_client_that_puts_k_shards_into_one_region() -> None:
    class Crowding(Vault):
        def place(self, tier: Tier, address: bytes) -> dict[int, Candidate]:
            every = self.candidates(Address(address))
            in_region = Counter(one.region for one in every)
            return dict(enumerate(sorted(every, key=lambda one: (-in_region[one.region], one.region))[: tier.n]))

    async def act(_cluster: Cluster, person: Person) -> None:
        person.vault.__class__ = Crowding
        await locked(person)

    assert "stores 3 shards of a basic stripe, 3 rebuild it" in failure_of(act, nodes=15)


def test_6_a_store_that_keeps_other_bytes_than_came() -> None:
    class Forging(MemoryParts):
        def _add(self, kept: Kept) -> None:
            if kept.part.shards:  # a wallet's own stripe has none
                kept.flip(0, 0, 0)
                kept.harmed = False
            super()._add(kept)

    async def act(cluster: Cluster, person: Person) -> None:
        make_parts(cluster, Forging)
        await locked(person)

    assert "not what their owner signed" in failure_of(act)


def test_7_real_groups_that_always_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripes, "shuffled", lambda count, _chance: list(range(count)))

    async def act(_cluster: Cluster, person: Person) -> None:
        for _ in range(40):
            await locked(person, 100)

    assert "the real groups of 37 stripes stand in front too often" in failure_of(act)


def test_8_a_store_that_keeps_what_was_deleted() -> None:
    class Undying(MemoryParts):
        def delete(self, tombstone: Signed, address: Address, version: int, until_unix_s: int) -> None:
            self._tombs[address] = (version, tombstone, until_unix_s)

    async def act(cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        make_parts(cluster, Undying)
        await person.delete(asset)

    assert "stores what its own tombstone covers" in failure_of(act)


def test_8_a_disk_that_forgets_deletions_over_a_restart() -> None:
    class Forgetful(SimDisk):
        def open(self) -> SimStore:
            self.parts._tombs.clear()
            return super().open()

    async def act(cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        (first, *_) = holders(cluster, asset)
        first.disk.__class__ = Forgetful
        await person.delete(asset)
        await trio.sleep(2)
        cluster.crash(first.name)
        await trio.sleep(2)
        cluster.start(first.name)

    assert "forgot a deletion before its time" in failure_of(act)


def test_8_a_store_in_which_an_older_version_wins() -> None:
    class Backwards(MemoryParts):
        def put(self, part: StripePart, replaces: Sequence[bytes], owner: Owner) -> PutOutcome:
            return super().put(replace(part, version=part.version + 1), replaces, owner)

    async def act(cluster: Cluster, person: Person) -> None:
        make_parts(cluster, Backwards)
        asset = await locked(person)
        await trio.sleep(2)
        for host in holders(cluster, asset):
            (kept,) = host.disk.parts.standing(Address(asset.asset.address))
            kept.part = replace(kept.part, version=1)

    assert "an older version has won at" in failure_of(act)


def test_9_a_store_that_takes_more_than_a_client_may_keep() -> None:
    class Generous(MemoryParts):
        def _admit(self, part: StripePart, ruling: Ruling, owner: Owner) -> None:
            """Whatever comes."""

    async def act(cluster: Cluster, person: Person) -> None:
        make_parts(cluster, Generous)
        await locked(person)

    assert "bytes of one client" in failure_of(act, replace(QUICK, storage=StorageParams(client_quota_bytes=1000)))


def test_10_a_steward_that_repairs_while_its_view_is_doubted() -> None:
    class Careless(Healing):
        @property
        def active(self) -> bool:
            return True

    async def act(cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        held = holders(cluster, asset)
        for node in nodes_of(cluster):
            node.healing.__class__ = Careless
        for host in [held[0], *[host for host in cluster.living() if host not in held][:3]]:
            cluster.crash(host.name)

    assert "began a repair while it doubted its view" in failure_of(act, wait_s=60)


def test_a_network_that_loses_holder_after_holder_and_rebuilds_none() -> None:
    class Doubting(Guard):
        @property
        def trusted(self) -> bool:
            return False

    async def act(cluster: Cluster, person: Person) -> None:
        asset = await locked(person)
        first, second, third, *_ = holders(cluster, asset)
        for node in nodes_of(cluster):
            node.guard.__class__ = Doubting  # an excuse for what is not healed, none for what is lost
        for host in (first, second, third):
            cluster.crash(host.name)
            await trio.sleep(Limits(hold_off_s=QUICK.repair.hold_off_s).heal_s(BASIC) / 2 + 2)

    assert "2 live shards of the 3 it needs, and lost only 2 lately" in failure_of(act)


def test_a_node_that_does_not_end() -> None:
    class Clinging(MembershipService):
        async def leave(self) -> None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * STOP_S):
                await trio.sleep_forever()

    async def act(cluster: Cluster, _person: Person) -> None:
        nodes_of(cluster)[2].membership.__class__ = Clinging

    assert "after the end of all nodes: node3 1 runs" in failure_of(act)


def test_a_task_that_a_node_left_behind() -> None:
    class Leaking(MembershipService):
        async def leave(self) -> None:
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="something", context=copy_context())

    async def act(cluster: Cluster, _person: Person) -> None:
        nodes_of(cluster)[2].membership.__class__ = Leaking

    assert "after the end of all nodes: node3 1 left something behind" in failure_of(act)


def test_a_connection_that_nobody_closed() -> None:
    async def act(cluster: Cluster, _person: Person) -> None:
        cluster.geography.place("somebody", "eu-west-1")
        await cluster.hub.network("somebody", lambda: b"").dial("node1", 7420)

    assert "a stream from somebody to node1" in failure_of(act)
