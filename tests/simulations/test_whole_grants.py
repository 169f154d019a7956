"""Grants among whole nodes: a crash forgets no nonce, lost power lets none through, lost regions lock nobody out."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.granting import Leave
from lockbox_node.core.derivation import root_key
from lockbox_node.core.tiers import BASIC, STANDARD
from lockbox_node.errors import PeerUnreachable, RequestRefused
from protocol.errors import ErrorCode
from protocol.messages import AskGrant, GetShards, Message, Shards, Signed
from simulations.cluster import Cluster, agreed
from simulations.people import a_person
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from simulations.people import Kept, Person


@asynccontextmanager
async def running(nodes: int) -> AsyncIterator[tuple[Cluster, Person]]:
    cluster = Cluster(World(3), nodes)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        await trio.sleep(10)
        assert agreed(cluster)
        async with a_person(cluster, 1) as person:
            yield cluster, person
        nursery.cancel_scope.cancel()


async def asked(person: Person, node: bytes, request: Message) -> Message | ErrorCode:
    member = person.vault.members.get(node)
    assert member is not None
    while True:
        try:
            return await person.vault.pool.request(member.contact, request)
        except RequestRefused as refusal:
            return refusal.code
        except PeerUnreachable:  # a connection to a life before
            await trio.sleep(1)


async def leave_of(person: Person, kept: Kept) -> Leave:
    with root_key(person.vault.wallet.master, kept.asset.index) as key:
        leave = Leave(person.vault, key, kept.tier)
        await leave.quorum()
        await trio.sleep(1)  # the last grant
        return leave


@pytest.mark.parametrize("power", [False, True])
async def test_no_crash_lets_a_nonce_through_twice_at_a_verifier_or_a_holder(power: bool) -> None:
    async with running(7) as (cluster, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        leave = await leave_of(person, kept)
        granters = [host for host in cluster.hosts.values() if leave.is_by(host.id)]
        get = GetShards(kept.asset.address, kept.asset.descriptor_hash, leave.request, [])
        served = []
        for host in cluster.hosts.values():
            shown = GetShards(get.address, get.descriptor_hash, leave.request, leave.grants_for(host.id))
            if isinstance(await asked(person, host.id, shown), Shards):
                served.append((host, shown))
        assert len(granters) == BASIC.verifiers
        assert len(served) == BASIC.n
        for host in cluster.hosts.values():
            cluster.crash(host.name, power=power)
        for name in cluster.hosts:
            await cluster.start(name).ready.wait()
        await trio.sleep(5)
        wanted = ErrorCode.BUSY if power else ErrorCode.GRANT_REPLAYED
        assert {await asked(person, host.id, AskGrant(leave.request)) for host in granters} == {wanted}
        assert {await asked(person, host.id, shown) for host, shown in served} == {wanted}
        await trio.sleep(70 if power else 0)
        assert {isinstance(await asked(person, host.id, shown), Shards) for host, shown in served} == {False}
        assert await person.unlock(kept)


async def test_a_lost_region_locks_nobody_out() -> None:
    async with running(21) as (cluster, person):
        kept = await person.lock(1000, STANDARD)
        assert kept is not None
        regions = sorted({host.region for host in cluster.hosts.values()})
        for host in cluster.hosts.values():
            if host.region == regions[0]:
                cluster.crash(host.name, power=True)
        assert await person.unlock(kept)


async def test_who_is_revoked_grants_nothing_that_counts() -> None:
    async with running(7) as (cluster, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        leave = await leave_of(person, kept)
        granters = [host.id for host in cluster.hosts.values() if leave.is_by(host.id)]
        said = set()
        for host in cluster.hosts.values():
            assert host.life is not None
            rules = host.life.node.dispatcher.rules  # a node reads its documents again every few seconds
            host.life.node.dispatcher.rules = type(rules)(dict.fromkeys(granters, "test"), {}, ())
            shown = leave.grants_for(host.id, all_of_them=True)
            get = GetShards(kept.asset.address, kept.asset.descriptor_hash, leave.request, shown)
            said.add(await asked(person, host.id, get))
        assert ErrorCode.REVOKED in said
        assert not any(isinstance(one, Shards | Signed) for one in said)
