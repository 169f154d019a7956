"""What a client does by the network's documents: no revoked node hears of it, however the client learned the rules.

The nodes of these tests obey no document themselves: whoever is left alone, is left alone by the client.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client import rule_book
from lockbox_node.client.lock import lock
from lockbox_node.client.rule_book import ASK_EVERY_S, ASK_TIMEOUT_S
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD
from lockbox_node.errors import LockboxError
from protocol.documents import Policy, Release, Releases, Revocation, Revocations, Setting
from protocol.errors import ErrorCode
from protocol.messages import (
    Documents,
    DocumentVersion,
    GetDocuments,
    Members,
    Message,
    SignedDocument,
    SyncMembers,
)
from simulations.identities import FakeNetwork
from tests.fakes.cluster import Cluster, FakeNode, a_wallet

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet

SECRET = b"a secret that must not be lost"
TOLD_S = ASK_EVERY_S + ASK_TIMEOUT_S


def revoked(network: FakeNetwork, version: int, *nodes: bytes) -> SignedDocument:
    return network.sign(Revocations(version, 0, [Revocation(node, 0, "test") for node in sorted(nodes)]))


def released(network: FakeNetwork, version: int, *software: bytes) -> SignedDocument:
    return network.sign(Releases(version, 0, [Release(one, "test", 0) for one in sorted(software)]))


def forget_who_asked(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.asked.clear()


def first_of(cluster: Cluster) -> FakeNode:
    """Whom every client dials first."""
    return next(iter(cluster.nodes.values()))


async def refusal_of(vault: Vault, node: FakeNode) -> ErrorCode:
    """Why the client does not speak to the node."""
    assert node.identity.record is not None
    with pytest.raises(LockboxError) as caught:
        await vault.pool.connect_address(node.host, 7420)
    return caught.value.code


async def test_who_joins_knows_no_revoked_node_and_does_not_speak_to_it(cluster: Cluster, wallet: Wallet) -> None:
    out = list(cluster.nodes.values())[9]
    cluster.library.take(revoked(cluster.authority, 1, out.id))
    async with cluster.client(wallet) as vault:
        assert vault.rule_book.rules.revoked == {out.id: "test"}
        assert vault.members.get(out.id) is None
        assert len(vault.members) == len(cluster.nodes) - 1
        assert not vault.members.is_strange(out.id)
        assert await refusal_of(vault, out) is ErrorCode.REVOKED
        assert not out.asked


async def test_a_running_client_neither_reads_from_nor_writes_to_who_is_revoked_within_10_s(
    cluster: Cluster, vault: Vault
) -> None:
    asset = (await lock(vault, BytesSource(bytearray(SECRET)), ELITE, label="")).asset
    out = max(cluster.nodes.values(), key=lambda node: node.asked["PutStripe"])
    assert vault.pool.ready(out.id) is not None
    cluster.library.take(revoked(cluster.authority, 1, out.id))
    with trio.fail_after(10):
        await trio.sleep(TOLD_S)
    assert vault.pool.ready(out.id) is None
    forget_who_asked(cluster)
    sink = MemorySink()
    await unlock(vault, asset, sink)
    assert bytes(sink.content) == SECRET
    for tier in (BASIC, STANDARD, ELITE):
        await lock(vault, BytesSource(bytearray(SECRET)), tier, label="")
    assert not out.asked
    assert sum(node.asked["PutStripe"] for node in cluster.nodes.values()) >= BASIC.n + STANDARD.n + ELITE.n


async def test_who_is_no_longer_on_the_list_is_a_member_again(cluster: Cluster, vault: Vault) -> None:
    out = list(cluster.nodes)[9]
    vault.rule_book.take([revoked(cluster.authority, 1, out)])
    assert vault.members.get(out) is None
    cluster.library.take(revoked(cluster.authority, 2))
    await trio.sleep(TOLD_S)
    await vault.refresh()
    assert vault.members.get(out) is not None
    assert (await vault.pool.connect_address(cluster.nodes[out].host, 7420)).peer.id == out


async def test_kept_documents_hold_from_the_start_and_no_node_takes_a_client_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    out = first_of(cluster)
    newest = revoked(cluster.authority, 2, out.id)
    cluster.library.take(revoked(cluster.authority, 1))
    async with cluster.client(a_wallet(cluster, tmp_path / "w"), documents=[newest]) as vault:
        await trio.sleep(2 * TOLD_S)
        assert vault.rule_book.all() == [newest]
        assert not out.asked
        assert await refusal_of(vault, out) is ErrorCode.REVOKED


async def test_a_first_contact_that_tells_that_it_is_revoked_itself_is_left_for_the_next(
    cluster: Cluster, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = first_of(cluster)
    cluster.library.take(revoked(cluster.authority, 1, out.id))

    def first_page(reply: Message) -> Message:
        assert isinstance(reply, Members)
        return Members(reply.updates[:3], [], True, reply.documents)

    out.bend[SyncMembers] = first_page
    async with cluster.client(wallet) as vault:
        assert len(vault.members) == len(cluster.nodes) - 1
        assert out.asked["SyncMembers"] == 1


async def test_what_does_not_hold_is_counted_and_stops_nothing(cluster: Cluster, wallet: Wallet) -> None:
    strangers = FakeNetwork(2)
    every = list(cluster.nodes)

    def forged(_reply: Message) -> Message:
        good = revoked(cluster.authority, 9, *every)
        return Documents([revoked(strangers, 9, *every), SignedDocument(good.kind, good.body, bytes(64))])

    def boasting(reply: Message) -> Message:
        assert isinstance(reply, Members)
        return Members(reply.updates, [], reply.more, [DocumentVersion(1, 9, bytes(32))])

    for node in cluster.nodes.values():
        node.bend[GetDocuments], node.bend[SyncMembers] = forged, boasting
    async with cluster.client(wallet) as vault:
        assert vault.rule_book.refused >= 2
        assert not vault.rule_book.rules.revoked
        assert len(vault.members) == len(cluster.nodes)
        assert max(node.asked["GetDocuments"] for node in cluster.nodes.values()) == 1


async def test_a_node_that_keeps_its_documents_to_itself_delays_a_client_little(
    cluster: Cluster, wallet: Wallet
) -> None:
    out = list(cluster.nodes)[9]
    cluster.library.take(revoked(cluster.authority, 1, out))
    first_of(cluster).silent.add(GetDocuments)
    began = trio.current_time()
    async with cluster.client(wallet) as vault:
        assert trio.current_time() - began < 2 * ASK_TIMEOUT_S
        assert vault.rule_book.rules.revoked == {out: "test"}


async def test_nodes_with_software_that_is_not_released_get_nothing_new_and_are_read_from(
    cluster: Cluster, vault: Vault
) -> None:
    asset = (await lock(vault, BytesSource(bytearray(SECRET)), STANDARD, label="")).asset
    cluster.library.take(released(cluster.authority, 1, hashlib.sha256(b"another software").digest()))
    await trio.sleep(TOLD_S)
    assert vault.candidates(bytes(32)) == []
    with pytest.raises(LockboxError) as caught:
        await lock(vault, BytesSource(bytearray(SECRET)), STANDARD, label="")
    assert caught.value.code is ErrorCode.INSUFFICIENT_NODES
    sink = MemorySink()
    await unlock(vault, asset, sink)
    assert bytes(sink.content) == SECRET


async def test_connected_nodes_are_asked_in_turn(
    cluster: Cluster, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lock(vault, BytesSource(bytearray(SECRET)), STANDARD, label="")
    monkeypatch.setattr(rule_book, "ASK_EVERY_S", 1.0)
    await trio.sleep(2 * ASK_EVERY_S)
    forget_who_asked(cluster)
    await trio.sleep(4)
    asked = [node.asked["GetDocuments"] for node in cluster.nodes.values()]
    assert max(asked) == 1
    assert sum(asked) >= 3


async def test_a_tier_that_the_policy_does_not_offer_is_refused_before_anything_is_sent(
    cluster: Cluster, vault: Vault
) -> None:
    locked = await lock(vault, BytesSource(bytearray(b"x")), STANDARD)
    vault.rule_book.take([cluster.authority.sign(Policy(1, 0, [Setting("tiers", "basic")]))])
    index = vault.wallet.next_index
    with pytest.raises(LockboxError, match="standard is not on offer in this network") as caught:
        await lock(vault, BytesSource(bytearray(b"x")), STANDARD)
    assert caught.value.code is ErrorCode.TIER_VIOLATION
    assert vault.wallet.next_index == index
    await unlock(vault, locked.asset, MemorySink())
    await lock(vault, BytesSource(bytearray(b"x")), BASIC)
