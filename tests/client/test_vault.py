"""A client of a network: joining, hearing several nodes, wall time by most peers, connections that outlive Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.finding import found
from lockbox_node.client.lock import lock
from lockbox_node.client.members import MemberView
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.vault import Ports, Vault, VaultParams, open_vault
from lockbox_node.core.lookup import LookupParams
from lockbox_node.core.tiers import ELITE, STANDARD
from lockbox_node.errors import AssetNotFound, LockboxError, PeerUnreachable, RequestRefused
from protocol.errors import ErrorCode
from protocol.ids import distance
from protocol.messages import FindNode, Members, Message, PutStripe, SyncMembers
from simulations.world import InlineWorkers, SeededEntropy
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from lockbox_node.client.wallet import Wallet

SECRET = b"a secret that must not be lost"


def opened(cluster: Cluster, wallet: Wallet, addresses: list[str]) -> AbstractAsyncContextManager[Vault]:
    identity = cluster.authority.client(3)
    ports = Ports(cluster.hub.network("client3", identity.leaf), SeededEntropy(3), cluster.clock, InlineWorkers())
    return open_vault(ports, identity, wallet, addresses)


async def refusal(joining: AbstractAsyncContextManager[Vault]) -> BaseException:
    """The one error with which joining ends, out of its groups."""
    try:
        async with joining:
            pass
    except (LockboxError, ExceptionGroup) as caught:
        error: BaseException = caught
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        return error
    raise AssertionError("it has joined")


async def test_the_first_address_that_answers_is_enough(cluster: Cluster, wallet: Wallet) -> None:
    cluster.hub.down.add("node1")
    cluster.hub.silent.add("node2")
    began = trio.current_time()
    async with opened(cluster, wallet, ["node1:7420", "nowhere:1", "node2:7420", "node3:7420"]) as vault:
        assert len(vault.members) == 24
    assert trio.current_time() - began < 1.5


@pytest.mark.parametrize("addresses", [[], ["node1:7420"], ["node1:7420"] * 3, ["garbage", "also:", ":"]])
async def test_a_network_that_cannot_be_reached_is_said_so(
    cluster: Cluster, wallet: Wallet, addresses: list[str]
) -> None:
    cluster.kill(*cluster.nodes)
    error = await refusal(opened(cluster, wallet, addresses))
    assert isinstance(error, PeerUnreachable)
    assert error.exit_code == 7


async def test_a_network_that_hangs_is_given_up_after_the_join_time(cluster: Cluster, wallet: Wallet) -> None:
    cluster.hub.silent.update(node.host for node in cluster.nodes.values())
    began = trio.current_time()
    assert isinstance(
        await refusal(opened(cluster, wallet, ["node1:7420", "node2:7420", "node3:7420"])), PeerUnreachable
    )
    assert trio.current_time() - began <= 10.5


async def test_one_node_that_hides_members_hides_them_from_nobody(cluster: Cluster, wallet: Wallet) -> None:
    def nobody(_reply: Message) -> Message:
        return Members([], [], False)

    next(iter(cluster.nodes.values())).bend[SyncMembers] = nobody
    async with opened(cluster, wallet, ["node1:7420"]) as vault:
        await vault.refresh()
        assert len(vault.members) in (0, 24)  # nobody else is known of when the only bootstrap node lies


async def test_a_node_that_never_ends_its_member_list_is_left(cluster: Cluster, wallet: Wallet) -> None:
    first: list[Message] = []

    def endless(reply: Message) -> Message:
        assert isinstance(reply, Members)
        first.append(Members(reply.updates, [], True))
        return first[0]

    liar = next(iter(cluster.nodes.values()))
    liar.bend[SyncMembers] = endless
    with trio.fail_after(10):
        error = await refusal(opened(cluster, wallet, ["node1:7420"]))
    assert isinstance(error, PeerUnreachable)
    assert liar.asked["SyncMembers"] <= 65


async def test_a_refresh_is_shared_by_those_who_ask_at_once(cluster: Cluster, vault: Vault) -> None:
    await trio.sleep(2)
    before = sum(node.asked["SyncMembers"] for node in cluster.nodes.values())
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(vault.refresh)
    assert sum(node.asked["SyncMembers"] for node in cluster.nodes.values()) - before <= 3


async def test_a_node_that_cannot_be_reached_is_shunned_and_taken_back_later(cluster: Cluster, vault: Vault) -> None:
    node = next(reversed(cluster.nodes))
    cluster.kill(node)
    member = vault.members.get(node)
    assert member is not None
    told = trio.Event()
    vault.post(member, FindNode(bytes(32), 1), lambda _outcome: told.set())
    await told.wait()
    assert not vault.members.is_live(node, trio.current_time())
    assert vault.members.is_live(node, trio.current_time() + vault.params.shun_s + 1)


async def test_connections_outlive_a_cancelled_body_for_its_clean_up(cluster: Cluster, tmp_path: Path) -> None:
    answered: list[Message] = []
    with trio.CancelScope() as scope:
        async with cluster.client(a_wallet(cluster, tmp_path / "w")) as vault:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                    member = next(iter(vault.members.all()))
                    answered.append(await vault.pool.request(member.contact, FindNode(bytes(32), 1)))
    assert scope.cancelled_caught
    assert len(answered) == 1


async def test_who_failed_us_lately_is_chosen_where_the_others_do_not_suffice(cluster: Cluster, vault: Vault) -> None:
    address = bytes(32)
    usual = vault.place(ELITE, address)
    for holder in usual.values():
        vault.shun(holder.node)
    assert set(vault.place(ELITE, address)) == set(range(ELITE.n))


def partial_params(members_max: int = 8) -> VaultParams:
    return VaultParams(lookup=LookupParams(members_max=members_max))


async def test_a_small_network_is_read_whole_and_nothing_is_looked_up(vault: Vault) -> None:
    assert vault.members.complete
    assert not await vault.approach(bytes(32))
    assert vault.lookups.figures.lookups == 0


async def test_in_a_large_network_the_nearest_are_looked_up(cluster: Cluster, wallet: Wallet) -> None:
    async with cluster.client(wallet, params=partial_params()) as vault:
        assert await vault.approach(bytes(32))
        near = vault.members.nearest_verified(bytes(32), 20, trio.current_time())
        assert [member.record.node for member in near] == [node.id for node in cluster.nearest(bytes(32), 20)]
        assert vault.lookups.figures.lookups == 1


async def test_a_view_that_lacks_the_nearest_finds_them_and_what_is_locked_there(
    cluster: Cluster, wallet: Wallet
) -> None:
    async with cluster.client(wallet) as whole:
        asset = (await lock(whole, BytesSource(bytearray(SECRET)), STANDARD)).asset
        await trio.sleep(2)  # until the pointers are spread
    async with cluster.client(wallet) as vault:
        order = sorted(vault.members.all(), key=lambda member: distance(member.record.node, asset.address))
        vault.members = MemberView(vault.local.root)
        vault.members.take_records([member.signed for member in order[-3:]])
        vault.members.complete = False
        sink = MemorySink()
        await unlock(vault, asset, sink)
        assert bytes(sink.content) == SECRET
        assert len(vault.members) >= 20


async def test_what_is_not_there_is_looked_up_twice_and_then_said(cluster: Cluster, wallet: Wallet) -> None:
    async with cluster.client(wallet, params=partial_params()) as vault:
        with pytest.raises(AssetNotFound):
            await found(vault, bytes(32), 3)
        assert vault.lookups.figures.lookups == 2


async def test_a_set_beyond_the_nearest_is_found_too(cluster: Cluster, wallet: Wallet) -> None:
    async with cluster.client(wallet, params=VaultParams(candidates=6)) as vault:
        assert set(vault.place(ELITE, bytes(32))) == set(range(ELITE.n))
        first = cluster.nearest(bytes(32), 1)[0]
        first.refuse[PutStripe] = RequestRefused("full", code=ErrorCode.STORE_FULL)
        locked = await lock(vault, BytesSource(bytearray(SECRET)), ELITE)
        assert locked.placed == locked.wanted
