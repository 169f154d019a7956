"""Whole nodes measure each other over a world of delays: liars are found out, nobody honest is, nothing grows."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.config import Config
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.sounding import MeasuringParams
from lockbox_node.core.vantages import AHEAD_S
from lockbox_node.errors import RequestRefused
from lockbox_node.observe.whereabouts import location_said
from lockbox_node.rpc.pool import Contact, Pool
from protocol.documents import Policy, Setting
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import Done, Signed
from protocol.records import parse, sign
from protocol.vantage import CompareVantages, KnownVantage, RoundTrip, TellVantages, Vantage, Vantages
from simulations.cluster import Cluster
from simulations.identities import Papers
from simulations.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from trio.testing import MockClock

    from lockbox_node.node import Node
    from simulations.cluster import Host

FAST = replace(Config(), measuring=MeasuringParams(pings_per_s=20.0, exchange_s=3.0))
LIE, TRUTH = "ap-southeast-2", "eu-central-1"
NODES = 10  # in as many regions, three of them near enough to the truth to tell that it is one
MEASURED_S = 50.0  # 21 pings of 9 others, each after the answer to the one before it, and some exchanges


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    """A world whose defects fail the test."""
    world = World(1)
    world.listen()
    yield world
    assert not world.defects


@asynccontextmanager
async def running(
    world: World,
    nodes: int = NODES,
    true_places: Mapping[str, str] | None = None,
    policy: str = "measured",
    regions: int = NODES,
) -> AsyncIterator[Cluster]:
    """A cluster in which the nodes of `true_places` stand elsewhere than they claim."""
    cluster = Cluster(world, nodes, FAST, regions=regions)
    for name, region in (true_places or {}).items():
        cluster.geography.place(name, region)
    paper = cluster.authority.sign(Policy(1, 0, [Setting("location", policy)]))
    for host in cluster.hosts.values():
        host.documents = [paper]
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        yield cluster
        nursery.cancel_scope.cancel()


def node_of(host: Host) -> Node:
    assert host.life is not None
    return host.life.node


def claiming(cluster: Cluster, region: str) -> Host:
    return next(host for host in cluster.hosts.values() if host.region == region)


def name_of(region: str) -> str:
    """The host that claims a region; the dealing is the cluster's."""
    return claiming(Cluster(World(1), NODES, regions=NODES), region).name


def refuted_by(cluster: Cluster) -> dict[str, set[str]]:
    """host -> names of the hosts that are refuted in its eyes."""
    names = {NodeId(host.id): name for name, host in cluster.hosts.items()}
    return {
        name: {names[node] for node in node_of(host).measuring.judgement.refuted}
        for name, host in cluster.hosts.items()
    }


def contact(host: Host) -> Contact:
    return Contact(NodeId(host.id), (f"{host.name}:7420",))


def told(judge: Host, of: list[Host], ahead_s: float = 0.0, by: Host | None = None) -> Signed:
    """What `judge` says of others, that they are next to it; signed by itself, or `by` somebody else."""
    at = int(judge.clock.now_unix_s() + ahead_s)
    trips = [RoundTrip(one.id, one.region, 1, 20, at) for one in sorted(of, key=lambda host: host.id)]
    return sign(Vantage(judge.id, judge.region, at, trips, list(judge.papers.chain)), (by or judge).papers)


async def tell(host: Host, to: Host, report: Signed) -> object:
    return await node_of(host).pool.request(contact(to), TellVantages([report]))


async def test_who_claims_sydney_and_stands_in_frankfurt_is_excluded_everywhere_and_hears_of_it(
    world: World, autojump_clock: MockClock
) -> None:
    liar = name_of(LIE)
    async with running(world, true_places={liar: TRUTH}) as cluster:
        await trio.sleep(MEASURED_S)
        honest = [host for name, host in cluster.hosts.items() if name != liar]
        found = refuted_by(cluster)
        for host in honest:
            assert found[host.name] == {liar}
            assert {one.node for one in node_of(host).discovery.candidates()} == {one.id for one in honest}
        said = said_by(cluster.hosts[liar])
        assert (said["level"], said["doubted"], said["policy"]) == ("refuted", True, "measured")
        witnesses = {str(one["region"]) for one in said["contradicted_by"]}  # type: ignore[attr-defined]
        assert witnesses == {"us-east-1", "eu-west-1", "eu-north-1"}
        await clients_read_contradictions_and_tell_none(cluster, witnesses)
        await no_more_enforced(cluster)
        for host in honest:  # recorded; nobody is excluded
            assert NodeId(cluster.hosts[liar].id) in node_of(host).measuring.judgement.refuted
            assert len(node_of(host).discovery.candidates()) == NODES
        pings = [node_of(host).measuring.pings for host in cluster.hosts.values()]
        assert min(pings) >= (NODES - 1) * 21
        await trio.sleep(120)  # what was measured is not measured again for hours
        assert [node_of(host).measuring.pings for host in cluster.hosts.values()] == pings


async def no_more_enforced(cluster: Cluster) -> None:
    """The other policy comes into force everywhere."""
    paper = cluster.authority.sign(Policy(2, 0, [Setting("location", "claimed")]))
    node_of(cluster.hosts["node1"]).documents.take([paper])
    await trio.sleep(10)
    assert not any(node_of(host).measuring.enforced for host in cluster.hosts.values())


def said_by(host: Host) -> dict[str, object]:
    return location_said(node_of(host).measuring, node_of(host).discovery)


