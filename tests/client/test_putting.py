"""Locks that meet hung, refusing and crowded holders, and other machines with the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.core.placement import place
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD
from lockbox_node.errors import ExitCode, LockboxError, RequestRefused, StoreFull, UsageError
from protocol.errors import ErrorCode
from protocol.messages import PutStripe
from protocol.records import NodeRecord, parse
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet
    from lockbox_node.ports import Answer, Owner, PutOutcome, StripePart
    from tests.fakes.cluster import FakeNode

SECRET = b"a secret that must not be lost"


def secret() -> BytesSource:
    return BytesSource(bytearray(SECRET))


async def unlocked(vault: Vault, asset: object) -> bytes:
    sink = MemorySink()
    await unlock(vault, asset, sink)  # type: ignore[arg-type]
    return bytes(sink.content)


def delay_acknowledgement(node: FakeNode, delay_s: float, late: list[object]) -> None:
    """The node stores at once and says so `delay_s` later."""
    put = node.store.put

    def slowly(part: StripePart, replaces: Sequence[bytes], owner: Owner, answer: Answer[PutOutcome]) -> None:
        def later(outcome: PutOutcome | LockboxError) -> None:
            async def wait() -> None:
                await trio.sleep(delay_s)
                late.append(outcome)
                answer(outcome)

            trio.lowlevel.spawn_system_task(wait)

        put(part, replaces, owner, later)

    node.store.put = slowly  # type: ignore[method-assign]


async def warmed(vault: Vault) -> None:
    """The first lock raises the mark; those that a test looks at come after."""
    await lock(vault, secret(), BASIC)
    await lock(vault, secret(), BASIC)


async def test_a_hung_holder_is_replaced_after_a_second_and_the_lock_is_whole(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    for node in list(cluster.nodes.values())[:3]:
        node.silent.add(PutStripe)
    began = trio.current_time()
    locked = await lock(vault, secret(), STANDARD)
    assert locked.placed == 10
    assert trio.current_time() - began < 4.5  # one second for each, at worst one after another
    holding = cluster.holding(locked.asset.address)
    assert not any(PutStripe in node.silent for node in holding)
    assert len(holding) == 10
    assert await unlocked(vault, locked.asset) == SECRET


async def test_all_holders_learn_the_table_when_one_was_replaced(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    for node in list(cluster.nodes.values())[:6]:
        node.refuse[PutStripe] = StoreFull("no room", "elsewhere")
    locked = await lock(vault, secret(), STANDARD)
    holding = {node.id for node in cluster.holding(locked.asset.address)}
    for node in cluster.holding(locked.asset.address):
        entries = cluster.entries(node, locked.asset.address)
        assert holding <= {entry.node for entry in entries}


async def test_a_holder_that_asks_to_come_back_is_asked_again_and_not_replaced(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    limited = RequestRefused("slowly", "wait", ErrorCode.RATE_LIMITED)
    limited.retry_after_s = 0.4
    for node in cluster.nodes.values():
        node.refuse[PutStripe] = limited

    async def relent() -> None:
        await trio.sleep(0.3)
        for node in cluster.nodes.values():
            node.refuse.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relent)
        locked = await lock(vault, secret(), STANDARD)
    assert locked.placed == 10


async def test_with_too_few_holders_left_but_enough_the_lock_is_degraded(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    for node in list(cluster.nodes.values())[:6]:
        node.silent.add(PutStripe)
    locked = await lock(vault, secret(), ELITE)
    assert locked.placed == 18
    assert locked.exit_code is ExitCode.DEGRADED
    assert locked.margin.nodes == 10
    assert locked.margin.regions >= 2
    assert await unlocked(vault, locked.asset) == SECRET


async def test_with_too_few_holders_the_lock_is_undone_and_says_why(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    before = {node.id: node.store.figures().stripes for node in cluster.nodes.values()}
    for node in list(cluster.nodes.values())[:12]:
        node.refuse[PutStripe] = StoreFull("no room", "elsewhere")
    with pytest.raises(LockboxError, match="nothing was locked") as caught:
        await lock(vault, secret(), ELITE)
    assert caught.value.code in (ErrorCode.STORE_FULL, ErrorCode.INSUFFICIENT_NODES)
    assert {node.id: node.store.figures().stripes for node in cluster.nodes.values()} == before
    assert len(vault.wallet.assets()) == 2


async def test_a_tier_that_the_network_cannot_carry_is_refused_before_anything_is_sent(
    cluster: Cluster, vault: Vault
) -> None:
    cluster.kill(*list(cluster.nodes)[:6])
    await trio.sleep(2)
    await vault.refresh()
    with pytest.raises(LockboxError) as caught:
        await lock(vault, secret(), ELITE)
    assert caught.value.code is ErrorCode.INSUFFICIENT_NODES
    assert "Elite needs 20 nodes" in caught.value.message


async def test_a_cancelled_lock_leaves_nothing_and_blocks_nothing(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    before = {node.id: node.store.figures().stripes for node in cluster.nodes.values()}
    slow = list(cluster.nodes.values())[:8]
    for node in slow:
        node.silent.add(PutStripe)
    with trio.move_on_after(0.5) as scope:
        await lock(vault, secret(), STANDARD)
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 2.5
    assert {node.id: node.store.figures().stripes for node in cluster.nodes.values()} == before
    for node in slow:
        node.silent.clear()
    locked = await lock(vault, secret(), STANDARD)
    assert locked.placed == 10


async def test_two_machines_with_the_same_words_never_take_one_address(cluster: Cluster, tmp_path: Path) -> None:
    assets = []
    async with (
        cluster.client(a_wallet(cluster, tmp_path / "one", 1), 1) as one,
        cluster.client(a_wallet(cluster, tmp_path / "two", 2), 2) as two,
    ):

        async def locks(vault: Vault, content: bytes) -> None:
            locked = await lock(vault, BytesSource(bytearray(content)), STANDARD)
            assets.append((vault, locked.asset, content))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(locks, one, b"one %d" % number)
                nursery.start_soon(locks, two, b"two %d" % number)
        for vault, asset, content in assets:
            assert await unlocked(vault, asset) == content
    assert len({asset.address for _, asset, _ in assets}) == 8


async def test_an_index_that_another_machine_used_is_passed_over_and_its_asset_stays(
    cluster: Cluster, tmp_path: Path
) -> None:
    first, second = a_wallet(cluster, tmp_path / "one", 1), a_wallet(cluster, tmp_path / "two", 2)
    second.raise_mark(16)  # as if both had announced the same block at once
    async with cluster.client(first, 1) as one, cluster.client(second, 2) as two:
        theirs = await lock(one, BytesSource(bytearray(b"first")), STANDARD)
        ours = await lock(two, BytesSource(bytearray(b"second")), STANDARD)
        assert theirs.asset.index == 0
        assert ours.asset.index == 1
        assert await unlocked(one, theirs.asset) == b"first"
        assert await unlocked(two, ours.asset) == b"second"


async def test_many_locks_at_once_share_the_books_and_all_unlock(vault: Vault, wallet: Wallet) -> None:
    contents = {number: b"number %d" % number for number in range(40)}
    assets = {}

    async def one(number: int) -> None:
        locked = await lock(vault, BytesSource(bytearray(contents[number])), BASIC)
        assets[number] = locked.asset

    async with trio.open_nursery() as nursery:
        for number in contents:
            nursery.start_soon(one, number)
    assert len({asset.index for asset in assets.values()}) == 40
    assert {asset.address for asset in wallet.assets()} == {asset.address for asset in assets.values()}
    assert wallet.mark > max(asset.index for asset in assets.values())
    for number, asset in assets.items():
        assert await unlocked(vault, asset) == contents[number]


@pytest.mark.parametrize("lease_s", [0, 31 * 86_400])
async def test_a_lease_that_the_tier_does_not_offer_is_refused(vault: Vault, lease_s: int) -> None:
    with pytest.raises(UsageError, match="lease"):
        await lock(vault, secret(), BASIC, lease_s=lease_s)


async def test_holders_are_those_that_placement_names(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    locked = await lock(vault, secret(), STANDARD)
    address = locked.asset.address
    wanted = place(STANDARD, address, vault.candidates(address))
    assert {node.id for node in cluster.holding(address)} == {holder.node for holder in wanted.values()}


async def test_a_slow_holder_that_nobody_can_replace_is_waited_for(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    slow = list(cluster.nodes.values())[:6]  # 24 nodes, 20 wanted: two too many
    for node in slow:
        node.silent.add(PutStripe)

    async def wake() -> None:
        await trio.sleep(1.5)
        for node in slow[:3]:
            node.silent.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake)
        began = trio.current_time()
        locked = await lock(vault, secret(), ELITE)
    assert locked.placed >= 18
    assert trio.current_time() - began < 8


async def test_an_acknowledgement_that_comes_late_still_counts(cluster: Cluster, vault: Vault) -> None:
    await warmed(vault)
    late: list[object] = []
    for node in list(cluster.nodes.values())[:6]:
        delay_acknowledgement(node, 2.0, late)
    locked = await lock(vault, secret(), ELITE)
    assert locked.placed == 20
    assert late
    assert locked.exit_code is ExitCode.DONE


async def test_no_region_stores_enough_to_rebuild_though_replaced_holders_keep_their_shards(
    cluster: Cluster, vault: Vault
) -> None:
    await warmed(vault)
    late: list[object] = []
    for node in cluster.nodes.values():
        delay_acknowledgement(node, 1.2, late)
    for _ in range(12):
        locked = await lock(vault, secret(), BASIC)
        stored: dict[str, set[int]] = {}
        for node in cluster.holding(locked.asset.address):
            assert node.identity.record is not None
            for part in node.store.view(locked.asset.address).parts:
                stored.setdefault(parse(node.identity.record, NodeRecord).region, set()).add(part.index)
        assert max(len(indices) for indices in stored.values()) < BASIC.k
        await trio.sleep(60)
    assert late, "somebody was replaced"
