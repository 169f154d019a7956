"""Certificates over a whole network in memory: honest holders and verifiers, and every kind that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from lockbox_node.client.certifying import CertifyResult, certify
from lockbox_node.client.granting import verifiers_near
from lockbox_node.core.certified import examined
from lockbox_node.core.contradictions import contradictions, predecessors
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import AssetNotFound, ExitCode, LockboxError, PeerUnreachable
from protocol.errors import ErrorCode
from protocol.messages import LeafProof, Message, Proof, Prove, Signed
from protocol.possession import HELD, MISSING, AskAudit, Statement
from protocol.records import parse, sign
from tests.client.test_verify import holders, locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from tests.fakes.cluster import Cluster, FakeNode


def asked(cluster: Cluster) -> list[FakeNode]:
    """Who was asked to look since this was called last."""
    found = [node for node in cluster.nodes.values() if node.asked["AskAudit"]]
    for node in found:
        del node.asked["AskAudit"]
    return found


def held_by(result: CertifyResult, stripe: int = 0) -> list[int]:
    return [votes.held_by for votes in result.examined.stripes[stripe].votes]


def bent(node: FakeNode, change: Callable[[Statement], Statement]) -> Callable[[Message], Message]:
    """What a verifier says that signs something else than it saw."""

    def said(reply: Message) -> Message:
        assert isinstance(reply, Signed)
        return sign(change(parse(reply, Statement)), node.identity.key)

    return said


def all_held(statement: Statement) -> Statement:
    most = max(finding.leaves for finding in statement.findings)
    found = [msgspec.structs.replace(finding, verdict=HELD, leaves=most) for finding in statement.findings]
    return msgspec.structs.replace(statement, findings=found)


def all_missing(statement: Statement) -> Statement:
    found = [msgspec.structs.replace(finding, verdict=MISSING, leaves=0) for finding in statement.findings]
    return msgspec.structs.replace(statement, findings=found)


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_a_healthy_asset_is_certified_by_as_many_as_its_tier_names(
    cluster: Cluster, vault: Vault, tier: Tier
) -> None:
    asset = await locked(vault, tier)
    result = await certify(vault, asset)
    assert len(asked(cluster)) == tier.verifiers
    assert result.exit_code is ExitCode.DONE
    found = examined(cluster.authority.root, result.file)  # as a stranger does
    assert (found.address, found.margin, len(found.witnesses)) == (asset.address, tier.n - tier.k, tier.verifiers)
    assert min(held_by(result)) >= tier.quorum
    assert len({witness.signer.operator for witness in found.witnesses}) >= tier.quorum


async def test_every_stripe_of_a_large_asset_is_certified(cluster: Cluster, vault: Vault) -> None:
    result = await certify(vault, await locked(vault, size=6_000_000))
    assert [len(stripe.witnesses) for stripe in result.examined.stripes] == [3, 3]
    assert result.examined.whole
    assert examined(cluster.authority.root, result.file) == result.examined


async def test_one_dead_one_corrupt_and_one_missing_holder_show_as_such(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    dead, liar, loser, *_ = holders(cluster, asset)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Proof)
        first = reply.groups[0][0]
        spoilt = LeafProof(first.leaf_index, bytes([first.leaf[0] ^ 1]) + first.leaf[1:], first.path)
        return Proof(reply.index, [[spoilt, *reply.groups[0][1:]], *reply.groups[1:]])

    liar.bend[Prove] = false
    cluster.forget(loser, asset.address)
    cluster.kill(dead.id)
    result = await certify(vault, asset)
    assert result.exit_code is ExitCode.DEGRADED
    assert (result.examined.margin, sorted(held_by(result))[:3]) == (2, [0, 0, 0])
    for witness in result.examined.witnesses:
        verdicts = {finding.node: finding.verdict for finding in witness.statement.findings}
        assert [verdicts[one.id] for one in (dead, liar, loser) if one.id in verdicts] == [
            verdict for one, verdict in ((dead, 3), (liar, 2), (loser, 1)) if one.id in verdicts
        ]


async def test_a_verifier_that_is_silent_or_slow_is_replaced(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    await certify(vault, asset)
    first = asked(cluster)
    for node in first[:2]:
        node.silent.add(AskAudit)
    began = trio.current_time()
    result = await certify(vault, asset)
    assert result.examined.whole
    assert trio.current_time() - began < vault.params.audit_s
    assert len(asked(cluster)) == STANDARD.verifiers + 2


@pytest.mark.parametrize("tier", [STANDARD, ELITE], ids=["standard", "elite"])
async def test_one_that_lies_makes_no_index_held_and_none_lost(cluster: Cluster, vault: Vault, tier: Tier) -> None:
    asset = await locked(vault, tier)
    loser = holders(cluster, asset)[0]
    await certify(vault, asset)
    liar = next(node for node in asked(cluster) if node is not loser)
    liar.bend[AskAudit] = bent(liar, all_missing)
    assert (await certify(vault, asset)).examined.whole
    liar.bend[AskAudit] = bent(liar, all_held)
    cluster.forget(loser, asset.address)
    result = await certify(vault, asset)
    assert result.exit_code is ExitCode.DEGRADED
    assert sorted(held_by(result))[0] <= 1


async def test_two_that_collude_fool_a_standard_owner_and_no_elite_one(cluster: Cluster, vault: Vault) -> None:
    for tier, fooled in ((STANDARD, True), (ELITE, False)):
        asset = await locked(vault, tier)
        await certify(vault, asset)
        verifiers = asked(cluster)
        holding = [node for node in holders(cluster, asset) if node not in verifiers]
        cluster.forget(holding[0], asset.address)
        for node in verifiers[:2]:
            node.bend[AskAudit] = bent(node, all_held)
        assert (await certify(vault, asset)).examined.whole is fooled
        for node in verifiers:
            node.bend.clear()
        asked(cluster)


def reply_of(cluster: Cluster, node: FakeNode, kind: str) -> Callable[[Message], Message]:
    """What a verifier shows instead of its own honest statement."""
    kept: list[Message] = []

    def replayed(reply: Message) -> Message:
        kept.append(reply)
        return kept[0]

    def by_client(reply: Message) -> Message:
        assert isinstance(reply, Signed)
        client = cluster.authority.client(1)
        return sign(msgspec.structs.replace(parse(reply, Statement), chain=client.chain), client.key)

    def by_stranger(reply: Message) -> Message:
        assert isinstance(reply, Signed)
        stranger = type(cluster.authority)(9).node(1)
        return sign(msgspec.structs.replace(parse(reply, Statement), chain=stranger.chain), stranger.key)

    def edited(reply: Message) -> Message:
        assert isinstance(reply, Signed)
        changed = all_missing(parse(reply, Statement))
        return Signed(msgspec.msgpack.encode(changed), reply.signature)

    def shorter(statement: Statement) -> Statement:
        return msgspec.structs.replace(statement, findings=statement.findings[:-1])

    def borrowed(reply: Message) -> Message:
        assert isinstance(reply, Signed)
        about = parse(reply, Statement).address
        bystanders = [one for one in cluster.nodes.values() if one not in cluster.holding(about)]
        other = next(one for one in bystanders if not one.asked["AskAudit"])
        return sign(msgspec.structs.replace(parse(reply, Statement), chain=other.identity.chain), other.identity.key)

    ways = {"replayed": replayed, "client": by_client, "stranger": by_stranger, "edited": edited, "borrowed": borrowed}
    return ways.get(kind) or bent(node, shorter)


@pytest.mark.parametrize("kind", ["replayed", "client", "stranger", "edited", "borrowed", "shorter"])
async def test_what_a_stranger_would_not_believe_is_not_kept(cluster: Cluster, vault: Vault, kind: str) -> None:
    asset = await locked(vault)
    await certify(vault, asset)
    liar = asked(cluster)[0]
    liar.bend[AskAudit] = reply_of(cluster, liar, kind)
    if kind == "replayed":
        await certify(vault, asset)  # its answer to this one is what it shows from now on
        asked(cluster)
    result = await certify(vault, asset)
    assert result.examined.whole
    assert liar.id not in {witness.signer.id for witness in result.examined.witnesses}
    assert len(asked(cluster)) == STANDARD.verifiers + 1


async def test_without_a_quorum_there_is_no_certificate(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, BASIC)
    for node in cluster.nodes.values():
        node.silent.add(AskAudit)
    with pytest.raises(PeerUnreachable, match="0 verifiers of 0 operators"):
        await certify(vault, asset)
    for node in cluster.nodes.values():
        node.silent.clear()
        node.refuse[AskAudit] = LockboxError("no", code=ErrorCode.REVOKED)
    with pytest.raises(LockboxError) as refused:
        await certify(vault, asset)
    assert refused.value.code is ErrorCode.REVOKED


async def test_the_rate_of_the_verifiers_stands(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    for _ in range(5):
        await certify(vault, asset)
    with pytest.raises(LockboxError) as refused:
        await certify(vault, asset)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert 0 < refused.value.retry_after_s <= 60


async def test_certificates_of_an_asset_chain_and_nobody_contradicts_itself(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    first = (await certify(vault, asset)).examined
    await trio.sleep(5)
    second = (await certify(vault, asset, first.digest)).examined
    assert predecessors([first, second]) == [None, first]
    assert contradictions([*first.witnesses, *second.witnesses]) == []


async def test_a_verifier_that_tells_two_stories_is_found_out(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    first = (await certify(vault, asset)).examined
    liar = asked(cluster)[0]
    number = next(one.statement.number for one in first.witnesses if one.signer.id == liar.id)
    liar.bend[AskAudit] = bent(liar, lambda said: msgspec.structs.replace(all_missing(said), number=number))
    second = (await certify(vault, asset)).examined
    [proof] = contradictions([*first.witnesses, *second.witnesses])
    assert proof.node == liar.id


async def test_a_guest_with_the_words_gets_a_certificate_too(cluster: Cluster, vault: Vault, wallet: Wallet) -> None:
    asset = await locked(vault)
    async with cluster.client(wallet, guest=True) as guest:
        assert (await certify(guest, asset)).examined.whole


async def test_an_asset_that_nobody_knows_is_not_certified(vault: Vault) -> None:
    asset = await locked(vault)
    with pytest.raises(AssetNotFound):
        await certify(vault, msgspec.structs.replace(asset, index=77))


@pytest.mark.parametrize("liars", [1, 2])
async def test_verifiers_that_say_too_often_and_lie_are_replaced(cluster: Cluster, vault: Vault, liars: int) -> None:
    asset = await locked(vault)
    holding = {node.id for node in cluster.holding(asset.address)}
    too_often = LockboxError("too often", code=ErrorCode.RATE_LIMITED)
    too_often.retry_after_s = 10_000.0
    verifiers = [cluster.nodes[one.node] for one in verifiers_near(vault, asset.address, holding)]
    for node in verifiers[:liars]:
        node.refuse[AskAudit] = too_often
    assert (await certify(vault, asset)).examined.whole
    for node in cluster.nodes.values():
        node.refuse[AskAudit] = too_often
    with pytest.raises(LockboxError) as refused:
        await certify(vault, asset)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RATE_LIMITED, 60.0)