async def clients_read_contradictions_and_tell_none(cluster: Cluster, witnesses: set[str]) -> None:
    """As a client that asks the node that can know it from others alone."""
    asked, client = claiming(cluster, "ap-northeast-1"), cluster.authority.client(1)
    pool = Pool(cluster.hub.network("client", client.leaf), client)
    cluster.geography.place("client", "us-west-1")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        reply = await pool.request(contact(asked), CompareVantages([]))
        assert isinstance(reply, Vantages)
        assert {parse(signed, Vantage).region for signed in reply.vantages} == witnesses
        assert reply.wanted == []
        after = max(parse(signed, Vantage).judge for signed in reply.vantages)
        assert await pool.request(contact(asked), CompareVantages([], after)) == Vantages([], [], False)
        for request in (TellVantages(reply.vantages), CompareVantages([KnownVantage(after, 1)])):
            with pytest.raises(RequestRefused) as caught:
                await pool.request(contact(asked), request)
            assert caught.value.code is ErrorCode.ROLE_FORBIDDEN
        nursery.cancel_scope.cancel()


async def test_a_fifth_of_liars_frames_nobody_and_who_stands_near_others_is_found_out(
    world: World, autojump_clock: MockClock
) -> None:
    """One liar stands elsewhere, one where it says; both sign that they are next to everybody."""
    liar, colluder = name_of(LIE), name_of("af-south-1")
    async with running(world, true_places={liar: TRUTH}) as cluster:
        crowd = [host for name, host in cluster.hosts.items() if name not in (liar, colluder)]
        await trio.sleep(MEASURED_S)
        for name in (liar, colluder):
            report = told(cluster.hosts[name], crowd, ahead_s=200.0)
            for host in crowd:
                assert await tell(cluster.hosts[name], host, report) == Done()
        await trio.sleep(10)
        found = refuted_by(cluster)
        assert {frozenset(found[host.name]) for host in crowd} == {frozenset({liar})}
        assert not any(node_of(host).measuring.judgement.doubted for host in crowd)
        victim = crowd[0]
        by = {one.judge for one in node_of(victim).measuring.judgement.against(NodeId(victim.id))}
        assert cluster.hosts[colluder].id in by
        assert said_by(victim)["level"] == "claimed"


async def test_delay_refutes_nobody_and_a_neighbour_is_measured(world: World, autojump_clock: MockClock) -> None:
    async with running(world, nodes=5, regions=4) as cluster:
        for name in ("node2", "node3"):
            cluster.geography.slow_s[name] = 0.2
        await trio.sleep(MEASURED_S)
        assert set(map(frozenset, refuted_by(cluster).values())) == {frozenset()}
        first, same = cluster.hosts["node1"], cluster.hosts["node5"]
        assert first.region == same.region
        judgement = node_of(first).measuring.judgement
        assert judgement.measured == {NodeId(same.id)}
        assert judgement.contradictions == ()


async def test_another_table_of_regions_judges_at_once_however_long_the_last_judgement_may_stand(
    world: World, autojump_clock: MockClock
) -> None:
    async with running(world, 4, regions=4) as cluster:
        await trio.sleep(1)
        node = node_of(next(iter(cluster.hosts.values())))
        before = node.measuring.judgement
        node.measuring._judge_at = math.inf  # as after one that took for ever
        await trio.sleep(30)
        assert node.measuring.judgement is before
        rules = replace(node.documents.rules, regions=BUILT_IN.without("us-west-2"))
        node.discovery.go_by(lambda: rules, lambda: 0.0)
        assert node.measuring.judgement is not before


async def test_where_nobody_is_excluded_there_is_no_hurry(world: World, autojump_clock: MockClock) -> None:
    pings = {}
    for policy in ("measured", "claimed"):
        async with running(world, nodes=3, policy=policy) as cluster:
            await trio.sleep(5)
            pings[policy] = node_of(cluster.hosts["node1"]).measuring.pings
    assert 0 < pings["claimed"] < pings["measured"]


async def test_what_does_not_hold_is_refused_and_counted(world: World, autojump_clock: MockClock) -> None:
    async with running(world, nodes=4) as cluster:
        first, second, third, fourth = cluster.hosts.values()
        measuring = node_of(first).measuring
        genuine = told(second, [first])
        for expected in (1, 1):  # the second time it is a replay: no news, and no offence
            assert await tell(third, first, genuine) == Done()
            assert (measuring.reports, measuring.refused.total()) == (expected, 0)
        for wrong, why in ((AHEAD_S + 5.0, "future"), (-90_000.0, "expired")):
            assert await tell(third, first, told(second, [first], ahead_s=wrong)) == Done()
            assert measuring.refused[why] == 1
        body = told(second, [], ahead_s=60.0).body
        for forged in (Signed(body, bytes(64)), told(second, [], ahead_s=60.0, by=third), Signed(body[:-1], bytes(64))):
            with pytest.raises(RequestRefused):
                await tell(third, first, forged)
        assert measuring.refused["forged"] == 3
        own = told(first, [second], ahead_s=60.0, by=third)  # nobody tells us what we saw
        assert await tell(third, first, own) == Done()
        stranger = replace(second, papers=Papers(cluster.authority.node(99)))
        assert await tell(third, first, told(stranger, [first])) == Done()
        assert measuring.refused["stranger"] == 1
        assert measuring.reports == 1
        assert [one.judge for one in measuring.judgement.against(NodeId(first.id))] == [second.id]
        cluster.crash("node2")
        await trio.sleep(90)
        assert measuring.reports == 0
        assert fourth.life is not None
