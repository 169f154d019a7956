"""Whom a client leaves out for where it stands: by enough witnesses only, whatever one node tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.locating import AGAIN_S
from lockbox_node.core.vantages import APART_S
from protocol.documents import Policy, Setting
from protocol.records import NodeRecord, parse, sign
from protocol.vantage import CompareVantages, RoundTrip, Vantage, Vantages

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from protocol.messages import Message, Signed
    from tests.fakes.cluster import Cluster, FakeNode

SYDNEY = "ap-southeast-2"


def record_of(node: FakeNode) -> NodeRecord:
    assert node.identity.record is not None
    return parse(node.identity.record, NodeRecord)


def standing_in(cluster: Cluster, region: str) -> list[FakeNode]:
    return [node for node in cluster.nodes.values() if record_of(node).region == region]


def accusation(cluster: Cluster, judge: FakeNode, subject: FakeNode, later_s: int = 0, by: bytes = b"") -> Signed:
    """`judge` says that it is next to `subject`."""
    at = int(cluster.clock.now_unix_s()) + later_s
    trips = [RoundTrip(subject.id, record_of(subject).region, 900, 20, at)]
    identity = judge.identity if not by else cluster.nodes[by].identity
    return sign(Vantage(judge.id, record_of(judge).region, at, trips, list(judge.identity.chain)), identity.key)


def enforce(cluster: Cluster, version: int = 1, value: str = "measured") -> None:
    cluster.library.take(cluster.authority.sign(Policy(version, 0, [Setting("location", value)])))


def liar_and_witnesses(cluster: Cluster) -> tuple[FakeNode, list[FakeNode]]:
    """A node, and one of each of the seven operators that is in another region and of another operator."""
    liar = standing_in(cluster, SYDNEY)[0]
    others = {
        record_of(node).operator: node
        for node in cluster.nodes.values()
        if record_of(node).region != SYDNEY and record_of(node).operator != record_of(liar).operator
    }
    return liar, list(others.values())


def candidates(vault: Vault) -> set[bytes]:
    return {one.node for one in vault.candidates(bytes(32))}


@pytest.mark.parametrize(("witnesses", "out"), [(2, False), (4, False), (6, True)])
async def test_a_node_is_left_out_by_more_than_a_fifth_alone(
    cluster: Cluster, wallet: Wallet, witnesses: int, out: bool
) -> None:
    liar, others = liar_and_witnesses(cluster)
    enforce(cluster)
    cluster.contradictions = [accusation(cluster, one, liar) for one in others[:witnesses]]
    async with cluster.client(wallet) as vault:
        assert candidates(vault) == cluster.nodes.keys() - ({liar.id} if out else set())


async def test_without_the_policy_nobody_is_even_asked(cluster: Cluster, wallet: Wallet) -> None:
    liar, others = liar_and_witnesses(cluster)
    cluster.contradictions = [accusation(cluster, one, liar) for one in others]
    async with cluster.client(wallet) as vault:
        assert candidates(vault) == set(cluster.nodes)
        assert sum(node.asked["CompareVantages"] for node in cluster.nodes.values()) == 0


async def test_what_one_node_forges_excludes_nobody_and_is_counted(cluster: Cluster, wallet: Wallet) -> None:
    liar, others = liar_and_witnesses(cluster)
    enforce(cluster)
    first = next(iter(cluster.nodes.values()))
    forged = [accusation(cluster, one, liar, by=first.id) for one in others if one is not first]

    def forging(_reply: Message) -> Message:
        return Vantages(forged, [], True)  # and more, without end

    first.bend[CompareVantages] = forging
    async with cluster.client(wallet) as vault:
        assert candidates(vault) == set(cluster.nodes)
        assert vault.locating.refused >= len(forged)
        assert first.asked["CompareVantages"] < 20


async def test_a_node_that_hides_what_it_knows_is_made_good_by_others(cluster: Cluster, wallet: Wallet) -> None:
    liar, others = liar_and_witnesses(cluster)
    enforce(cluster)
    cluster.contradictions = [accusation(cluster, one, liar) for one in others]
    first = next(iter(cluster.nodes.values()))
    first.silent.add(CompareVantages)
    async with cluster.client(wallet) as vault:
        assert candidates(vault) == cluster.nodes.keys() - {liar.id}


async def test_a_client_that_goes_on_hears_of_it_and_of_the_end_of_it(cluster: Cluster, vault: Vault) -> None:
    liar, others = liar_and_witnesses(cluster)
    cluster.contradictions = [accusation(cluster, one, liar) for one in others]
    enforce(cluster)
    await trio.sleep(3 * AGAIN_S)
    assert candidates(vault) == cluster.nodes.keys() - {liar.id}
    enforce(cluster, 2, "claimed")
    await trio.sleep(3 * AGAIN_S)
    assert candidates(vault) == set(cluster.nodes)
    enforce(cluster, 3)
    cluster.contradictions = [
        accusation(cluster, one, others[0], later_s=APART_S)
        for one in others[1:]  # they take it back, and accuse another one
    ]
    await trio.sleep(3 * AGAIN_S)
    assert liar.id in candidates(vault)
