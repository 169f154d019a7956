"""What `verify` says of healthy, damaged and lost assets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.source import BytesSource
from lockbox_node.client.verify import verify
from lockbox_node.core.audit import Verdict
from lockbox_node.core.paces import PROOFS_MAX
from lockbox_node.core.tiers import STANDARD, TIERS, Tier
from lockbox_node.errors import AssetNotFound, ExitCode, LockboxError
from protocol.errors import ErrorCode
from protocol.messages import LeafProof, Message, Proof, Prove
from tests.fakes.siblings import holders_of, locked_apart

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry, Wallet
    from tests.fakes.cluster import Cluster, FakeNode


async def locked(vault: Vault, tier: Tier = STANDARD, size: int = 1000) -> AssetEntry:
    asset = (await lock(vault, BytesSource(bytearray(size)), tier)).asset
    await trio.sleep(2)  # until the pointers are spread
    return asset


def holders(cluster: Cluster, asset: AssetEntry) -> list[FakeNode]:
    return sorted(cluster.holding(asset.address), key=lambda node: node.id)


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
async def test_an_asset_with_every_part_proved_is_healthy(vault: Vault, tier: Tier) -> None:
    verified = await verify(vault, await locked(vault, tier))
    assert (verified.state, verified.exit_code) == ("healthy", ExitCode.DONE)
    assert [line.index for line in verified.holders] == list(range(tier.n))
    assert {line.verdict for line in verified.holders} == {Verdict.HELD}
    assert verified.margin.nodes == tier.n - tier.k
    assert verified.margin.regions >= tier.regions_lost_max


async def test_every_holder_is_asked_once_and_too_often_within_a_minute_is_refused_as_such(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    for _ in range(PROOFS_MAX):
        assert (await verify(vault, asset)).state == "healthy"
    assert {node.asked["Prove"] for node in holders(cluster, asset)} == {PROOFS_MAX}
    began = trio.current_time()
    with pytest.raises(LockboxError) as refused:
        await verify(vault, asset)
    assert (refused.value.code, refused.value.exit_code) == (ErrorCode.RATE_LIMITED, ExitCode.REFUSED)
    assert 50 < refused.value.retry_after_s <= 60
    assert trio.current_time() - began < 1, "nobody waits for what cannot come in time"
    await trio.sleep(refused.value.retry_after_s)
    assert (await verify(vault, asset)).state == "healthy"


async def test_few_holders_that_want_to_be_asked_later_are_silent(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    late, later = holders(cluster, asset)[:2]
    for node, wait_s in ((late, 2.0), (later, 30.0)):
        node.refuse[Prove] = LockboxError("too often", code=ErrorCode.RATE_LIMITED)
        node.refuse[Prove].retry_after_s = wait_s
    verdicts: dict[bytes, Verdict] = {}

    async def look() -> None:
        verified = await verify(vault, asset)
        assert verified.state == "degraded"
        verdicts.update((line.node, line.verdict) for line in verified.holders)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(1)
        del late.refuse[Prove]
    assert (verdicts[late.id], verdicts[later.id]) == (Verdict.HELD, Verdict.SILENT)


async def test_what_is_lost_is_not_hidden_by_few_who_want_to_be_asked_later(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    gone, late = holders(cluster, asset)[:8], holders(cluster, asset)[8:]
    cluster.kill(*(node.id for node in gone))
    for node in late:
        node.refuse[Prove] = LockboxError("too often", code=ErrorCode.RATE_LIMITED)
        node.refuse[Prove].retry_after_s = 30.0
    assert (await verify(vault, asset)).state == "lost"


async def test_every_stripe_of_a_large_asset_is_verified(vault: Vault) -> None:
    verified = await verify(vault, await locked(vault, size=6_000_000))
    assert verified.state == "healthy"
    assert len({line.stripe for line in verified.holders}) == 2
    assert len(verified.holders) == 20


async def test_dead_holders_degrade_an_asset_and_narrow_its_margin(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    dead = {node.id for node in holders(cluster, asset)[:2]}
    cluster.kill(*dead)
    verified = await verify(vault, asset)
    assert (verified.state, verified.exit_code) == ("degraded", ExitCode.DEGRADED)
    assert verified.margin.nodes == 3
    assert {line.node for line in verified.holders if line.verdict is Verdict.SILENT} == dead


@pytest.mark.parametrize(("gone", "state", "code"), [(4, "at-risk", 8), (5, "at-risk", 8), (6, "lost", 5)])
async def test_the_state_follows_the_margin(cluster: Cluster, vault: Vault, gone: int, state: str, code: int) -> None:
    asset = await locked(vault)
    cluster.kill(*[node.id for node in holders(cluster, asset)[:gone]])
    verified = await verify(vault, asset)
    assert (verified.state, verified.exit_code) == (state, code)
    assert verified.margin.nodes == 5 - gone


async def test_an_asset_whose_holders_are_all_gone_is_lost_and_its_holders_are_named(
    cluster: Cluster, vault: Vault
) -> None:
    asset = await locked(vault)
    cluster.kill(*[node.id for node in holders(cluster, asset)])
    verified = await verify(vault, asset)
    assert verified.state == "lost"
    assert len(verified.holders) == 10


async def test_a_false_proof_is_corrupt_and_a_lost_part_is_missing(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault)
    liar, loser, *_ = holders(cluster, asset)

    def false(reply: Message) -> Message:
        assert isinstance(reply, Proof)
        first = reply.groups[0][0]
        bent = LeafProof(first.leaf_index, bytes([first.leaf[0] ^ 1]) + first.leaf[1:], first.path)
        return Proof(reply.index, [[bent, *reply.groups[0][1:]], *reply.groups[1:]])

    liar.bend[Prove] = false
    cluster.forget(loser, asset.address)
    verdicts = {line.node: line.verdict for line in (await verify(vault, asset)).holders}
    assert verdicts[liar.id] is Verdict.CORRUPT
    assert verdicts[loser.id] is Verdict.MISSING


async def test_a_proof_made_for_another_nonce_does_not_count(cluster: Cluster, vault: Vault) -> None:
    asset = await locked(vault, size=2_000_000)  # leaves are drawn, not all shown
    replayed: list[Message] = []

    def replay(reply: Message) -> Message:
        replayed.append(reply)
        return replayed[0]

    node = holders(cluster, asset)[0]
    node.bend[Prove] = replay
    assert (await verify(vault, asset)).state == "healthy"
    verdicts = {line.node: line.verdict for line in (await verify(vault, asset)).holders}
    assert verdicts[node.id] is Verdict.CORRUPT


async def test_an_asset_that_nobody_knows_is_not_found(vault: Vault) -> None:
    import msgspec

    asset = await locked(vault)
    with pytest.raises(AssetNotFound):
        await verify(vault, msgspec.structs.replace(asset, index=77))


async def test_of_siblings_the_one_that_is_asked_for_is_verified(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    for machine in await locked_apart(cluster, wallet, tmp_path / "copy", size=6_000_000):
        async with cluster.client(wallet) as vault:  # of either machine: one wallet may list both
            verified = await verify(vault, machine.asset)
        assert (verified.state, len(verified.holders)) == ("healthy", 20)
        roots = {line.node for line in verified.holders if line.stripe == 0}
        assert roots == {node.id for node in holders_of(cluster, machine.asset)}


async def test_a_sibling_that_stands_does_not_hide_that_an_asset_is_lost(
    cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    lost, _ = await locked_apart(cluster, wallet, tmp_path / "copy")
    cluster.kill(*(dead := {node.id for node in holders_of(cluster, lost.asset)}))
    async with cluster.client(wallet) as vault:
        verified = await verify(vault, lost.asset)
    assert (verified.state, verified.exit_code) == ("lost", ExitCode.NOT_ENOUGH)
    assert {line.node for line in verified.holders} <= dead
    assert {line.verdict for line in verified.holders} <= {Verdict.SILENT}
