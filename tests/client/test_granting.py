"""Unlocks and their verifiers: who is asked, who may fail, what each failure costs, and what an attacker gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.granting import Leave, VerifierCounts
from lockbox_node.core.derivation import root_key
from lockbox_node.core.grants import target_of
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import ExitCode, LockboxError, PeerUnreachable, RequestRefused
from protocol.errors import ErrorCode
from protocol.grants import GrantRequest
from protocol.ids import distance
from protocol.messages import AskGrant, GetShards, Shards, Signed
from protocol.records import sign
from tests.fakes.cluster import Cluster, a_wallet
from tests.fakes.granting import grant, wish
from tests.fakes.stripes import AssetSigner
from tests.fakes.unlocking import SECRET, asked, content_of, locked, whom

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet
    from tests.fakes.cluster import FakeNode


def leave_of(vault: Vault, asset: AssetEntry, tier: Tier) -> Leave:
    with root_key(vault.wallet.master, asset.index) as key:
        return Leave(vault, key, tier)


# Whom a client asks


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_each_tier_asks_its_verifiers_and_says_how_many_were_independent(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    asset = await locked(vault, tier)
    content, result = await content_of(vault, asset)
    verifiers = asked(cluster)
    assert content == SECRET
    assert len(verifiers) == tier.verifiers == result.verifiers.asked
    assert result.verifiers.quorum == tier.quorum <= result.verifiers.granted
    assert len({node.identity.operator for node in verifiers}) >= tier.quorum
    holders = {node.id for node in cluster.holding(asset.address)}
    strangers = [node for node in verifiers if node.id not in holders]
    assert 0 < result.verifiers.independent <= len(strangers)


async def test_an_asset_asks_the_same_verifiers_each_time(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    assert await whom(cluster, vault, asset) == await whom(cluster, vault, asset)


async def test_grants_are_asked_while_holders_are_looked_for(cluster: Cluster, vault: Vault) -> None:
    """Two round trips when warm: nobody waits for grants before asking who holds the stripe."""
    asset = await locked(vault)
    leave = leave_of(vault, asset, STANDARD)
    assert leave.asked == STANDARD.verifiers  # before anything was awaited
    await leave.quorum()


async def test_every_stripe_of_a_large_asset_has_grants_of_its_own(cluster: Cluster, vault: Vault) -> None:
    content = bytes(6 * 1024 * 1024)
    asset = await locked(vault, STANDARD, content)
    read, result = await content_of(vault, asset)
    assert read == content
    requests = sum(node.asked["AskGrant"] for node in cluster.nodes.values())
    assert requests == 2 * STANDARD.verifiers
    assert result.verifiers.asked == STANDARD.verifiers


# One that fails


async def test_a_silent_verifier_costs_a_hedge(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in (await whom(cluster, vault, asset))[:2]:
        node.silent.add(AskGrant)
    began = trio.current_time()
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert trio.current_time() - began < 1
    assert result.verifiers.asked > STANDARD.verifiers


async def test_elite_gets_through_one_silent_one_lying_and_one_slow_verifier(cluster: Cluster, vault: Vault) -> None:
    """Five asked, three of them no use at once: the next candidates stand in, and four good grants come together."""
    asset = await locked(vault, ELITE)
    silent, lying, slow, *_ = await whom(cluster, vault, asset)
    silent.silent.add(AskGrant)
    slow.silent.add(AskGrant)  # slower than the hedge is as good as silent
    lying.bend[AskGrant] = lambda reply: Signed(reply.body, bytes(64)) if isinstance(reply, Signed) else reply
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.verifiers.granted >= ELITE.quorum
    assert result.verifiers.asked >= ELITE.verifiers + 3


async def test_a_slow_grant_that_comes_late_is_welcome(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, ELITE)
    await whom(cluster, vault, asset)
    leave = leave_of(vault, asset, ELITE)
    await leave.quorum()
    await trio.sleep(1)
    assert len(leave.grants_for(b"", all_of_them=True)) == ELITE.verifiers
    assert len(leave.grants_for(b"")) == ELITE.quorum


def grants_by(nodes: list[FakeNode], request: Signed, now_unix_s: float) -> list[Signed]:
    return [grant(node.identity, request, now_unix_s) for node in nodes]


async def refusals(
    cluster: Cluster, vault: Vault, asset: AssetEntry, request: Signed, granted: list[Signed]
) -> set[str]:
    """What every holder of an asset says to a get: its codes; "served" where it gave shards."""
    said = set()
    for node in cluster.holding(asset.address):
        shown = [signed for signed in granted if signed not in grants_by([node], request, cluster.clock.now_unix_s())]
        member = vault.members.get(node.id)
        assert member is not None
        descriptor_hash = node.store.view(asset.address).parts[0].descriptor_hash
        try:
            get = GetShards(asset.address, descriptor_hash, request, shown)
            assert isinstance(await vault.pool.request(member.contact, get), Shards)
            said.add("served")
        except RequestRefused as refusal:
            said.add(refusal.code.value)
    return said


async def test_verifiers_that_sign_without_checking_open_nothing_below_a_quorum_or_without_the_key(
    cluster: Cluster, vault: Vault
) -> None:
    """One lying and two colluding verifiers of Elite sign whatever they are shown: three grants of four."""
    asset = await locked(vault, ELITE)
    now = cluster.clock.now_unix_s()
    colluding = [
        node for node in cluster.nodes.values() if node.id not in {one.id for one in cluster.holding(asset.address)}
    ]
    with root_key(vault.wallet.master, asset.index) as key:
        good = sign(GrantRequest(key.public_key, 8, vault.own_id, bytes(32), int(now)), key)
    three = grants_by(colluding[:3], good, now)
    assert await refusals(cluster, vault, asset, good, three) == {"GRANTS_TOO_FEW"}
    # A whole quorum that colludes still needs the asset key's own word.
    forged = wish(AssetSigner("not the owner"), vault.own_id, time_unix_s=now)
    everybody = grants_by(colluding[:8], forged, now)
    assert await refusals(cluster, vault, asset, forged, everybody) == {"ACCESS_DENIED"}


async def test_when_holders_accept_no_grant_the_reason_is_told_and_no_want_of_shards(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.refuse[GetShards] = RequestRefused("nobody here knows them", "", ErrorCode.GRANT_UNKNOWN_SIGNER)
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert refused.value.code is ErrorCode.GRANT_UNKNOWN_SIGNER
    assert refused.value.exit_code is ExitCode.REFUSED


# Lost regions


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_the_regions_that_a_tier_may_lose_lock_no_owner_out(cluster: Cluster, vault: Vault, tier: Tier) -> None:
    asset = await locked(vault, tier)
    held: dict[str, int] = {}
    for node in cluster.holding(asset.address):
        held[node.region] = held.get(node.region, 0) + 1
    lost = sorted(held, key=lambda region: -held[region])[: tier.regions_lost_max]
    cluster.kill(*(node.id for node in cluster.nodes.values() if node.region in lost))
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.verifiers.granted >= 2


async def test_with_one_operator_left_the_owner_gets_in_as_soon_as_holders_have_noticed(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault, ELITE)
    holders = cluster.holding(asset.address)
    kept = {holders[0].identity.operator, holders[1].identity.operator, holders[2].identity.operator}
    gone = [node for node in cluster.nodes.values() if node.identity.operator not in kept]
    for node in gone:
        cluster.hub.down.add(node.host)  # the holders do not know yet
    for ours, theirs in cluster.hub.streams:
        if {ours.peer_host, theirs.peer_host} & cluster.hub.down:
            ours.lose()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def notice() -> None:
            await trio.sleep(8)
            for node in gone:
                node.alive = False

        nursery.start_soon(notice)
        content, result = await content_of(vault, asset)
    assert content == SECRET
    assert 8 <= trio.current_time() - began < 20
    assert result.verifiers.granted >= 3


async def test_when_nobody_verifies_it_is_said(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for node in cluster.nodes.values():
        node.silent.add(AskGrant)
    began = trio.current_time()
    with pytest.raises(PeerUnreachable):
        await content_of(vault, asset)
    assert trio.current_time() - began <= 6


async def test_verifiers_that_have_just_started_are_no_refusal_of_the_owner(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for place, node in enumerate(cluster.nodes.values()):
        node.refuse[AskGrant] = RequestRefused("doubtful", "", ErrorCode.BUSY)
        node.refuse[AskGrant].retry_after_s = 30.0 + place
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    error = refused.value
    assert (error.code, error.retryable, error.exit_code) == (ErrorCode.BUSY, True, ExitCode.REFUSED)
    assert error.retry_after_s == 31.0


# Others


async def test_a_client_that_knows_the_address_but_not_the_key_gets_no_shard(
    cluster: Cluster, vault: Vault, tmp_path: Path
) -> None:
    """It tries every holder with all that it can make, overhear or have signed for assets of its own."""
    asset = await locked(vault)
    leave = leave_of(vault, asset, STANDARD)
    await leave.quorum()
    request, granted = leave.request, leave.grants_for(b"", all_of_them=True)
    thief_wallet = a_wallet(cluster, tmp_path / "thief", seed=2)
    async with cluster.client(thief_wallet, number=2) as thief:
        now = cluster.clock.now_unix_s()
        own = wish(AssetSigner("the thief's own"), thief.own_id, time_unix_s=now)
        near = sorted(cluster.nodes.values(), key=lambda node: distance(node.id, target_of(asset.address)))
        member = thief.members.get(near[0].id)
        assert member is not None
        honest = await thief.pool.request(member.contact, AskGrant(own))
        assert isinstance(honest, Signed)  # for an asset of its own it is granted
        tries = [
            (request, granted),
            (own, [honest]),
            (own, granted),
            (request, [honest]),
            (Signed(request.body, own.signature), granted),
            (own, grants_by(near[:8], own, now)),
        ]
        for shown, with_grants in tries:
            assert "served" not in await refusals(cluster, thief, asset, shown, with_grants)
        with pytest.raises(RequestRefused) as refused:
            await thief.pool.request(member.contact, AskGrant(request))
        assert refused.value.code is ErrorCode.GRANT_FOREIGN
    assert sum(node.asked["GetShards"] for node in cluster.nodes.values()) == len(tries) * STANDARD.n


async def test_a_guest_with_the_words_unlocks(cluster: Cluster, wallet: Wallet, vault: Vault) -> None:
    asset = await locked(vault)
    async with cluster.client(wallet, number=9, guest=True) as guest:
        assert (await content_of(guest, asset))[0] == SECRET


def test_of_two_stripes_the_weaker_is_told() -> None:
    one, two = VerifierCounts(3, 2, 3, 2), VerifierCounts(2, 2, 5, 1)
    assert one.weaker(VerifierCounts()) == one
    assert one.weaker(two) == two.weaker(one) == VerifierCounts(2, 2, 5, 1)
