"""Each tier asks as many verifiers as it says; with some that fail, lie or collude the outcome is stated and right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.paces import unlocks_max
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.messages import AskGrant, Message, Signed
from tests.fakes.unlocking import SECRET, asked, content_of, locked, whom

if TYPE_CHECKING:
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from tests.fakes.cluster import Cluster, FakeNode

by_tier = pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])


def never_refuses(node: FakeNode) -> None:
    """It signs however often it was asked."""
    node.granting._rates = SlidingLog(10**6, 60.0, 1000, 1000)


async def unlocked(vault: Vault, asset: AssetEntry, count: int) -> tuple[int, list[LockboxError]]:
    """How many of `count` unlocks in a row succeeded, and what the others were told: RATE_LIMITED."""
    refusals: list[LockboxError] = []
    for _ in range(count):
        try:
            await content_of(vault, asset)
        except LockboxError as refused:
            refusals.append(refused)
    assert {refused.code for refused in refusals} == {ErrorCode.RATE_LIMITED}
    return count - len(refusals), refusals


@by_tier
@pytest.mark.parametrize("fault", ["none", "silent", "forged", "refusing"])
async def test_one_verifier_that_fails_is_one_more_that_is_asked(
    cluster: Cluster, vault: Vault, tier: Tier, fault: str
) -> None:
    asset = await locked(vault, tier)
    first = await whom(cluster, vault, asset)
    assert len(first) == tier.verifiers == (5 if tier is ELITE else 3)
    failing, told = first[0], 1
    match fault:
        case "silent":
            failing.silent.add(AskGrant)
        case "forged":
            failing.bend[AskGrant] = forged
        case "refusing":
            failing.refuse[AskGrant] = LockboxError("no", code=ErrorCode.INTERNAL)
        case _:
            told = 0
    began = trio.current_time()
    content, result = await content_of(vault, asset)
    await trio.sleep(1)
    assert content == SECRET
    assert result.verifiers.granted >= tier.quorum == (4 if tier is ELITE else 2)
    # Where a quorum grants without it, nobody waits for the one that is silent.
    assert tier.verifiers <= len(asked(cluster)) <= tier.verifiers + told
    assert trio.current_time() - began < 3


def forged(reply: Message) -> Message:
    return Signed(reply.body, bytes(64)) if isinstance(reply, Signed) else reply


@pytest.mark.parametrize("tier", [STANDARD, ELITE], ids=["standard", "elite"])
async def test_verifiers_that_all_sign_however_often_get_nobody_more_than_honest_ones(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    """With the asset key and every verifier colluding: each holder serves what honest verifiers let through."""
    asset = await locked(vault, tier)
    for node in cluster.nodes.values():
        never_refuses(node)
    read, refusals = await unlocked(vault, asset, 3 * unlocks_max(tier))
    served = [node.granting.redeeming.counts["served"] for node in cluster.holding(asset.address)]
    assert max(served) == unlocks_max(tier)
    assert unlocks_max(tier) <= read <= unlocks_max(tier) * tier.n // tier.k
    assert all(0 < refusal.retry_after_s <= 60 for refusal in refusals)


@by_tier
async def test_two_verifiers_that_sign_however_often_get_no_unlock_beyond_what_the_others_let(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    """Two of Elite's are no quorum; elsewhere two are, and the holders are what bounds them."""
    asset = await locked(vault, tier)
    for node in (await whom(cluster, vault, asset))[:2]:
        never_refuses(node)
    read, _ = await unlocked(vault, asset, 20)
    served = [node.granting.redeeming.counts["served"] for node in cluster.holding(asset.address)]
    assert max(served) <= unlocks_max(tier)
    if tier is ELITE:
        assert read == 4, "with the first one that found them"
