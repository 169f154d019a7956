"""How often verifiers let an asset be unlocked: who is believed that says "too often", and what lies about it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.messages import AskGrant
from tests.fakes.unlocking import SECRET, asked, content_of, locked, whom

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from tests.fakes.cluster import Cluster


async def test_the_sixth_unlock_within_a_minute_is_refused_and_says_when_to_come_again(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    for _ in range(5):
        assert (await content_of(vault, asset))[0] == SECRET
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert 0 < refused.value.retry_after_s <= 60
    await trio.sleep(refused.value.retry_after_s)
    assert (await content_of(vault, asset))[0] == SECRET


async def test_a_rate_limit_is_told_at_once_though_another_verifier_is_silent(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    first = await whom(cluster, vault, asset)
    for _ in range(4):
        await content_of(vault, asset)
    first[0].silent.add(AskGrant)
    began = trio.current_time()
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert trio.current_time() - began < 1


async def test_a_rate_limit_is_not_escaped_to_other_verifiers(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    first = await whom(cluster, vault, asset)
    for _ in range(4):
        await content_of(vault, asset)
    for _ in range(16):
        with pytest.raises(LockboxError) as refused:
            await content_of(vault, asset)
        assert refused.value.code is ErrorCode.RATE_LIMITED
    assert set(map(id, asked(cluster))) == set(map(id, first))


def too_often(wait_s: float) -> LockboxError:
    error = LockboxError("too often", code=ErrorCode.RATE_LIMITED)
    error.retry_after_s = wait_s
    return error


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_all_but_one_of_the_first_verifiers_that_lie_about_the_rate_lock_nobody_out(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    asset = await locked(vault, tier)
    for liar in (await whom(cluster, vault, asset))[1:]:
        liar.refuse[AskGrant] = too_often(60)
    content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.verifiers.granted >= tier.quorum
    assert tier.verifiers < result.verifiers.asked < 2 * tier.verifiers


async def test_when_all_verifiers_say_too_often_it_is_believed_at_once_but_no_wait_beyond_the_window(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    first = await whom(cluster, vault, asset)
    for node, wait_s in zip(first, (10, 20, 1e6), strict=True):
        node.refuse[AskGrant] = too_often(wait_s)
    began = trio.current_time()
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RATE_LIMITED, 20)
    assert trio.current_time() - began < 1
    assert asked(cluster) == first
    first[0].refuse[AskGrant] = too_often(1e6)
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert refused.value.retry_after_s == 60


async def test_when_every_candidate_but_one_says_too_often_a_bounded_number_is_asked(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    honest, *_ = await whom(cluster, vault, asset)
    for node in cluster.nodes.values():
        if node is not honest:
            node.refuse[AskGrant] = too_often(30)
    with pytest.raises(LockboxError) as refused:
        await content_of(vault, asset)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert len(asked(cluster)) <= 2 * STANDARD.verifiers + 2


async def test_who_wants_to_be_asked_again_in_a_moment_is_asked_again(cluster: Cluster, vault: Vault) -> None:
    """That is how a verifier speaks that limits its peers, whatever they ask, and not this asset."""
    asset = await locked(vault)
    first = await whom(cluster, vault, asset)
    for node in first:
        node.refuse[AskGrant] = too_often(0.01)

    async def relent() -> None:
        await trio.sleep(0.04)
        for node in first:
            node.refuse.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relent)
        content, result = await content_of(vault, asset)
    assert content == SECRET
    assert result.verifiers.asked == STANDARD.verifiers


async def test_who_wants_to_be_asked_again_in_a_moment_for_ever_is_replaced(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    liars = (await whom(cluster, vault, asset))[1:]
    for liar in liars:
        liar.refuse[AskGrant] = too_often(0.01)
    content, _ = await content_of(vault, asset)
    assert content == SECRET
    assert max(liar.asked["AskGrant"] for liar in liars) <= 4


@pytest.mark.parametrize(("tier", "bound"), [(STANDARD, 7), (ELITE, 6)], ids=["standard", "elite"])
async def test_of_a_hundred_unlocks_at_once_only_as_many_succeed_as_the_verifiers_rates_allow(
    cluster: Cluster, vault: Vault, tier: Tier, bound: int
) -> None:
    asset = await locked(vault, tier)
    read: list[bytes] = []
    codes: list[ErrorCode] = []

    async def one() -> None:
        try:
            read.append((await content_of(vault, asset))[0])
        except LockboxError as refused:
            codes.append(refused.code)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert bound == 5 * tier.verifiers // tier.quorum
    assert 5 <= len(read) <= bound
    granted = [node.granting.counts["granted"] for node in cluster.nodes.values() if node.granting.counts]
    assert granted == [5] * tier.verifiers
    assert set(read) == {SECRET}
    assert set(codes) == {ErrorCode.RATE_LIMITED}
    assert len(read) + len(codes) == 100


async def test_another_client_with_the_words_has_a_rate_of_its_own(
    cluster: Cluster, wallet: Wallet, vault: Vault
) -> None:
    asset = await locked(vault)
    for _ in range(5):
        await content_of(vault, asset)
    async with cluster.client(wallet, number=2) as other:
        assert (await content_of(other, asset))[0] == SECRET
